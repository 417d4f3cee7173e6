"""Publication times of the newest few thousand batches: the last ``g`` of each, and the time.

A batch is published at once, so the time of a ``g`` is found by bisection. The log is a ring that stores
every entry twice, half the area apart, so the newest entries are always contiguous. Readers use the newer
half only: the writer does not write there, unless thousands of batches come during one search.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENTRIES: Final = 8192  # batches; readers use the newer half
STAMPS_BYTES: Final = 2 * 2 * 8 * ENTRIES


class Stamps:
    """The log in ``area``, ``STAMPS_BYTES`` of shared memory with one writer.

    ``count``, shape ``(1,)``, is the number of batches so far.
    """

    def __init__(self, area: NDArray[np.uint8], count: NDArray[np.uint64]) -> None:
        half = STAMPS_BYTES // 2
        self._g = area[:half].view(np.uint64)
        self._ns = area[half:STAMPS_BYTES].view(np.int64)
        self._count = count
        # The same as Python numbers, which cost less one by one.
        self._one_g, self._one_ns, self._one_count = self._g.data, self._ns.data, count.data

    def note(self, g: int, now_ns: int) -> None:
        """Record that ticks up to ``g`` are visible from ``now_ns`` on. Call it just before they are."""
        count = self._one_count[0]
        at = count % ENTRIES
        self._one_g[at] = self._one_g[at + ENTRIES] = g
        self._one_ns[at] = self._one_ns[at + ENTRIES] = now_ns
        self._one_count[0] = count + 1

    def of(self, g: int) -> int:
        """Return the publication time of the tick ``g``; 0 if it is no longer in the log."""
        count = self._one_count[0]
        newest = (count - 1) % ENTRIES + ENTRIES  # the second copy: the entry before it is there too
        if count > 1 and self._one_g[newest - 1] < g <= self._one_g[newest]:
            return int(self._one_ns[newest])
        found = np.zeros(1, np.int64)
        self.fill(np.array([g], np.uint64), found)
        return int(found[0])

    def fill(self, gs: NDArray[np.uint64], times: NDArray[np.int64]) -> None:
        """Write the publication times of ``gs``, which ascend, to ``times``; both have shape ``(k,)``.

        A time that is no longer in the log is 0.
        """
        count = int(self._count[0])
        if not count or not len(gs):
            times[:] = 0
            return
        held = min(count, ENTRIES // 2)
        start = (count - held) % ENTRIES
        newest = start + held - 1
        if held > 1 and self._g[newest - 1] < gs[0] and gs[-1] <= self._g[newest]:
            times[:] = self._ns[newest]  # most flushes send the newest batch only
            return
        last = self._g[start : start + held]
        first, end = last.searchsorted(gs[[0, -1]]).tolist()
        # There are fewer batches than ticks, so the edges of batches are searched among the ticks.
        edges = gs.searchsorted(last[first:end], side="right")
        bounds = np.empty(len(edges) + 2, np.int64)
        bounds[0], bounds[-1] = 0, len(gs)
        bounds[1:-1] = edges
        found = np.zeros(end - first + 1, np.int64)
        noted = self._ns[start + first : min(start + end + 1, start + held)]
        found[: len(noted)] = noted
        if first == 0 and count > held:
            found[0] = 0  # the tick may be of an earlier batch
        times[:] = found.repeat(np.diff(bounds))
