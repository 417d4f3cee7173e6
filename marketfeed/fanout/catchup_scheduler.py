"""Fair scheduler for sessions that are catching up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketfeed import clock
from marketfeed.fanout.catchup import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from marketfeed.fanout.subscriber import Subscriber

REST: Final = 3  # for each nanosecond of turns, so many of everything else: turns get a quarter
TURNS_NS: Final = 1_000_000  # in a row where nobody else wants the time
MOST_NS: Final = 4_000_000  # in a row, and owed or overdrawn
GO_ON: Final = 3  # for each nanosecond of first steps, so many of those that go on


class Turns:
    """Two queues: sessions that are to be advanced by a first step, and those whose catch-up has begun.

    Those that have begun come before others, three quarters of the turns: a
    catch-up that ends early has less to catch up on, as nothing stands still
    meanwhile. The rest is for first steps, which is all that most need.
    """

    def __init__(self, turn: Callable[[Subscriber, int], Turn], wake: Callable[[], None]) -> None:
        """``turn(member, now_ns)`` takes one; ``wake`` asks for another cycle."""
        self._turn = turn
        self._wake = wake
        self._first: dict[Subscriber, None] = {}
        self._begun: dict[Subscriber, None] = {}
        self._taken_ns = 0  # when the last turns ended
        self._owed_ns = 0  # to turns, of the time that has passed
        self._step_ns = 0  # the next turn takes, as the last one did
        self._lead_ns = 0  # what those that have begun had beyond their share

    def add(self, members: Iterable[Subscriber]) -> None:
        """Put ``members`` down for a turn each, but for those that have begun."""
        self._first.update((member, None) for member in members if member not in self._begun)

    def go_on(self, member: Subscriber) -> None:
        """Put ``member`` down for a turn: one that has begun, and has had to wait for its socket."""
        self._first.pop(member, None)
        self._begun[member] = None

    def discard(self, member: Subscriber) -> None:
        """Let ``member`` have no turn."""
        self._first.pop(member, None)
        self._begun.pop(member, None)

    def take(self, now_ns: int) -> None:
        """Advance sessions for a while; the rest has its turns after the next flush.

        One turn may be longer than what turns have saved up: then there are
        none for some cycles. ``now_ns`` is when the cycle began.
        """
        if not self._first and not self._begun:
            return
        at_ns = clock.now_ns()
        rest_ns = at_ns - self._taken_ns
        self._owed_ns = min(self._owed_ns + rest_ns // REST, MOST_NS)
        quiet = rest_ns < TURNS_NS
        budget_ns = max(self._owed_ns, TURNS_NS if quiet else 0)
        spent_ns = 0
        while self._first or self._begun:
            # Another one that takes as long would end beyond by more than half of it.
            if spent_ns + self._step_ns // 2 > budget_ns and (spent_ns or not quiet):
                self._wake()
                break
            before_ns = at_ns
            begun = bool(self._begun) and (self._lead_ns <= 0 or not self._first)
            self._next(self._begun if begun else self._first, now_ns)
            at_ns = clock.now_ns()
            took_ns = at_ns - before_ns
            # Bounded: one that was long because the machine ran something else would be the last turn of all,
            # where there is never a quiet moment.
            self._step_ns = min(took_ns, MOST_NS)
            spent_ns += took_ns
            self._lead_ns += took_ns if begun else -GO_ON * took_ns
            self._lead_ns = min(max(self._lead_ns, -MOST_NS), MOST_NS)
        self._owed_ns = max(self._owed_ns - spent_ns, -MOST_NS)
        self._taken_ns = at_ns

    def _next(self, queue: dict[Subscriber, None], now_ns: int) -> None:
        member = next(iter(queue))
        again = self._turn(member, now_ns) is Turn.AGAIN
        if not again or queue is self._first:
            queue.pop(member, None)  # an answered poll took itself out
        if again:
            self._begun[member] = None
