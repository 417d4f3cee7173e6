"""The writer of the rings of an engine that numbers its ticks itself; see core/rings.py for the protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from marketfeed.core.few import FewWriter, batch_of
from marketfeed.core.publisher import Publisher
from marketfeed.core.records import TRADES, Batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.core.rings import Rings


class RingWriter:
    """Writer of the rings, exactly one per block. Continues where an earlier one stopped or died."""

    def __init__(self, rings: Rings, wall_ns: Callable[[], int] | None = None) -> None:
        """``wall_ns`` is the clock of the stamps."""
        self.rings = rings
        self._publisher = Publisher(rings, wall_ns)
        self._few = FewWriter(rings.view)

    def write(self, batch: Batch) -> int:
        """Publish the ticks of ``batch``; return the last ``g``.

        Sets ``g`` and ``n`` of the records. A batch with more than depth / 4 ticks of one symbol is published
        in several parts. Raises IndexError, and publishes nothing, for a symbol id out of range.
        """
        total = len(batch)
        first_g = self._publisher.next_g
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
            placed = self._publisher.place(quotes, trades)
            for p in placed:
                p.records["n"] = p.ns
            self._publisher.publish(placed, end)
        return end - 1

    def takes_few(self, few: list[tuple[int, bytearray]]) -> bool:
        """Return whether :meth:`write_few` sets ``g`` and ``n`` of these records, and not of copies."""
        return len(few) <= self._publisher.most and not self._publisher.inherited

    def write_few(self, few: list[tuple[int, bytearray]]) -> int:
        """Publish a few ticks, channel and record of each, in order; return the last ``g``."""
        publisher = self._publisher
        if not self.takes_few(few):
            return self.write(batch_of(few))
        first_g = publisher.next_g
        self._few.store(self._few.place(few, first_g), first_g)
        publisher.advance(first_g + len(few))
        return first_g + len(few) - 1
