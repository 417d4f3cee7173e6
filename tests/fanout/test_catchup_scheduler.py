"""Whose turn it is among sessions that are alone: everybody comes, and nobody else waits long for them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import trio.testing

from marketfeed.core.units import S
from marketfeed.fanout.catchup import Turn
from marketfeed.fanout.catchup_scheduler import MOST_NS, TURNS_NS, Turns


class Table:
    """Sessions that need so many steps of so many nanoseconds each; time passes only while they take them."""

    def __init__(self, clock: trio.testing.MockClock, step_ns: int) -> None:
        self._clock = clock
        self._step_ns = step_ns
        self.steps: dict[str, int] = {}
        self.taken: list[str] = []
        self.rings = 0
        advance: Any = self._turn  # names stand for sessions
        self.turns = Turns(advance, self._ring)

    def _ring(self) -> None:
        self.rings += 1

    def _turn(self, member: str, now_ns: int) -> Turn:
        self._clock.jump(self._step_ns / S)
        self.taken.append(member)
        self.steps[member] -= 1
        return Turn.AGAIN if self.steps[member] else Turn.OVER

    def set_step(self, step_ns: int) -> None:
        self._step_ns = step_ns

    def add(self, **steps: int) -> None:
        self.steps |= steps
        members: Any = steps
        self.turns.add(members)

    def take(self) -> tuple[list[str], int]:
        """Return who had a turn, and how long all of them took, in nanoseconds."""
        before, self.taken = trio.current_time(), []
        self.turns.take(int(before * S))
        return self.taken, round((trio.current_time() - before) * S)


async def test_one_that_has_begun_goes_on_before_others_begin(mock_clock):
    table = Table(mock_clock, step_ns=TURNS_NS // 100)
    table.add(a=3, b=1, c=30, d=1)
    taken, _ = table.take()
    assert taken[:4] == [*"aaab"]
    assert Counter(taken) == {"a": 3, "b": 1, "c": 30, "d": 1}
    assert "c" in taken[taken.index("d") :]  # a quarter is for first steps
    assert table.rings == 0


async def test_turns_take_a_quarter_of_the_time_however_long_one_of_them_is(mock_clock):
    for step_ns in (TURNS_NS // 5, TURNS_NS, MOST_NS):
        table = Table(mock_clock, step_ns)
        table.add(a=10**6)
        table.take()
        turns_ns = others_ns = 0
        for between_ns in [TURNS_NS, 3 * TURNS_NS, 2 * TURNS_NS] * 30:
            mock_clock.jump(between_ns / S)
            rings = table.rings
            _, took_ns = table.take()
            assert table.rings == rings + 1
            assert took_ns <= max(step_ns, 2 * TURNS_NS)
            turns_ns += took_ns
            others_ns += between_ns
        assert 0.23 < turns_ns / (turns_ns + others_ns) < 0.27


async def test_after_a_step_that_took_very_long_there_are_turns_again(mock_clock):
    table = Table(mock_clock, step_ns=100 * MOST_NS)  # as one does while the machine runs something else
    table.add(a=10**6)
    assert table.take()[0] == ["a"]
    table.set_step(TURNS_NS // 10)
    taken = []
    for _ in range(100):  # never a quiet moment
        mock_clock.jump(2 * TURNS_NS / S)
        taken += table.take()[0]
    assert len(taken) > 100


async def test_where_nobody_else_wants_the_time_turns_follow_each_other(mock_clock):
    table = Table(mock_clock, step_ns=TURNS_NS // 4)
    table.add(a=10**6)
    table.take()
    for _ in range(10):
        mock_clock.jump(TURNS_NS / 100 / S)
        assert table.take()[1] >= TURNS_NS * 7 // 8


async def test_saved_time_is_not_spent_all_at_once(mock_clock):
    table = Table(mock_clock, step_ns=TURNS_NS // 10)
    mock_clock.jump(60)
    table.add(a=10**6)
    assert table.take()[1] <= MOST_NS


async def test_one_that_has_begun_has_turns_however_many_come_anew(mock_clock):
    table = Table(mock_clock, step_ns=TURNS_NS)
    table.add(old=10**6)
    table.take()
    counts: Counter[str] = Counter()
    for number in range(200):
        table.add(**{f"new{number}": 1})
        mock_clock.jump(2 * TURNS_NS / S)
        counts.update(member.rstrip("0123456789") for member in table.take()[0])
    assert counts["old"] == pytest.approx(3 * counts["new"], rel=0.1)


async def test_those_who_want_little_do_not_wait_for_the_end_of_one_who_needs_much(mock_clock):
    table = Table(mock_clock, step_ns=TURNS_NS)
    table.add(old=10**6)
    table.take()
    table.add(a=1, b=1, c=1)
    taken = []
    for _ in range(30):
        mock_clock.jump(2 * TURNS_NS / S)
        taken += table.take()[0]
    assert {"a", "b", "c"} < set(taken)


async def test_one_whose_socket_was_full_goes_on_before_others_begin(mock_clock):
    table = Table(mock_clock, step_ns=TURNS_NS // 100)
    table.add(a=1, b=1, begun=1)
    table.turns.go_on("begun")
    assert table.take()[0] == ["begun", "a", "b"]


async def test_whoever_leaves_has_no_turn(mock_clock):
    table = Table(mock_clock, step_ns=10 * TURNS_NS)
    table.add(a=5, b=5)
    assert table.take()[0] == ["a"]
    table.turns.discard("a")
    table.turns.discard("b")
    assert table.take() == ([], 0)
