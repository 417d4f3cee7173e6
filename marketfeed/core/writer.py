"""The writer of the rings. core/rings.py describes the protocol, and why it needs no lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from marketfeed.core.few import FewWriter, batch_of
from marketfeed.core.records import QUOTES, RECORD, TRADES, Batch, Records, stamps_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.core.rings import Indices, Rings


class _Placed(NamedTuple):
    """Destinations of the records of one channel in one publication."""

    symbols: Indices  # (k,) distinct symbols
    counts: Indices  # (k,) records of each
    last: Indices  # (k,) highest n of each afterwards
    slots: Indices  # (m,) one per record, in the records' order


class RingWriter:
    """Writer of the rings, exactly one per block. Continues where an earlier one stopped or died."""

    def __init__(self, rings: Rings, wall_ns: Callable[[], int] | None = None) -> None:
        self.rings = rings
        self._wall_ns = wall_ns  # clock of the stamps
        view = rings.view
        self._claimed, self._published, self._slots = view.claimed, view.published, view.slots
        self._published_g, self._first_ns = view.published_g, view.first_ns
        self._mask = rings.depth - 1
        self._depth = rings.depth
        # Ticks of one symbol in one publication; readers keep three quarters of the ring.
        self._most = rings.depth // 4
        self._few = FewWriter(view)
        # A writer that died during a publication may have left ticks above the head, and claimed slots
        # without one.
        self._next_g = max(rings.head(), self._highest_g()) + 1
        self._inherited = bool((self._claimed > self._published).any())

    def _highest_g(self) -> int:
        highest = 0
        for channel, records in enumerate(self.rings.view.records):
            symbols = np.flatnonzero(self._published[channel])
            newest = symbols * self._depth + ((self._published[channel][symbols] - 1) & self._mask)
            highest = max(highest, int(stamps_of(records)[newest].max(initial=0)))
        return highest

    def write(self, batch: Batch) -> int:
        """Publish the ticks of ``batch``; return the last ``g``.

        Sets ``g`` and ``n`` of the records. A batch with more than depth / 4 ticks of one symbol is published
        in several parts. Raises IndexError, and publishes nothing, for a symbol id out of range.
        """
        total = len(batch)
        first_g = self._next_g
        end = first_g + total
        quotes, trades = batch.quotes, batch.trades
        if batch.channels is None or not len(quotes) or not len(trades):
            middle = first_g + len(quotes)
            quotes["g"] = np.arange(first_g, middle, dtype=np.uint64)
            trades["g"] = np.arange(middle, end, dtype=np.uint64)
        else:
            # As in Batch, everything else is a quote: an invalid channel number must not assign a g twice.
            quotes["g"] = np.flatnonzero(batch.channels != TRADES) + first_g
            trades["g"] = np.flatnonzero(batch.channels == TRADES) + first_g
        if total:
            self._publish(quotes, trades, first_g, end)
        return end - 1

    def write_few(self, few: list[tuple[int, bytearray]]) -> int:
        """Publish a few ticks, channel and record of each, in order; return the last ``g``."""
        if len(few) > self._most or self._inherited:
            return self.write(batch_of(few))
        first_g = self._next_g
        self._few.store(self._few.place(few, first_g), first_g)
        self._advance(first_g + len(few))
        return first_g + len(few) - 1

    def _publish(self, quotes: Records, trades: Records, first_g: int, end: int) -> None:
        """Publish the ticks ``first_g <= g < end`` at once, or in two parts if a symbol has too many."""
        placed: list[tuple[int, Records, _Placed]] = []
        for channel, records in ((QUOTES, quotes), (TRADES, trades)):
            if len(records):
                placed.append((channel, records, self._place(channel, records)))
        if end - first_g > self._most and any(p.counts.max() > self._most for _, _, p in placed):
            middle = (first_g + end) // 2
            q, t = (int(stamps_of(r).searchsorted(np.uint64(middle))) for r in (quotes, trades))
            self._publish(quotes[:q], trades[:t], first_g, middle)
            self._publish(quotes[q:], trades[t:], middle, end)
            return
        for _, records, p in placed:
            fresh = p.symbols[p.counts == p.last]
            if len(fresh):
                self._note_first(records, fresh)
        # The protocol is the order of these three loops and the store after them.
        for channel, _, (symbols, _, last, _) in placed:
            if self._inherited:
                last = np.maximum(last, self._claimed[channel][symbols])
            self._claimed[channel][symbols] = last
        for channel, records, p in placed:
            # put() takes 60 % of the time of an indexed assignment, because the slots of a channel are
            # contiguous.
            self._slots[channel].put(p.slots, records.view(RECORD))
        for channel, records, p in placed:
            self.rings.sequence.note(channel, stamps_of(records), p.slots)
            self._published[channel][p.symbols] = p.last
        self._advance(end)

    def _advance(self, end: int) -> None:
        """Make the ticks ``g < end`` visible."""
        if self._wall_ns is not None:
            self.rings.stamps.note(end - 1, self._wall_ns())
        self._published_g[0] = end - 1
        self._next_g = end

    def _note_first(self, records: Records, symbols: Indices) -> None:
        """Record the times of the first ticks of ``symbols`` on this channel."""
        ids, places = np.unique(records["symbol"], return_index=True)
        fresh = symbols[self._first_ns[symbols] == 0]
        self._first_ns[fresh] = records["ts_recv"][places[ids.searchsorted(fresh)]]

    def _place(self, channel: int, records: Records) -> _Placed:
        """Set ``n`` of the records, and return their slots."""
        unsorted = records["symbol"].copy()
        order = unsorted.argsort(kind="stable")  # a radix sort, because symbols are u2
        by_symbol = unsorted.take(order)
        edges = (by_symbol[1:] != by_symbol[:-1]).nonzero()[0]
        bounds = np.empty(len(edges) + 2, np.int64)
        bounds[0], bounds[-1] = 0, len(records)
        np.add(edges, 1, out=bounds[1:-1])
        starts = bounds[:-1]
        counts = bounds[1:] - starts
        symbols = by_symbol.take(starts).astype(np.int64)
        before = self._published[channel].take(symbols)  # raises IndexError
        sorted_ns = (before - starts).repeat(counts)
        sorted_ns += np.arange(1, len(records) + 1)
        sorted_slots = (symbols * self._depth).repeat(counts)
        sorted_slots += (sorted_ns - 1) & self._mask
        ns, slots = np.empty((2, len(records)), np.int64)
        ns[order] = sorted_ns
        slots[order] = sorted_slots
        records["n"] = ns
        return _Placed(symbols, counts, before + counts, slots)
