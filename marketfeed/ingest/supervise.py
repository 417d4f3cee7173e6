"""Supervision of feeds: a failed feed is restarted after a delay, without effect on other feeds.

A feed whose source is permanently broken (:class:`SourceError`) is not restarted.

Each run is a call to the feed's source, behind a circuit breaker. It succeeds with its first tick, and when
it ends without an error or after SETTLED_S. The breaker opens when the backoff has reached its longest delay,
for the least that this can be: it tells which sources have been down for a while, and adds no delay.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import trio

from marketfeed.clock import now_ns
from marketfeed.core.backoff import Backoff
from marketfeed.core.breaker import Breaker
from marketfeed.core.units import S
from marketfeed.errors import FeedProtocolError, SourceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from marketfeed.core.breaker import BreakerStatistics
    from marketfeed.core.records import Batch
    from marketfeed.ingest.feed import Feed
    from marketfeed.ingest.pump import FeedIntake

FIRST_DELAY_S: Final = 0.5
MAX_DELAY_S: Final = 30.0
SETTLED_S: Final = 60.0  # a run of this length resets the delay
STALE_S: Final = 10.0  # time without ticks after which a running feed is stale
JITTER: Final = 0.2  # relative variation of delays, so that feeds of one venue do not reconnect at once
OPENS_AFTER: Final = 7  # failures in a row: 0.5 s, doubled six times, is MAX_DELAY_S
OPEN_NS: Final = round(MAX_DELAY_S * (1 - JITTER) * S)


class FeedState(enum.Enum):
    """State of a feed."""

    STARTING = "starting"  # waiting or running, without a tick yet
    LIVE = "live"
    STALE = "stale"  # running, without recent ticks
    DOWN = "down"  # failed; restarts after a delay
    DONE = "done"  # its source has ended
    FAILED = "failed"  # its source is permanently broken; not restarted


class Supervisor:
    """Runs one feed until its source ends or is permanently broken.

    ``wait_sessions(count)`` returns once that many sessions are synced. ``backoff`` supplies the delays
    after failures.
    """

    def __init__(
        self,
        feed: Feed,
        intake: FeedIntake,
        wait_sessions: Callable[[int], Awaitable[None]],
        backoff: Backoff | None = None,
    ) -> None:
        self.feed = feed
        self.intake = intake
        self.start_sessions = feed.start_sessions  # at least; a clock raises it to the maximum of its feeds
        self.failures = 0
        self._wait_sessions = wait_sessions
        self._backoff = backoff or Backoff(FIRST_DELAY_S, MAX_DELAY_S, (1 - JITTER, 1 + JITTER))
        self._breaker = Breaker(OPENS_AFTER, OPEN_NS, OPEN_NS)
        self._call: int | None = None  # of the breaker, until it is known how it ends
        self._phase = FeedState.STARTING
        self._phase_s = 0.0  # since when, once it runs
        self._live_s = 0.0  # since when ticks have come without a pause, if it is live
        self._published_s: float | None = None  # last publication of the current run

    def state(self) -> FeedState:
        """Return the current state."""
        if self._phase is not FeedState.LIVE:
            return self._phase
        if trio.current_time() - self._sign_s >= STALE_S:
            return FeedState.STALE
        return FeedState.STARTING if self._published_s is None else FeedState.LIVE

    def since_s(self) -> float:
        """Return since when it has had its state, on the clock of :func:`trio.current_time`."""
        state = self.state()
        if state is FeedState.STALE:
            return self._sign_s + STALE_S
        return self._live_s if state is FeedState.LIVE else self._phase_s

    def statistics(self) -> BreakerStatistics:
        """Return the state of the circuit breaker, and how runs went."""
        return self._breaker.statistics(now_ns())

    @property
    def _sign_s(self) -> float:
        """Return when the current run published last, or began."""
        return self._phase_s if self._published_s is None else self._published_s

    def _enter(self, phase: FeedState) -> None:
        self._phase, self._phase_s = phase, trio.current_time()

    def _log_failure(self, error: Exception) -> None:
        """Log a failure: expected errors in one line, others with a traceback."""
        causes = list(_leaves(error))
        text = "; ".join(f"{type(cause).__name__}: {cause}" for cause in causes)
        if self._phase is FeedState.FAILED:
            # A SourceError with a cause is a bug in a decoder: log its traceback.
            faults = [cause for cause in causes if cause.__cause__ is not None]
            self.intake.log.error("feed failed for good", error=text, exc_info=faults[0] if faults else None)
        elif all(isinstance(cause, FeedProtocolError | OSError) for cause in causes):
            self.intake.log.warning("feed failed", error=text)
        else:
            self.intake.log.error("feed failed unexpectedly", error=text, exc_info=error)

    def _publish(self, batch: Batch) -> None:
        now_s = trio.current_time()
        if self._published_s is None or now_s - self._published_s >= STALE_S:
            self._live_s = now_s
        self._published_s = now_s
        if self._call is not None:
            self._end_call(True)
        self.intake.publish(batch)

    async def _admitted(self) -> int:
        """Begin a call of the breaker once it admits one, which it does after each delay of the backoff."""
        while True:
            call = self._breaker.admit(now_ns())
            if call is not None:
                return call
            await trio.sleep(self._breaker.wait_ns(now_ns()) / S)

    def _end_call(self, succeeded: bool) -> None:
        call, self._call = self._call, None
        if call is None:  # ended by its first tick
            return
        if succeeded:
            self._breaker.succeeded(call)
        else:
            self._breaker.failed(call, now_ns())

    async def run(self) -> None:
        """Run the feed, with restarts, until it is done or has failed permanently."""
        self._enter(FeedState.STARTING)
        if self.start_sessions:
            self.intake.log.info("waiting for sessions", count=self.start_sessions)
            await self._wait_sessions(self.start_sessions)
        while True:
            self._published_s = None
            self._call = await self._admitted()
            self._enter(FeedState.LIVE)
            started_s = self._phase_s
            try:
                await self.feed.run(self._publish)
            except Exception as error:
                self.failures += 1
                settled = trio.current_time() - started_s >= SETTLED_S
                broken = any(isinstance(cause, SourceError) for cause in _leaves(error))
                self._end_call(settled and not broken)
                self._enter(FeedState.FAILED if broken else FeedState.DOWN)
                self._log_failure(error)
                if broken:
                    return
            except BaseException:  # cancelled
                if self._call is not None:
                    self._breaker.release(self._call)
                raise
            else:
                self._end_call(True)
                self._enter(FeedState.DONE)
                self.intake.log.info("feed done", quotes=self.intake.ticks[0], trades=self.intake.ticks[1])
                return
            if settled:
                self._backoff.reset()
            await trio.sleep(self._backoff.next_s())


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors in nested exception groups, which nurseries of feeds raise."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
