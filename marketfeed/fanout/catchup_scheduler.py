"""Fair scheduler for sessions that are catching up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketfeed import clock
from marketfeed.fanout.catchup import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from marketfeed.fanout.subscriber import Subscriber

OTHER_WORK: Final = 3  # ns of other work for each ns of catch-up: catch-up gets a quarter of the time
IDLE_BUDGET_NS: Final = 1_000_000  # of one run while the process has nothing else to do
MAX_BUDGET_NS: Final = 4_000_000  # of one run, and the largest credit or debt
STARTED_WORK: Final = 3  # ns for sessions that have started for each ns for those that have not


class CatchUpScheduler:
    """Divides time among sessions that are catching up, and between them and all other work.

    Two queues: sessions that have not started to catch up, and sessions that have. Started sessions get
    three quarters of the time. The sooner a catch-up ends the less there is to catch up on, as its lane
    moves on meanwhile. The rest is for first advances, which suffice for most sessions.
    """

    def __init__(self, advance: Callable[[Subscriber, int], Outcome], wake: Callable[[], None]) -> None:
        """``advance(member, now_ns)`` advances one session; ``wake`` requests another cycle of the shard."""
        self._advance = advance
        self._wake = wake
        self._waiting: dict[Subscriber, None] = {}
        self._started: dict[Subscriber, None] = {}
        self._ended_ns = 0  # end of the last run
        self._credit_ns = 0  # catch-up's share of the time that has passed, not used yet
        self._expected_ns = 0  # duration of the next advance: that of the last one
        self._lead_ns = 0  # time that started sessions got beyond their share

    def add(self, members: Iterable[Subscriber]) -> None:
        """Queue those of ``members`` that have not started."""
        self._waiting.update((member, None) for member in members if member not in self._started)

    def add_started(self, member: Subscriber) -> None:
        """Queue ``member``, which had started and was blocked."""
        self._waiting.pop(member, None)
        self._started[member] = None

    def discard(self, member: Subscriber) -> None:
        """Remove ``member`` from the queues."""
        self._waiting.pop(member, None)
        self._started.pop(member, None)

    def __len__(self) -> int:
        """Return an upper bound of the sessions in the queues."""
        return len(self._waiting) + len(self._started)

    def run(self, now_ns: int) -> None:
        """Advance sessions until the budget is used up; the others wait for the next cycle.

        An advance may take longer than the budget. The debt is paid off before the next one.
        ``now_ns`` is the start of the cycle.
        """
        if not self._waiting and not self._started:
            return
        at_ns = clock.now_ns()
        other_ns = at_ns - self._ended_ns
        self._credit_ns = min(self._credit_ns + other_ns // OTHER_WORK, MAX_BUDGET_NS)
        idle = other_ns < IDLE_BUDGET_NS
        budget_ns = max(self._credit_ns, IDLE_BUDGET_NS if idle else 0)
        spent_ns = 0
        while self._waiting or self._started:
            # Stop where the next advance would exceed the budget by more than half of its duration.
            if spent_ns + self._expected_ns // 2 > budget_ns and (spent_ns or not idle):
                self._wake()
                break
            before_ns = at_ns
            started = bool(self._started) and (self._lead_ns <= 0 or not self._waiting)
            self._advance_first(self._started if started else self._waiting, now_ns)
            at_ns = clock.now_ns()
            took_ns = at_ns - before_ns
            # Bounded: after one advance that the machine interrupted, a process that is never idle
            # would otherwise not advance sessions again.
            self._expected_ns = min(took_ns, MAX_BUDGET_NS)
            spent_ns += took_ns
            self._lead_ns += took_ns if started else -STARTED_WORK * took_ns
            self._lead_ns = min(max(self._lead_ns, -MAX_BUDGET_NS), MAX_BUDGET_NS)
        self._credit_ns = max(self._credit_ns - spent_ns, -MAX_BUDGET_NS)
        self._ended_ns = at_ns

    def _advance_first(self, queue: dict[Subscriber, None], now_ns: int) -> None:
        member = next(iter(queue))
        proceed = self._advance(member, now_ns) is Outcome.CONTINUE
        if not proceed or queue is self._waiting:
            queue.pop(member, None)  # a poll that was answered has removed itself
        if proceed:
            self._started[member] = None
