"""``marketfeed probe``: measures the latency that a subscriber on this machine gets from an engine.

    engine ──► one feed per tier ──► from a tick's ``r`` to its read here ──► histogram; interruptions
           ◄── ping, once a second ──► round trip

Ticks that a feed catches up with after a lost connection do not count: they were late by its own outage.
``r`` is from the engine's clock, the time of the read from this machine's: the difference between the two
clocks is part of every latency. The round trip needs one clock only.
"""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from marketfeed.client import messages
from marketfeed.client.for_commands import ENDS, command_feed, lost, unknown_names, why_ended
from marketfeed.core.addresses import is_loopback
from marketfeed.core.counts import amount
from marketfeed.core.histogram import Histogram
from marketfeed.errors import ConfigError, StartError
from marketfeed.latency.arrivals import Arrivals
from marketfeed.latency.intervals import Interval, Tag
from marketfeed.latency.log import IntervalLog
from marketfeed.latency.units import shown_ns

if TYPE_CHECKING:
    from marketfeed.client.address import Endpoint
    from marketfeed.client.feed import Feed

PING_S: Final = 1.0
MUTE_S: Final = 3600.0  # a silent engine is what is to be measured
INTERVAL_S: Final = 10.0  # of the log
RECONNECT_S: Final = (1.0, 1.0)  # delay after the end of a session
LOG_BYTES: Final = 1 << 40
DAY_S: Final = 86_400


@dataclass
class Seen:
    """Measurements of the probe of one tier."""

    tier: str
    arrivals: Arrivals
    latency: Histogram = field(default_factory=Histogram)
    interval: Histogram = field(default_factory=Histogram)  # since the log was last written
    trip_ns: int = 0  # median of the pings
    live: bool = False  # ticks come as they arise

    @classmethod
    def parse(cls, text: str, limit_ns: int) -> Seen:
        """Return empty measurements for ``TIER`` or ``TIER=INTERVAL_MS``. Raises ConfigError."""
        tier, _, interval = text.partition("=")
        try:
            interval_ns = int(float(interval or 0) * 1_000_000)
        except ValueError:
            raise ConfigError(
                f"--tier {text}: must be a tier such as vip, or with its interval in ms, such as premium=100"
            ) from None
        return cls(tier, Arrivals(interval_ns, limit_ns))


class LatencyProbe:
    """One run of the command: a session per tier, for a number of seconds."""

    def __init__(
        self,
        engine: Endpoint,
        symbols: Sequence[str],
        seen: Sequence[Seen],
        token: str | None,
        log: Path | None,
    ) -> None:
        self._engine = engine
        self._symbols = list(symbols)
        self._seen = list(seen)
        self._token = token
        self._log = None if log is None else IntervalLog(log, LOG_BYTES, 1)
        self._began_ns = time.time_ns()
        self._unknown: dict[str, str] = {}  # names that match no symbol, and the message for each
        self._measured_s = 0.0  # without the time that closing the sessions took

    async def run(self, seconds: float) -> list[str]:
        """Measure for ``seconds``, or until Ctrl-C; return the lines of the result.

        Raises StartError if no session got a tick and one of them failed.
        """
        failed: list[str] = []
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write_log)
                nursery.start_soon(self._wait_end, seconds, signals, nursery.cancel_scope)
                async with trio.open_nursery() as sessions:
                    for seen in self._seen:
                        sessions.start_soon(self._session, seen, failed)
                nursery.cancel_scope.cancel()  # all sessions have failed
        self._write()
        if self._log is not None and self._log.problem:
            failed.append(f"latency log not written: {self._log.problem}")
        if failed and not any(seen.arrivals.ticks for seen in self._seen):
            raise StartError(failed[0])
        if not all(seen.arrivals.ticks for seen in self._seen):
            failed.append(f"no ticks of {', '.join(self._symbols)} arrived: does a feed send them?")
        unknown = [f"{name}: {text}" for name, text in self._unknown.items()]
        return [*self._lines(self._measured_s), *failed, *unknown]

    async def _wait_end(
        self, seconds: float, signals: AsyncIterator[int], everything: trio.CancelScope
    ) -> None:
        began_s = trio.current_time()
        with trio.move_on_after(seconds):
            await anext(signals)  # Ctrl-C ends the measurement; the results so far are shown
        self._measured_s = trio.current_time() - began_s
        everything.cancel()

    async def _session(self, seen: Seen, failed: list[str]) -> None:
        """Keep a feed connected; note each distinct reason for which it was not."""

        def note(why: str) -> None:
            text = f"{seen.tier or self._engine.url}: {why}"
            if text not in failed:
                failed.append(text)

        names = {"quotes": self._symbols, "trades": self._symbols, "tier": seen.tier or None}
        times = {"ping_s": PING_S, "mute_s": MUTE_S, "retry_s": RECONNECT_S}
        try:
            async with (
                command_feed(self._engine, self._token, **names, **times) as feed,
                trio.open_nursery() as beside,
            ):
                try:
                    async for batch in feed.batches():
                        for message in batch.messages:
                            if isinstance(message, messages.Quote | messages.Trade):
                                if seen.live and message.snap != 1:
                                    seen.arrivals.take(message.r * 1000, batch.arrived_ns, seen.interval)
                            elif isinstance(message, messages.Disconnected):
                                seen.live = False
                                note(lost(message, feed))
                            elif isinstance(message, messages.Synced) and not seen.live:
                                seen.live = True
                                beside.start_soon(self._miss, feed)
                finally:
                    seen.trip_ns = feed.statistics().round_trip.p50_ns
        except* ENDS as group:
            note(why_ended(group, self._engine, named=False))

    async def _miss(self, feed: Feed) -> None:
        """Find the subscribed names that match none of the engine's symbols."""
        self._unknown |= await unknown_names(feed, self._symbols, ())

    # Results.

    async def _write_log(self) -> None:
        while True:
            await trio.sleep(INTERVAL_S - time.time() % INTERVAL_S)
            self._write()

    def _write(self) -> None:
        """End the current interval: add it to the totals, and write it to the log, if there is one."""
        start_ns, self._began_ns = self._began_ns, time.time_ns()
        intervals: list[Interval] = []
        for seen in self._seen:
            intervals += Interval.of(Tag("client", seen.tier), seen.interval, start_ns, self._began_ns)
            seen.latency.add(seen.interval)
            seen.interval = Histogram()
        if self._log is not None:
            self._log.write(intervals, self._began_ns)

    def _lines(self, seconds: float) -> list[str]:
        head = ["tier", "ticks", "p50", "p90", "p99", "p99.9", "max", "round trip", "interrupted", "a day"]
        rows = [head, *(self._row(seen, seconds) for seen in self._seen)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = [
            f"{self._engine.url}, {round(seconds, 1):g} s: "
            "latency from the engine's receipt of a tick to its arrival here"
        ]
        lines += [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
        if not is_loopback(self._engine.parts.hostname or ""):
            lines.append(
                "the engine is on another machine: latencies include the difference of the two clocks"
            )
        for seen in self._seen:
            if seen.latency.negative is not None:
                early = seen.latency.negative.total
                lines.append(
                    f"{seen.tier or 'session'}: {amount(early, 'ticks')} arrived "
                    "before the engine's time of receipt: the clocks differ"
                )
        return lines

    @staticmethod
    def _row(seen: Seen, seconds: float) -> list[str]:
        arrivals, latency = seen.arrivals, seen.latency
        interrupted_s = arrivals.interrupted_ns / 1e9
        return [
            seen.tier or "(default)",
            f"{arrivals.ticks:,}",
            *map(shown_ns, latency.percentiles()[:4]),
            shown_ns(latency.max_ns),
            shown_ns(seen.trip_ns),
            f"{arrivals.interruptions} × {interrupted_s:.1f} s",
            f"{interrupted_s / seconds * DAY_S:.0f} s",
        ]
