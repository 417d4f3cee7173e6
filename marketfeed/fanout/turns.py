"""Whose turn it is among the sessions that are alone, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import trio

from marketfeed.fanout.catchup import Turn
from marketfeed.fanout.subscriber import Subscriber

TURNS_NS: Final = (
    1_000_000  # for all of them, each cycle; or a quarter of the time since they had their last,
)
MOST_NS: Final = 4_000_000  # but not more than this
PATIENCE: Final = 3  # of so many cycles, one begins with a session that needs more, if first steps take all
S: Final = 1_000_000_000  # ns


class Turns:
    """Two queues: sessions that are to be advanced by a first step, and those that need more."""

    def __init__(self, turn: Callable[[Subscriber, int], Turn], ring: Callable[[], None]) -> None:
        """``turn(member, now_ns)`` takes one; ``ring`` asks for another cycle."""
        self._turn = turn
        self._ring = ring
        self._first: dict[Subscriber, None] = {}
        self._more: dict[Subscriber, None] = {}
        self._taken_ns = 0
        self._passed = 0  # cycles in which nobody who needs more had a turn

    def add(self, members: Iterable[Subscriber]) -> None:
        """Put ``members`` down for a turn each, but for those that need more than one already."""
        self._first.update((member, None) for member in members if member not in self._more)

    def discard(self, member: Subscriber) -> None:
        """Let ``member`` have no turn."""
        self._first.pop(member, None)
        self._more.pop(member, None)

    def take(self, now_ns: int) -> None:
        """Advance sessions for a while; the rest has its turns after the next flush.

        One after the other to its end, as a session that has joined costs
        next to nothing; but everybody gets a first step before, so that many
        who come back after long do not keep those waiting who want little;
        nor the other way round. ``now_ns`` is when the cycle began.
        """
        if not self._first and not self._more:
            return
        budget_ns = max(TURNS_NS, min(MOST_NS, (_now_ns() - self._taken_ns) // 4))
        at_ns = _now_ns()
        until_ns = at_ns + budget_ns
        self._passed += 1
        if self._more and self._passed >= PATIENCE:
            self._next(self._more, now_ns)
        for queue in (self._first, self._more):
            while queue:
                before_ns, at_ns = at_ns, _now_ns()
                # Another one that takes as long would end beyond by more than half of it.
                if at_ns + (at_ns - before_ns) // 2 > until_ns:
                    self._taken_ns = at_ns
                    self._ring()
                    return
                self._next(queue, now_ns)
        self._taken_ns = _now_ns()

    def _next(self, queue: dict[Subscriber, None], now_ns: int) -> None:
        member = next(iter(queue))
        if queue is self._more:
            self._passed = 0
        again = self._turn(member, now_ns) is Turn.AGAIN
        if not again or queue is self._first:
            queue.pop(member, None)  # an answered poll took itself out
        if again:
            self._more[member] = None


def _now_ns() -> int:
    return int(trio.current_time() * S)
