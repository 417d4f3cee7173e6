"""Placement and publication of ticks in the rings: the part that both writers share.

    ticks with g ──► place: n and slot of each ──► publish: claim, scatter, publish, store the head

core/rings.py describes the protocol. core/writer.py assigns ``g`` and ``n``; core/mirror.py checks those that
another engine has assigned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from marketfeed.core.records import QUOTES, RECORD, TRADES, Records, stamps_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.core.rings import Indices, Rings


class Placed(NamedTuple):
    """Destinations of the records of one channel in one publication."""

    channel: int
    records: Records  # (m,) in order of g
    symbols: Indices  # (k,) distinct symbols, ascending
    counts: Indices  # (k,) records of each
    last: Indices  # (k,) highest n of each afterwards
    ns: Indices  # (m,) not modulo 2**32
    slots: Indices  # (m,)


class Publisher:
    """Stores ticks in the order of the protocol; one per block at a time."""

    def __init__(self, rings: Rings, wall_ns: Callable[[], int] | None) -> None:
        self._rings = rings
        self._wall_ns = wall_ns  # clock of the stamps
        view = rings.view
        self._claimed, self._published, self._slots = view.claimed, view.published, view.slots
        self._published_g, self._first_ns = view.published_g, view.first_ns
        self._mask = rings.depth - 1
        self._depth = rings.depth
        # Ticks of one symbol in one publication; readers keep three quarters of the ring.
        self.most = rings.depth // 4
        # A writer that died during a publication may have left ticks above the head, and claimed slots
        # without one.
        self.next_g = max(rings.head(), self._highest_g()) + 1
        self.inherited = bool((self._claimed > self._published).any())

    def _highest_g(self) -> int:
        highest = 0
        for channel, records in enumerate(self._rings.view.records):
            symbols = np.flatnonzero(self._published[channel])
            newest = symbols * self._depth + ((self._published[channel][symbols] - 1) & self._mask)
            highest = max(highest, int(stamps_of(records)[newest].max(initial=0)))
        return highest

    def place(self, quotes: Records, trades: Records) -> list[Placed]:
        """Return the places of ticks, which are in order of ``g`` on each channel; none if there are none.

        Raises IndexError for a symbol id out of range.
        """
        parts = ((QUOTES, quotes), (TRADES, trades))
        return [self._place(channel, records) for channel, records in parts if len(records)]

    def publish(self, placed: list[Placed], end: int) -> None:
        """Publish the ticks ``next_g <= g < end`` at once, or in two parts if a symbol has too many."""
        if end - self.next_g > self.most and any(p.counts.max() > self.most for p in placed):
            middle = (self.next_g + end) // 2
            cuts = [int(stamps_of(p.records).searchsorted(np.uint64(middle))) for p in placed]
            both = list(zip(placed, cuts, strict=True))
            self.publish([self._place(p.channel, p.records[:at]) for p, at in both if at], middle)
            rest = [(p.channel, p.records[at:]) for p, at in both if at < len(p.records)]
            self.publish([self._place(*part) for part in rest], end)
            return
        for p in placed:
            fresh = p.symbols[p.counts == p.last]
            if len(fresh):
                self._note_first(p.records, fresh)
        # The protocol is the order of these three loops and the store after them.
        for p in placed:
            last = p.last
            if self.inherited:
                last = np.maximum(last, self._claimed[p.channel][p.symbols])
            self._claimed[p.channel][p.symbols] = last
        for p in placed:
            # put() takes 60 % of the time of an indexed assignment, because the slots of a channel are
            # contiguous.
            self._slots[p.channel].put(p.slots, p.records.view(RECORD))
        for p in placed:
            self._rings.sequence.note(p.channel, stamps_of(p.records), p.slots)
            self._published[p.channel][p.symbols] = p.last
        self.advance(end)

    def advance(self, end: int) -> None:
        """Make the ticks ``g < end`` visible."""
        if self._wall_ns is not None:
            self._rings.stamps.note(end - 1, self._wall_ns())
        self._published_g[0] = end - 1
        self.next_g = end

    def _note_first(self, records: Records, symbols: Indices) -> None:
        """Record the times of the first ticks of ``symbols`` on this channel."""
        ids, places = np.unique(records["symbol"], return_index=True)
        fresh = symbols[self._first_ns[symbols] == 0]
        self._first_ns[fresh] = records["ts_recv"][places[ids.searchsorted(fresh)]]

    def _place(self, channel: int, records: Records) -> Placed:
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
        return Placed(channel, records, symbols, counts, before + counts, ns, slots)
