"""New symbols join the interests that match them, a bounded number each cycle.

A publisher may announce 65,536 names in one frame, and each may match a thousand
sessions. A symbol has to join before its first tick is passed by. So those that have
ticked join first, in order of these ticks, and where there are too many for one cycle
the lanes move only up to the first tick of the next one; the others join meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from marketfeed.core.records import CHANNELS

if TYPE_CHECKING:
    from marketfeed.core.rings import Indices, Rings
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.fanout.interest import Interests

LEAST: Final = 32  # symbols a cycle
MOST: Final = 2048  # 6 ms, where each is looked up by prefixes of all lengths
MATCHES: Final = 30_000  # a cycle, at most, but for the least: 10 ms
_NONE: Final[Indices] = np.empty(0, np.int64)


class Newcomers:
    """The symbols that have not joined yet; ``pending`` are their ids, in ascending order.

    ``short`` tells that ``head`` is behind the head of the rings, because of symbols that have ticked
    and could not join yet.
    """

    def __init__(self, rings: Rings, table: SymbolTable, interests: Interests) -> None:
        self._rings = rings
        self._table = table
        self._interests = interests
        self.head = rings.head()  # everything up to here is of symbols that have joined
        table.learn()
        self._known = len(table)
        self._left: int | None = None  # symbols that may join in this cycle; None: not counted yet
        self.pending: Indices = _NONE
        self.short = False

    def begin(self) -> None:
        """Begin a cycle: as many symbols may join again."""
        self._left = None

    def learn(self) -> int:
        """Let symbols join as far as the cycle has room; return the head that lanes may move to."""
        head = self._rings.head()  # before the names: of what is published up to here, all are there
        self._table.learn()
        count = len(self._table)
        if count > self._known:
            self.pending = np.concatenate([self.pending, np.arange(self._known, count)])
            self._known = count
        if len(self.pending):
            head = self._join(head)
        else:
            self.short = False
        self.head = head
        return head

    def _join(self, head: int) -> int:
        """Let pending symbols join, and return how far lanes may move towards ``head``."""
        if not self._interests.open:
            self.pending, self.short = _NONE, False
            return head
        if self._left is None:
            self._left = max(LEAST, min(MOST, MATCHES // self._interests.open))
        due = self._ticked(None)
        self.short = int(due.sum()) > self._left
        if self.short:
            # Each that is due now has a tick of its own behind the last head.
            head = min(head, self.head + self._left)
            due = self._ticked(head)
        joining = self.pending[due]
        rest = self.pending[~due]
        more = max(self._left - len(joining), 0)
        joining, self.pending = np.sort(np.concatenate([joining, rest[:more]])), rest[more:]
        self._left = max(self._left - len(joining), 0)
        self._interests.join(joining.tolist())
        return head

    def _ticked(self, head: int | None) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Tell which of the pending symbols have a tick at or before ``head``; None: any."""
        ticked = np.zeros(len(self.pending), bool)
        for channel in range(len(CHANNELS)):
            if head is None:
                ticked |= self._rings.published_of(channel, self.pending) > 0
            else:
                ticked |= self._rings.position(channel, self.pending, head) > 0
        return ticked
