"""When each batch became visible: its last ``g`` and the time, for the newest few thousand batches.

Records have no room for it, and need none: a batch is published at once, so a
``g`` finds its time by bisection. The log is a ring whose every entry lies in
it twice, half the area apart, so that the newest entries are always one piece.
Readers look at the newer half only: what they search is not being written,
unless thousands of batches come while they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENTRIES: Final = 8192  # batches; readers see the newer half
STAMPS_BYTES: Final = 2 * 2 * 8 * ENTRIES


class Stamps:
    """The log in ``area``, ``STAMPS_BYTES`` of memory that several processes see; one of them writes.

    ``count``, shape ``(1,)``, is how many batches were noted.
    """

    def __init__(self, area: NDArray[np.uint8], count: NDArray[np.uint64]) -> None:
        half = STAMPS_BYTES // 2
        self._g = area[:half].view(np.uint64)
        self._ns = area[half:STAMPS_BYTES].view(np.int64)
        self._count = count

    def note(self, g: int, now_ns: int) -> None:
        """Note that all up to ``g`` is visible from ``now_ns`` on; to be called just before it is."""
        count = int(self._count[0])
        at = count % ENTRIES
        self._g[at] = self._g[at + ENTRIES] = g
        self._ns[at] = self._ns[at + ENTRIES] = now_ns
        self._count[0] = count + 1

    def fill(self, gs: NDArray[np.uint64], times: NDArray[np.int64]) -> None:
        """Put into ``times`` when each of ``gs``, shapes ``(k,)``, ascending, was published.

        0 for those whose time is no longer known.
        """
        count = int(self._count[0])
        if not count or not len(gs):
            times[:] = 0
            return
        held = min(count, ENTRIES // 2)
        start = (count - held) % ENTRIES
        newest = start + held - 1
        if held > 1 and self._g[newest - 1] < gs[0] and gs[-1] <= self._g[newest]:
            times[:] = self._ns[newest]  # what most flushes take is the newest batch
            return
        last = self._g[start : start + held]
        first, end = last.searchsorted(gs[[0, -1]]).tolist()
        # Batches are fewer than ticks: their edges are looked up among the ticks, not the other way round.
        edges = gs.searchsorted(last[first:end], side="right")
        bounds = np.empty(len(edges) + 2, np.int64)
        bounds[0], bounds[-1] = 0, len(gs)
        bounds[1:-1] = edges
        found = np.zeros(end - first + 1, np.int64)
        noted = self._ns[start + first : min(start + end + 1, start + held)]
        found[: len(noted)] = noted
        if first == 0 and count > held:
            found[0] = 0  # of this batch, or of one before it
        times[:] = found.repeat(np.diff(bounds))
