"""Frames of a mirror that cannot be written yet, because ticks before them, or names, are missing.

Complexity: O(log n) per frame for n held frames; ``missing`` sorts them, and is called once per retry.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from marketfeed.cluster.frames import Header
    from marketfeed.core.records import Records

OVERHEAD_BYTES: Final = 768  # of a held frame: header, two array views, entries of heap and table


class HeldFrame(NamedTuple):
    """A checked TICKS frame; the records are views of ``data``."""

    header: Header
    quotes: Records
    trades: Records
    data: bytes


class HeldFrames:
    """Frames by their first ``g``; at most one of each. The owner bounds ``held_bytes``."""

    def __init__(self) -> None:
        self.held_bytes = 0  # with OVERHEAD_BYTES of each
        self._firsts: list[int] = []  # a heap
        self._frames: dict[int, HeldFrame] = {}

    def add(self, frame: HeldFrame) -> bool:
        """Add a frame; return False if one with its ticks is held. The longer one of two is kept."""
        first = frame.header.first_g
        other = self._frames.get(first)
        if other is not None:
            if other.header.last_g >= frame.header.last_g:
                return False
            self.held_bytes -= _cost(other)
        else:
            heapq.heappush(self._firsts, first)
        self._frames[first] = frame
        self.held_bytes += _cost(frame)
        return True

    def lowest(self) -> HeldFrame | None:
        """Return the frame with the lowest first ``g``, None if there is none."""
        return self._frames[self._firsts[0]] if self._firsts else None

    def pop(self) -> HeldFrame:
        """Remove and return the frame with the lowest first ``g``."""
        frame = self._frames.pop(heapq.heappop(self._firsts))
        self.held_bytes -= _cost(frame)
        return frame

    def clear(self) -> None:
        """Drop all frames."""
        self._firsts.clear()
        self._frames.clear()
        self.held_bytes = 0

    def missing(self, next_g: int, known_g: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges, first and last, from ``next_g`` to ``known_g`` that no frame covers."""
        at = next_g
        for first in sorted(self._firsts):
            if first > at:
                yield at, first - 1
            at = max(at, self._frames[first].header.last_g + 1)
        if at <= known_g:
            yield at, known_g


def _cost(frame: HeldFrame) -> int:
    return len(frame.data) + OVERHEAD_BYTES
