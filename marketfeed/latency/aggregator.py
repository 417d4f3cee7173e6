"""Merging of the latencies of all workers, for the log, the metrics and ``/v1/latency``.

shard (of every worker) ──intervals──► aggregator ──► log, in a thread
                                             └──────► sums since the start, figures of the last interval
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import structlog
import trio

from marketfeed.core.histogram import Histogram, bucket_of
from marketfeed.core.units import S
from marketfeed.latency.intervals import Interval, Tag
from marketfeed.latency.read import FIGURES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from marketfeed.core.rings import Indices
    from marketfeed.latency.log import IntervalLog
    from marketfeed.latency.recorder import LatencyRecorder

Key = tuple[str, str]  # hop, tier

BOUNDS_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
)  # fmt: skip
FINISH_S: Final = 0.5
ROTATE_SHARE: Final = 0.4  # of an interval: time over which the histograms of the last one are encoded
MERGE_S: Final = 0.3  # time over which intervals that arrived together are merged
MAX_UNWRITTEN: Final = 10_000  # intervals kept while the log cannot be written fast enough

log = structlog.get_logger()


async def tell_intervals(
    recorder: LatencyRecorder,
    interval_s: float,
    symbols: Callable[[], tuple[Sequence[str], Indices]],
    tell: Callable[[list[Interval]], None],
) -> None:
    """Call ``tell`` with the measurements of every interval, and with the rest when cancelled.

    Intervals end on whole multiples of ``interval_s`` of the wall clock, so that those of all workers and
    machines can be merged. ``symbols`` returns all names, and how many ticks each has had.
    """
    start_ns = began_ns = time.time_ns()
    turning: Iterator[tuple[Tag, Histogram]] = iter(())
    intervals: list[Interval] = []
    try:
        while True:
            await trio.sleep(interval_s - time.time() % interval_s)
            start_ns, began_ns = began_ns, time.time_ns()
            pause_s = interval_s * ROTATE_SHARE / max(1, len(recorder))
            turning = recorder.rotate(*symbols())
            for tag, histogram in turning:
                found = Interval.of(tag, histogram, start_ns, began_ns)
                intervals += found
                # Each costs 60 µs, in all workers at the same time: spread out, to keep sessions undelayed.
                # Empty ones do not wake an idle engine.
                await trio.sleep(pause_s if found else 0)
            tell(intervals)
            intervals = []
    finally:
        for tag, histogram in turning:  # the rest of an interval that has ended
            intervals += Interval.of(tag, histogram, start_ns, began_ns)
        end_ns = time.time_ns()
        rest = recorder.rotate(*symbols())
        tell(
            intervals
            + [one for tag, histogram in rest for one in Interval.of(tag, histogram, began_ns, end_ns)]
        )


class Aggregator:
    """Merges intervals, which arrive in any order of workers, into sums and the log, in :meth:`run`."""

    def __init__(self, file: IntervalLog, promises_ms: Mapping[str, float]) -> None:
        """``promises_ms`` is each tier's interval: how long it may delay a tick deliberately."""
        self.log = file
        self._promises_ms = promises_ms
        self._coming: deque[Interval] = deque(maxlen=MAX_UNWRITTEN)
        self._came = trio.Event()
        self._writing = trio.Lock()
        self.sums: dict[Key, Histogram] = {}
        self._last: dict[Key, dict[str, tuple[int, Histogram]]] = {}  # by worker: end of the interval, values
        self._symbols: dict[
            str, dict[str, tuple[int, Histogram]]
        ] = {}  # of the last interval, by tier and name

    def take(self, intervals: list[Interval]) -> None:
        """Queue the intervals of one worker. Never waits."""
        self._coming += intervals
        self._came.set()

    async def run(self) -> None:
        """Check that the log can be written; then merge and write intervals as they arrive, forever."""
        async with self._writing:
            await self._write([], time.time_ns())
        while True:
            await self._came.wait()
            self._came = trio.Event()
            async with self._writing:
                await self._settle(unhurried=True)

    async def finish(self) -> None:
        """Merge and write the rest, and close the log; give up after FINISH_S if the disk hangs."""
        with trio.move_on_after(FINISH_S):
            async with self._writing:
                await self._settle()
                self.log.close()

    async def _settle(self, unhurried: bool = False) -> None:
        intervals = list(self._coming)
        self._coming.clear()
        pause_s = MERGE_S / max(1, len(intervals)) if unhurried else 0.0
        for interval in intervals:
            self._merge(interval)
            # Each costs 40 µs: spread out, to keep feeds and sessions undelayed. No pause between the
            # symbols of a tier, which follow its hops: readers see all or none of them.
            if not interval.tag.symbol:
                await trio.sleep(pause_s)
        if intervals:
            await self._write(intervals, intervals[-1].end_ns)

    async def _write(self, intervals: list[Interval], now_ns: int) -> None:
        said = self.log.problem
        await trio.to_thread.run_sync(self.log.write, intervals, now_ns, abandon_on_cancel=True)
        if self.log.problem and not said:
            log.error("latency log cannot be written; the engine goes on", reason=self.log.problem)
        elif said and not self.log.problem:
            log.info("latency log is written again", path=str(self.log.path))

    def _merge(self, interval: Interval) -> None:
        tag = interval.tag
        one = Histogram()
        one.add_encoded(interval.encoded)
        one.beyond = interval.beyond
        if tag.symbol:
            symbols = self._symbols.setdefault(tag.tier, {})
            if symbols and next(iter(symbols.values()))[0] <= interval.start_ns:
                symbols.clear()
            _, former = symbols.get(tag.symbol, (0, Histogram()))
            one.add(former)
            symbols[tag.symbol] = (interval.end_ns, one)
            return
        key = (tag.hop, tag.tier)
        self.sums.setdefault(key, Histogram()).add(one)
        self._last.setdefault(key, {})[tag.worker] = (interval.end_ns, one)

    def last(self, key: Key) -> Histogram:
        """Return the newest interval of ``key``, merged over all workers that still report."""
        merged = Histogram()
        newest = max((end_ns for end_ns, _ in self._last.get(key, {}).values()), default=0)
        for end_ns, histogram in self._last.get(key, {}).values():
            if end_ns > newest - 2 * S:
                merged.add(histogram)
        return merged

    def buckets(self, key: Key) -> tuple[list[tuple[str, float]], float]:
        """Return the histogram for Prometheus: cumulative counts by bound, and the sum in seconds."""
        histogram = self.sums[key]
        cumulative = histogram.counts.cumsum()
        # A bucket counts as below a bound if it lies completely below it.
        bounds = bucket_of(np.array([round(bound * S) for bound in BOUNDS_S], np.int64) + 1) - 1
        counts = [(str(b), float(cumulative[i])) for b, i in zip(BOUNDS_S, bounds.tolist(), strict=True)]
        return [*counts, ("+Inf", float(histogram.total + histogram.beyond))], histogram.sum_ns() / S

    def shown(self, unmeasured: Iterable[str] = ()) -> dict[str, Any]:
        """Return the content of ``/v1/latency`` but for ledgers, times in ns.

        It has the tiers that something was measured of, and those in ``unmeasured``.
        """
        tiers: dict[str, Any] = {
            tier: {"interval_ms": self._promises_ms.get(tier, 0), "hops": {}}
            for tier in sorted({*unmeasured, *(tier for _, tier in self.sums)})
        }
        for hop, tier in sorted(self.sums):
            last = self.last((hop, tier))
            tiers[tier]["hops"][hop] = {"last": _figures(last), "since_start": _figures(self.sums[hop, tier])}
        for tier, entry in tiers.items():
            entry["age"] = self._age(tier)
            entry["symbols"] = {
                name: _figures(histogram)
                for name, (_, histogram) in sorted(self._symbols.get(tier, {}).items())
            }
        written = self.log.problem is None
        return {
            "log": {"path": str(self.log.path), "written": written, "problem": self.log.problem},
            "tiers": tiers,
        }

    def _age(self, tier: str) -> dict[str, float]:
        """Return the mean age of ticks at delivery, and the part that is the tier's deliberate delay."""
        total, wait, late = (_mean(self.last((hop, tier))) for hop in ("total", "wait", "late"))
        meant = max(wait - late, 0.0) if self._promises_ms.get(tier) else 0.0
        return {
            "mean_ns": round(total),
            "deliberate_ns": round(min(meant, total)),
            "ours_ns": round(max(total - meant, 0.0)),
        }


def _mean(histogram: Histogram) -> float:
    return histogram.sum_ns() / histogram.total if histogram.total else 0.0


def _figures(histogram: Histogram) -> dict[str, int]:
    figures = [histogram.total, histogram.min_ns, *histogram.percentiles(), histogram.max_ns]
    named = {
        name if name == "count" else f"{name}_ns": value for name, value in zip(FIGURES, figures, strict=True)
    }
    return named | ({"beyond": histogram.beyond} if histogram.beyond else {})
