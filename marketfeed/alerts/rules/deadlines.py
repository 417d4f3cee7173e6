"""Deadlines of symbols: the earliest is found without looking at all of them."""

from __future__ import annotations

import heapq
from typing import Final

SPARE: Final = 256  # removed deadlines that the heap may hold, beside as many as there are others


class Deadlines:
    """One deadline per symbol at most. Methods cost O(log n)."""

    def __init__(self) -> None:
        self._due_ns: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []  # due_ns and number; also of what is removed

    def __getitem__(self, number: int) -> int:
        """Return the deadline of a symbol; raises KeyError."""
        return self._due_ns[number]

    def __setitem__(self, number: int, due_ns: int) -> None:
        """Set the deadline of a symbol that has none."""
        self._due_ns[number] = due_ns
        if len(self._heap) < 2 * len(self._due_ns) + SPARE:
            heapq.heappush(self._heap, (due_ns, number))
        else:
            self._heap = [(at_ns, which) for which, at_ns in self._due_ns.items()]
            heapq.heapify(self._heap)

    def __delitem__(self, number: int) -> None:
        """Remove the deadline of a symbol; raises KeyError."""
        del self._due_ns[number]

    @property
    def next_ns(self) -> int | None:
        """The earliest deadline; None without any."""
        while self._heap:
            due_ns, number = self._heap[0]
            if self._due_ns.get(number) == due_ns:
                return due_ns
            heapq.heappop(self._heap)
        return None

    def due(self, now_ns: int) -> int | None:
        """Return the symbol with the earliest deadline, if it is at ``now_ns`` or before; else None."""
        next_ns = self.next_ns
        return self._heap[0][1] if next_ns is not None and next_ns <= now_ns else None
