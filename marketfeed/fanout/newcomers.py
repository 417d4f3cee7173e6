"""New symbols join the interests that match them, a bounded number per cycle.

A publisher may announce 65,536 names in one frame, and each may match a thousand sessions. A symbol has to
join before a lane passes its first tick. So symbols that have ticked join first, in order of these ticks. If
they are too many for one cycle, lanes stop before the first tick of a symbol that has not joined.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from marketfeed.core.records import CHANNELS

if TYPE_CHECKING:
    from marketfeed.core.rings import Indices, Rings
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.fanout.interest import Interests

LEAST: Final = 32  # symbols per cycle, at least
MOST: Final = 2048  # symbols per cycle, at most: 6 ms with prefixes of all lengths
MATCHES: Final = 30_000  # per cycle, at most, unless LEAST symbols have more: 10 ms
_NONE: Final[Indices] = np.empty(0, np.int64)


class Newcomers:
    """Symbols that have not joined yet; ``pending`` are their ids in ascending order.

    ``short`` is True while ``head`` is behind the head of the rings: symbols that have ticked have not
    joined.
    """

    def __init__(self, rings: Rings, table: SymbolTable, interests: Interests) -> None:
        self._rings = rings
        self._table = table
        self._interests = interests
        self.head = rings.head()  # every tick up to here is of a symbol that has joined
        table.learn()
        self._known = len(table)
        self._left: int | None = None  # symbols that may still join in this cycle; None: not computed yet
        self.pending: Indices = _NONE
        self.short = False

    def begin(self) -> None:
        """Begin a cycle, with a new budget of symbols."""
        self._left = None

    def learn(self) -> int:
        """Let symbols join within the budget of the cycle; return the head up to which lanes may advance."""
        head = self._rings.head()  # loaded before the names: every tick up to here has a name
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
        """Let pending symbols join; return the position up to ``head`` to which lanes may advance."""
        if not self._interests.open:
            self.pending, self.short = _NONE, False
            return head
        if self._left is None:
            self._left = max(LEAST, min(MOST, MATCHES // self._interests.open))
        due = self._ticked(None)
        self.short = int(due.sum()) > self._left
        if self.short:
            # Each due symbol has a tick of its own after the last head.
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
        """Return which pending symbols have a tick up to ``head`` (None: any tick)."""
        ticked = np.zeros(len(self.pending), bool)
        for channel in range(len(CHANNELS)):
            if head is None:
                ticked |= self._rings.published_of(channel, self.pending) > 0
            else:
                ticked |= self._rings.position(channel, self.pending, head) > 0
        return ticked
