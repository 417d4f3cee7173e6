"""Index of the newest ticks: the slot of each ``g``, in order, over both channels and all symbols.

Without it, a reader of all ticks since some ``g`` would have to search every symbol and sort the result. The
index holds nothing that the records do not hold: a reader checks each entry against the record's own ``g``,
and reads symbol by symbol if that fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from marketfeed.core.records import RECORD

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENTRIES: Final = 1 << 17  # of the largest index; fewer if the rings hold fewer ticks
CHANNEL_SHIFT: Final = 62  # of an entry; the slot is below


def sequence_entries(max_symbols: int, depth: int) -> int:
    """Return the number of entries for rings of this size, a power of two."""
    return min(ENTRIES, 1 << (2 * max_symbols * depth - 1).bit_length())


class Sequence:
    """The entries in ``area``, int64 of shape ``(a power of two,)``: shared memory with one writer."""

    def __init__(self, area: NDArray[np.int64]) -> None:
        self._area = area
        self._mask = len(area) - 1

    def note(self, channel: int, stamps: NDArray[np.uint64], slots: NDArray[np.int64]) -> None:
        """Store the ``slots`` of the ticks with the ``stamps`` on ``channel``; both have shape ``(k,)``."""
        at = stamps.astype(np.int64)
        at &= self._mask
        self._area[at] = slots | (channel << CHANNEL_SHIFT)

    def places(self, after: int, head: int) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Return channel and slot of each tick ``after < g <= head``; the caller has to check them.

        Both have shape ``(head - after,)`` and are copies. Returns None if the index holds fewer ticks.
        """
        if head - after > self._mask:
            return None
        at = np.arange(after + 1, head + 1)
        at &= self._mask
        entries = self._area.take(at)
        return entries >> CHANNEL_SHIFT, entries & ((1 << CHANNEL_SHIFT) - 1)


assert RECORD.itemsize * ENTRIES < 1 << 40
