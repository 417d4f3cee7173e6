"""Recording of a shard's flushes: latency histograms per tier and hop, over all deliveries.

    published ──wait──► flush ──encode──► frames ready ──► accepted by the kernel
    ts_event ──venue──► ts_recv ──ring──► published        └───── send ─────┘
                        └─────────────────── total ───────────────────────┘

Every value counts once for each session that got the tick. A flush only
copies its columns into rows. The rows are added to histograms 4,096 at a time,
because numpy's cost per call dominates for small flushes (perf/record.py).
``late`` is the part of ``wait`` that is not deliberate: from the time of an
interval tier's flush on the grid to its actual start.

A long flush is divided into up to four parts, by the times at which their sends
completed. A tick is recorded with the time of one part, chosen by a hash of its
``g`` in proportion to the deliveries of the parts: the times of single
deliveries are not kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from marketfeed.core.histogram import BUCKETS, HIGHEST_NS, Histogram, Values, bucket_of
from marketfeed.core.records import CHANNELS
from marketfeed.latency.arrivals import Arrivals
from marketfeed.latency.intervals import Tag

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from marketfeed.core.few import Tick
    from marketfeed.core.rings import Indices
    from marketfeed.core.stamps import Stamps

ROWS: Final = 4096
MAX_PARTS: Final = 4
MAX_FEW: Final = 512  # rows that wait in a list: 60 kB, and 0.2 ms when they are added

_SCATTER: Final = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: 2^64 over the golden ratio
_DRAWS: Final = 1 << 31

# Columns of the rows.
_EVENT, _RECV, _PUBLISHED, _BEGAN, _ACCEPTED, _TIMES, _SYMBOL = range(7)


class FlushedTicks(NamedTuple):
    """The ticks of one channel in a flush, in order of ``g``; all of shape ``(k,)``."""

    channel: int
    symbols: NDArray[np.integer]
    gs: NDArray[np.uint64]
    ts_event: Values
    ts_recv: Values


class Flush(NamedTuple):
    """Times of one flush, ns since the Unix epoch."""

    began_ns: int
    ready_ns: int  # collected and encoded
    late_ns: int  # from its time on the grid to its start; -1: the tier has no grid
    parts: list[tuple[int, int]]  # time, and deliveries completed by then
    deliveries: int  # of these, those that could be sent


class Marks:
    """Progress of a flush: times, and the deliveries completed by then."""

    __slots__ = ("_marks", "deliveries")

    def __init__(self) -> None:
        self.deliveries = 0
        self._marks: list[tuple[int, int]] = []

    def through(self, now_ns: int) -> None:
        """Record that all deliveries so far were handed to the kernel by ``now_ns``."""
        if self.deliveries > (self._marks[-1][1] if self._marks else 0):
            self._marks.append((now_ns, self.deliveries))

    def parts(self) -> list[tuple[int, int]]:
        """Return at most ``MAX_PARTS`` of the marks, including the last."""
        count = len(self._marks)
        wanted = min(count, MAX_PARTS)
        return [self._marks[-(-count * part // wanted) - 1] for part in range(1, wanted + 1)]


class TierRecorder:
    """Records the flushes of one tier's lanes."""

    def __init__(self, stamps: Stamps, max_symbols: int, top_symbols: int) -> None:
        self._stamps = stamps
        self._rows = np.empty((7, ROWS), np.int64)
        self._filled = 0
        self._top = top_symbols
        # By symbol id: its row in `_buckets`, if it is one of the busiest; -1: none.
        self._slot_of = np.full(max_symbols if top_symbols else 0, -1, np.int64)
        self._symbols: list[int] = []
        self._buckets = np.zeros((0, BUCKETS), np.int64)
        # Of flushes of few ticks: rows, and times and deliveries. Lists cost less than arrays there.
        self._few: list[tuple[int, ...]] = []
        self._few_flushes: list[tuple[int, ...]] = []
        self.unplaced = 0  # deliveries of ticks whose time of publication is no longer kept
        self.hops = self._fresh()
        self.arrivals = Arrivals(0, 0)  # of this tier's probe, if there is one

    @staticmethod
    def _fresh() -> dict[str, Histogram]:
        return {
            hop: Histogram() for hop in ("venue", "ring", "wait", "late", "encode", "send", "total", "client")
        }

    def flush(
        self, taken: Sequence[FlushedTicks], members: Sequence[NDArray[np.int32]], flush: Flush
    ) -> None:
        """Record one flush; ``members[channel][symbol]`` is how many sessions got the symbol's ticks."""
        if not flush.parts:
            return
        for ticks in taken:
            for start in range(0, len(ticks.gs), ROWS):
                self._add(ticks, members[ticks.channel], slice(start, start + ROWS), flush)
        if not flush.deliveries:
            return
        hops = self.hops
        hops["encode"].record_one(flush.ready_ns - flush.began_ns, flush.deliveries)
        if flush.late_ns >= 0:
            hops["late"].record_one(flush.late_ns, flush.deliveries)
        done, (_, sends) = 0, flush.parts[-1]
        for accepted_ns, sent in flush.parts:
            upto = flush.deliveries * sent // sends
            if upto > done:
                hops["send"].record_one(accepted_ns - flush.began_ns, upto - done)
            done = upto

    def flush_few(self, ticks: Sequence[Tick], members: Sequence[NDArray[np.int32]], flush: Flush) -> None:
        """Record the flush of a few ticks: as :meth:`flush`, with the work deferred to :meth:`settle`."""
        if not flush.parts:
            return
        if len(flush.parts) > 1:
            self.flush(_as_arrays(ticks), members, flush)
            return
        accepted_ns = flush.parts[0][0]
        self._few += [
            (
                tick.fields[0],
                tick.fields[1],
                self._stamps.of(tick.fields[2]),
                flush.began_ns,
                accepted_ns,
                int(members[tick.channel][tick.symbol]),
                tick.symbol,
            )
            for tick in ticks
        ]
        if flush.deliveries:
            times = flush.ready_ns - flush.began_ns, accepted_ns - flush.began_ns, flush.late_ns
            self._few_flushes.append((*times, flush.deliveries))
        if len(self._few) > MAX_FEW:
            self.settle()

    def _settle_few(self) -> None:
        few, self._few = self._few, []
        flushes, self._few_flushes = self._few_flushes, []
        if few:
            self._settle(np.array(few, np.int64).T)
        if flushes:
            encode, send, late, times = np.array(flushes, np.int64).T
            self.hops["encode"].record(encode, times)
            self.hops["send"].record(send, times)
            _record(self.hops["late"], late, times, late >= 0)

    def _add(self, ticks: FlushedTicks, members: NDArray[np.int32], part: slice, flush: Flush) -> None:
        """Copy up to ROWS ticks of a flush into rows."""
        gs, symbols = ticks.gs[part], ticks.symbols[part]
        end = self._filled + len(gs)
        if end > ROWS:
            self.settle()
            end = len(gs)
        rows = self._rows[:, self._filled : end]
        self._filled = end
        rows[_EVENT] = ticks.ts_event[part]
        rows[_RECV] = ticks.ts_recv[part]
        self._stamps.fill(gs, rows[_PUBLISHED])
        rows[_BEGAN] = flush.began_ns
        rows[_ACCEPTED] = flush.parts[-1][0] if len(flush.parts) == 1 else _drawn(gs, flush.parts)
        rows[_TIMES] = members[symbols]
        rows[_SYMBOL] = symbols

    def settle(self) -> None:
        """Add all rows to the histograms."""
        rows, self._filled = self._rows[:, : self._filled], 0
        if rows.size:
            self._settle(rows)
        self._settle_few()

    def _settle(self, rows: Values) -> None:
        if not rows[_TIMES].all():  # ticks that could not be sent to any session
            rows = rows[:, rows[_TIMES] > 0]
        event, recv, published, began, accepted, times, symbols = rows
        hops = self.hops
        _record(hops["venue"], recv - event, times, event != 0)
        placed = published != 0
        _record(hops["ring"], published - recv, times, placed)
        _record(hops["wait"], began - published, times, placed)
        self.unplaced += int(times[~placed].sum())
        values = accepted - recv
        hops["total"].record(values, times)
        if self._symbols:
            slots = self._slot_of[symbols]
            chosen = np.flatnonzero((slots >= 0) & (values >= 0) & (values <= HIGHEST_NS))
            if len(chosen):
                flat = slots[chosen] * BUCKETS + bucket_of(values[chosen])
                np.add.at(self._buckets.ravel(), flat, times[chosen])

    # Intervals.

    def __len__(self) -> int:
        """Return the number of histograms."""
        return len(self.hops) + len(self._symbols)

    def rotate(self, follow: list[int]) -> Iterator[tuple[str, int, Histogram]]:
        """Yield hop, symbol (-1: all) and histogram of the values recorded since the last call.

        The interval ends at the first item; flushes recorded while the
        iterator is consumed belong to the next interval. In that one the
        symbols ``follow``, at most ``top_symbols``, have their own histograms.
        """
        self.settle()
        hops, self.hops = self.hops, self._fresh()
        buckets, symbols = self._buckets, self._symbols
        self._slot_of[symbols] = -1
        self._symbols = follow[: self._top]
        self._slot_of[self._symbols] = np.arange(len(self._symbols))
        self._buckets = np.zeros((len(self._symbols), BUCKETS), np.int64)
        for hop, histogram in hops.items():
            yield hop, -1, histogram
        for slot, symbol in enumerate(symbols):
            yield "total", symbol, Histogram.of_counts(buckets[slot])


def _as_arrays(ticks: Sequence[Tick]) -> list[FlushedTicks]:
    """Return ``ticks`` by channel."""
    found: list[FlushedTicks] = []
    for channel in range(len(CHANNELS)):
        rows = [(tick.symbol, *tick.fields[:3]) for tick in ticks if tick.channel == channel]
        if rows:
            symbols, events, received, gs = np.array(rows, np.int64).T
            found.append(FlushedTicks(channel, symbols, gs.astype(np.uint64), events, received))
    return found


def _drawn(gs: NDArray[np.uint64], parts: list[tuple[int, int]]) -> Values:
    """Return for each tick the time of one of ``parts``, chosen in proportion to their deliveries."""
    sends = parts[-1][1]
    draws = (gs * _SCATTER) >> np.uint64(33)
    bounds = np.array([_DRAWS * sent // sends for _, sent in parts[:-1]], np.uint64)
    return np.array([at for at, _ in parts], np.int64)[bounds.searchsorted(draws, side="right")]


def _record(histogram: Histogram, values: Values, times: Values, which: NDArray[np.bool_]) -> None:
    if which.all():
        histogram.record(values, times)
    else:
        histogram.record(values[which], times[which])


class LatencyRecorder:
    """Recorders of all tiers of one shard."""

    def __init__(self, stamps: Stamps, max_symbols: int, top_symbols: int, worker: int = 0) -> None:
        self._stamps = stamps
        self._max_symbols = max_symbols
        self._top = top_symbols
        self._worker = str(worker)
        self._tiers: dict[str, TierRecorder] = {}
        self._before = np.zeros(max_symbols, np.int64)

    def tier(self, name: str) -> TierRecorder:
        """Return the recorder of the tier ``name``."""
        found = self._tiers.get(name)
        if found is None:
            found = self._tiers[name] = TierRecorder(self._stamps, self._max_symbols, self._top)
        return found

    def __len__(self) -> int:
        """Return the number of histograms."""
        return sum(len(recorder) for recorder in self._tiers.values())

    def rotate(self, names: Sequence[str], published: Indices) -> Iterator[tuple[Tag, Histogram]]:
        """Yield the histograms since the last call; from now on, follow the symbols that were busiest since.

        ``published``, shape ``(len(names),)``, is how many ticks each symbol has had.
        """
        busiest: list[int] = []
        if self._top:
            ticks = published - self._before[: len(published)]
            self._before[: len(published)] = published
            most = np.argsort(-ticks, kind="stable")[: self._top]
            busiest = most[ticks[most] > 0].tolist()
        for tier, recorder in list(self._tiers.items()):
            for hop, symbol, histogram in recorder.rotate(busiest):
                yield Tag(hop, tier, self._worker, names[symbol] if symbol >= 0 else ""), histogram

    @property
    def arrivals(self) -> dict[str, Arrivals]:
        """Counts of the probes, by tier."""
        return {tier: recorder.arrivals for tier, recorder in self._tiers.items()}

    @property
    def unplaced(self) -> dict[str, int]:
        """Deliveries per tier without ``ring`` and ``wait``: their time of publication was no longer kept."""
        return {tier: recorder.unplaced for tier, recorder in self._tiers.items()}
