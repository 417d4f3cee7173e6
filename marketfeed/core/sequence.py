"""Where each of the newest ticks lies: one entry per ``g``, in order, over both channels and all symbols.

Who wants everything that came since some ``g`` would otherwise look at every
symbol, gather what is new of each, and sort it. The entries say nothing that
the records do not say; a reader checks what it finds there against the
record's own ``g``, and looks symbol by symbol where that fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from marketfeed.core.records import RECORD

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENTRIES: Final = 1 << 17  # ticks it reaches back at most; fewer where the rings hold fewer
_CHANNEL_SHIFT: Final = 62


def sequence_entries(max_symbols: int, depth: int) -> int:
    """Return how many ticks the sequence of rings of this size reaches back, a power of two."""
    return min(ENTRIES, 1 << (2 * max_symbols * depth - 1).bit_length())


class Sequence:
    """The entries in ``area``, int64 of shape ``(a power of two,)``; several processes see it, one writes."""

    def __init__(self, area: NDArray[np.int64]) -> None:
        self._area = area
        self._mask = len(area) - 1

    def note(self, channel: int, stamps: NDArray[np.uint64], slots: NDArray[np.int64]) -> None:
        """Say where the ticks with the ``stamps`` lie on ``channel``; both of shape ``(k,)``, any k."""
        at = stamps.astype(np.int64)
        at &= self._mask
        self._area[at] = slots | (channel << _CHANNEL_SHIFT)

    def places(self, after: int, head: int) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Return channel and slot of each tick ``after < g <= head``, as far as known.

        Shape ``(head - after,)`` each, copies; None for more than it holds.
        """
        if head - after > self._mask:
            return None
        at = np.arange(after + 1, head + 1)
        at &= self._mask
        entries = self._area.take(at)
        return entries >> _CHANNEL_SHIFT, entries & ((1 << _CHANNEL_SHIFT) - 1)


assert RECORD.itemsize * ENTRIES < 1 << 40
