"""Supervision: a feed that fails is run again after a while; the others never notice.

A feed whose source is broken for good (:class:`SourceError`) is not run again.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import trio

from marketfeed.core.backoff import Backoff
from marketfeed.errors import FeedProtocolError, SourceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from marketfeed.core.records import Batch
    from marketfeed.ingest.feed import Feed
    from marketfeed.ingest.pump import FeedIntake

FIRST_DELAY_S: Final = 0.5
MAX_DELAY_S: Final = 30.0
SETTLED_S: Final = 60.0  # a feed that ran this long starts again with the first delay
STALE_S: Final = 10.0  # without a tick for this long a running feed is stale
JITTER: Final = 0.2  # delays vary by this share, so that feeds of one venue do not come back at once


class FeedState(enum.Enum):
    """What a feed is doing."""

    STARTING = "starting"  # run, or waiting to be, and no tick yet
    LIVE = "live"
    STALE = "stale"  # running, but silent
    DOWN = "down"  # failed; run again after a delay
    DONE = "done"  # its source has ended
    FAILED = "failed"  # its source is broken for good; not run again


class Supervisor:
    """Runs one feed until it is done, or its source is broken for good.

    ``wait_sessions(count)`` returns once that many sessions are synced. ``backoff`` gives the delays after
    failures.
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
        self.start_sessions = feed.start_sessions  # or more, if its clock has a feed that waits for more
        self.failures = 0
        self._wait_sessions = wait_sessions
        self._backoff = backoff or Backoff(FIRST_DELAY_S, MAX_DELAY_S, (1 - JITTER, 1 + JITTER))
        self._phase = FeedState.STARTING
        self._started_s = 0.0
        self._published_s: float | None = None  # when the present run last published

    def state(self) -> FeedState:
        """Return what the feed is doing now."""
        if self._phase is not FeedState.LIVE:
            return self._phase
        if trio.current_time() - (self._published_s or self._started_s) >= STALE_S:
            return FeedState.STALE
        return FeedState.STARTING if self._published_s is None else FeedState.LIVE

    def _log_failure(self, error: Exception) -> None:
        """Log a failure: a venue's everyday troubles in a line, anything else with its traceback."""
        causes = list(_leaves(error))
        text = "; ".join(f"{type(cause).__name__}: {cause}" for cause in causes)
        if self._phase is FeedState.FAILED:
            # A SourceError made of another error comes from a decoder that has a fault: show where.
            faults = [cause for cause in causes if cause.__cause__ is not None]
            self.intake.log.error("feed failed for good", error=text, exc_info=faults[0] if faults else None)
        elif all(isinstance(cause, FeedProtocolError | OSError) for cause in causes):
            self.intake.log.warning("feed failed", error=text)
        else:
            self.intake.log.error("feed failed unexpectedly", error=text, exc_info=error)

    def _publish(self, batch: Batch) -> None:
        self._published_s = trio.current_time()
        self.intake.publish(batch)

    async def run(self) -> None:
        """Run the feed, again and again, until it is done or has failed for good."""
        if self.start_sessions:
            self.intake.log.info("waiting for sessions", count=self.start_sessions)
            await self._wait_sessions(self.start_sessions)
        while True:
            self._started_s = trio.current_time()
            self._published_s = None
            self._phase = FeedState.LIVE
            try:
                await self.feed.run(self._publish)
            except Exception as error:
                self.failures += 1
                broken = any(isinstance(cause, SourceError) for cause in _leaves(error))
                self._phase = FeedState.FAILED if broken else FeedState.DOWN
                self._log_failure(error)
                if broken:
                    return
            else:
                self._phase = FeedState.DONE
                self.intake.log.info("feed done", quotes=self.intake.ticks[0], trades=self.intake.ticks[1])
                return
            if trio.current_time() - self._started_s >= SETTLED_S:
                self._backoff.reset()
            await trio.sleep(self._backoff.next_s())


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors inside nested groups, which a feed's own nursery raises."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
