"""The scheduler of sessions that are catching up: none starves, and other work is not delayed for long."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import trio.testing

from marketfeed.core.units import S
from marketfeed.fanout.catchup import Outcome
from marketfeed.fanout.catchup_scheduler import IDLE_BUDGET_NS, MAX_BUDGET_NS, CatchUpScheduler


class Table:
    """Sessions that need so many advances of so many nanoseconds; only advances take time."""

    def __init__(self, clock: trio.testing.MockClock, step_ns: int) -> None:
        self._clock = clock
        self._step_ns = step_ns
        self.advances: dict[str, int] = {}
        self.advanced: list[str] = []
        self.wakes = 0
        advance: Any = self._advance  # names stand for sessions
        self.scheduler: Any = CatchUpScheduler(advance, self._wake)

    def _wake(self) -> None:
        self.wakes += 1

    def _advance(self, member: str, now_ns: int) -> Outcome:
        self._clock.jump(self._step_ns / S)
        self.advanced.append(member)
        self.advances[member] -= 1
        return Outcome.CONTINUE if self.advances[member] else Outcome.DONE

    def set_step(self, step_ns: int) -> None:
        self._step_ns = step_ns

    def add(self, **advances: int) -> None:
        self.advances |= advances
        members: Any = advances
        self.scheduler.add(members)

    def run(self) -> tuple[list[str], int]:
        """Return the sessions that were advanced, and the duration of the run in nanoseconds."""
        before, self.advanced = trio.current_time(), []
        self.scheduler.run(int(before * S))
        return self.advanced, round((trio.current_time() - before) * S)


async def test_a_started_session_continues_before_others_start(mock_clock):
    table = Table(mock_clock, step_ns=IDLE_BUDGET_NS // 100)
    table.add(a=3, b=1, c=30, d=1)
    taken, _ = table.run()
    assert taken[:4] == [*"aaab"]
    assert Counter(taken) == {"a": 3, "b": 1, "c": 30, "d": 1}
    assert "c" in taken[taken.index("d") :]  # a quarter is for first advances
    assert table.wakes == 0


async def test_catch_up_takes_a_quarter_of_the_time_however_long_an_advance_is(mock_clock):
    for step_ns in (IDLE_BUDGET_NS // 5, IDLE_BUDGET_NS, MAX_BUDGET_NS):
        table = Table(mock_clock, step_ns)
        table.add(a=10**6)
        table.run()
        catch_up_ns = other_ns = 0
        for between_ns in [IDLE_BUDGET_NS, 3 * IDLE_BUDGET_NS, 2 * IDLE_BUDGET_NS] * 30:
            mock_clock.jump(between_ns / S)
            wakes = table.wakes
            _, took_ns = table.run()
            assert table.wakes == wakes + 1
            assert took_ns <= max(step_ns, 2 * IDLE_BUDGET_NS)
            catch_up_ns += took_ns
            other_ns += between_ns
        assert 0.23 < catch_up_ns / (catch_up_ns + other_ns) < 0.27


async def test_sessions_advance_again_after_one_very_long_advance(mock_clock):
    table = Table(
        mock_clock, step_ns=100 * MAX_BUDGET_NS
    )  # as one does while the machine runs something else
    table.add(a=10**6)
    assert table.run()[0] == ["a"]
    table.set_step(IDLE_BUDGET_NS // 10)
    taken = []
    for _ in range(100):  # never idle
        mock_clock.jump(2 * IDLE_BUDGET_NS / S)
        taken += table.run()[0]
    assert len(taken) > 100


async def test_an_idle_process_advances_sessions_without_pause(mock_clock):
    table = Table(mock_clock, step_ns=IDLE_BUDGET_NS // 4)
    table.add(a=10**6)
    table.run()
    for _ in range(10):
        mock_clock.jump(IDLE_BUDGET_NS / 100 / S)
        assert table.run()[1] >= IDLE_BUDGET_NS * 7 // 8


async def test_credit_is_not_spent_in_one_run(mock_clock):
    table = Table(mock_clock, step_ns=IDLE_BUDGET_NS // 10)
    mock_clock.jump(60)
    table.add(a=10**6)
    assert table.run()[1] <= MAX_BUDGET_NS


async def test_a_started_session_advances_however_many_new_ones_come(mock_clock):
    table = Table(mock_clock, step_ns=IDLE_BUDGET_NS)
    table.add(old=10**6)
    table.run()
    counts: Counter[str] = Counter()
    for number in range(200):
        table.add(**{f"new{number}": 1})
        mock_clock.jump(2 * IDLE_BUDGET_NS / S)
        counts.update(member.rstrip("0123456789") for member in table.run()[0])
    assert counts["old"] == pytest.approx(3 * counts["new"], rel=0.1)


async def test_short_catch_ups_do_not_wait_for_the_end_of_a_long_one(mock_clock):
    table = Table(mock_clock, step_ns=IDLE_BUDGET_NS)
    table.add(old=10**6)
    table.run()
    table.add(a=1, b=1, c=1)
    taken = []
    for _ in range(30):
        mock_clock.jump(2 * IDLE_BUDGET_NS / S)
        taken += table.run()[0]
    assert {"a", "b", "c"} < set(taken)


async def test_a_session_that_was_blocked_continues_before_others_start(mock_clock):
    table = Table(mock_clock, step_ns=IDLE_BUDGET_NS // 100)
    table.add(a=1, b=1, started=1)
    table.scheduler.add_started("started")
    assert table.run()[0] == ["started", "a", "b"]


async def test_a_discarded_session_is_not_advanced(mock_clock):
    table = Table(mock_clock, step_ns=10 * IDLE_BUDGET_NS)
    table.add(a=5, b=5)
    assert table.run()[0] == ["a"]
    table.scheduler.discard("a")
    table.scheduler.discard("b")
    assert table.run() == ([], 0)
