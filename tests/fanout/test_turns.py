"""Whose turn it is among sessions that are alone: everybody comes, and nobody else waits long for them."""

from __future__ import annotations

from collections import Counter

import trio.testing

from marketfeed.fanout.catchup import Turn
from marketfeed.fanout.turns import MOST_NS, PATIENCE, TURNS_NS, S, Turns


class Table:
    """Sessions that need so many steps of so many nanoseconds each; time passes only while they take them."""

    def __init__(self, clock: trio.testing.MockClock, step_ns: int) -> None:
        self._clock = clock
        self._step_ns = step_ns
        self.steps: dict[str, int] = {}
        self.taken: list[str] = []
        self.rings = 0
        self.turns = Turns(self._turn, self._ring)

    def _ring(self) -> None:
        self.rings += 1

    def _turn(self, member: str, now_ns: int) -> Turn:
        self._clock.jump(self._step_ns / S)
        self.taken.append(member)
        self.steps[member] -= 1
        return Turn.AGAIN if self.steps[member] else Turn.OVER

    def add(self, **steps: int) -> None:
        self.steps |= steps
        self.turns.add(steps)

    def take(self) -> tuple[list[str], int]:
        """Return who had a turn, and how long all of them took, in nanoseconds."""
        before, self.taken = trio.current_time(), []
        self.turns.take(int(before * S))
        return self.taken, round((trio.current_time() - before) * S)


async def test_everybody_has_a_first_step_before_anybody_has_a_second(mock_clock):
    table = Table(mock_clock, step_ns=TURNS_NS // 100)
    table.add(a=3, b=1, c=2)
    assert table.take()[0] == ["a", "b", "c", "a", "a", "c"]
    assert table.rings == 0


async def test_turns_take_a_quarter_of_the_time_between_and_ask_for_the_rest(mock_clock):
    step_ns = TURNS_NS // 2
    table = Table(mock_clock, step_ns)
    table.add(a=1000)
    table.take()
    for between_ns in (2 * TURNS_NS, 9 * TURNS_NS, 1000 * TURNS_NS):
        rings = table.rings
        mock_clock.jump(between_ns / S)
        _, took_ns = table.take()
        allowed_ns = max(TURNS_NS, min(MOST_NS, between_ns // 4))
        assert abs(took_ns - allowed_ns) <= step_ns // 2
        assert table.rings == rings + 1


async def test_one_that_needs_more_has_a_turn_however_many_come_anew(mock_clock):
    table = Table(mock_clock, step_ns=10 * TURNS_NS)
    table.add(old=50)
    assert table.take()[0] == ["old"]
    counts: Counter[str] = Counter()
    for number in range(10 * PATIENCE):
        table.add(**{f"new{number}": 1})
        mock_clock.jump(TURNS_NS / S)
        counts.update(table.take()[0])
    assert counts["old"] == 10


async def test_those_who_want_little_do_not_wait_for_the_end_of_one_who_needs_much(mock_clock):
    table = Table(mock_clock, step_ns=10 * TURNS_NS)
    table.add(old=1000)
    table.take()
    table.add(a=1, b=1, c=1)
    assert sorted(member for _ in range(5) for member in table.take()[0]) == ["a", "b", "c", "old", "old"]


async def test_whoever_leaves_has_no_turn(mock_clock):
    table = Table(mock_clock, step_ns=10 * TURNS_NS)
    table.add(a=5, b=5)
    assert table.take()[0] == ["a"]
    table.turns.discard("a")
    table.turns.discard("b")
    assert table.take() == ([], 0)
