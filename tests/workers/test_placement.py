"""Which worker gets a connection, while all serve and while they are replaced one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.workers.placement import Placement


@dataclass(eq=False)
class Child:
    worker: int
    generation: int
    connections: int = 0
    most: int = 1000
    waiting: bool = False  # for what it was given to be confirmed

    @property
    def full(self):
        return self.connections >= self.most

    @property
    def has_room(self):
        return not self.full and not self.waiting


def placed(*children):
    placement = Placement[Child](len(children))
    for child in children:
        assert placement.put(child) is None
    return placement


def test_the_worker_with_the_fewest_connections_gets_the_next():
    few = Child(1, 0, 3)
    assert placed(Child(0, 0, 5), few, Child(2, 0, 4)).choose() is few


def test_without_a_worker_nobody_gets_it_and_that_is_not_full():
    placement = Placement[Child](2)
    assert placement.choose() is None
    assert not placement.full


def test_while_workers_are_replaced_those_already_replaced_get_connections():
    old = Child(1, 0, 0)
    placement = placed(Child(0, 0, 10), old)
    with placement.replacing():
        assert placement.choose() is old  # none is replaced yet
        fresh = Child(0, placement.generation, 500)
        placement.put(fresh)
        assert placement.choose() is fresh
    assert placement.choose() is old


def test_a_worker_that_only_has_to_confirm_is_waited_for():
    placement = placed(Child(0, 0), Child(1, 0))
    with placement.replacing():
        placement.put(Child(0, placement.generation, 500, waiting=True))
        assert placement.choose() is None
        assert not placement.full


def test_where_all_that_are_replaced_are_full_the_others_get_connections():
    old = Child(1, 0, 0)
    placement = placed(Child(0, 0), old)
    with placement.replacing():
        placement.put(Child(0, placement.generation, 500, most=500))
        assert placement.choose() is old
        old.connections = old.most
        assert placement.choose() is None
        assert placement.full


def test_a_worker_that_is_gone_is_missed_and_its_predecessor_is_not():
    placement = placed(Child(0, 0), Child(1, 0))
    with placement.replacing():
        old = placement.put(fresh := Child(0, placement.generation))
        assert placement.is_fresh(0)
        assert not placement.drop(old)
        assert placement.drop(fresh)
        assert not placement.is_fresh(0)
    assert [condition.kind for condition in placement.warnings()] == ["worker_down"]
    assert placement.problems() == []


async def test_connections_wait_until_a_worker_has_room(autojump_clock):
    busy = Child(0, 0, waiting=True)
    placement = placed(busy)
    placed_with = []

    async def connect():
        placed_with.append(await placement.place())

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(connect)
        await trio.testing.wait_all_tasks_blocked()
        assert placed_with == []
        busy.waiting = False
        placement.room_freed()
    assert placed_with == [busy] * 3


async def test_connections_that_wait_for_a_worker_go_to_its_successor(autojump_clock):
    busy = Child(0, 0, waiting=True)
    placement = placed(busy)
    async with trio.open_nursery() as nursery:
        placed_with = []

        async def connect():
            placed_with.append(await placement.place())

        nursery.start_soon(connect)
        await trio.testing.wait_all_tasks_blocked()
        placement.drop(busy)
        await trio.testing.wait_all_tasks_blocked()
        assert placed_with == []
        placement.put(successor := Child(0, 0))
    assert placed_with == [successor]


async def test_connections_that_wait_are_refused_when_only_full_workers_are_left(autojump_clock):
    busy = Child(0, 0, waiting=True)
    placement = placed(busy, Child(1, 0, 1000))
    async with trio.open_nursery() as nursery:
        placed_with = []

        async def connect():
            placed_with.append(await placement.place())

        nursery.start_soon(connect)
        await trio.testing.wait_all_tasks_blocked()
        placement.drop(busy)
    assert placed_with == [None]


@pytest.mark.slow
@given(st.lists(st.integers(0, 40), min_size=2, max_size=5), st.integers(2, 4), st.randoms())
def test_a_rolling_restart_moves_every_connection_once(loads, rounds, random):
    """Connections that are sent away come back at once; others come and go meanwhile."""
    children = [Child(worker, 0, load) for worker, load in enumerate(loads)]
    placement = placed(*children)
    of = [child for child in children for _ in range(child.connections)]  # by client
    moves = [0] * len(of)
    with placement.replacing():
        for worker in range(len(loads)):
            old = placement.put(Child(worker, placement.generation))
            for _ in range(rounds):
                placement.choose().connections += 1
            for client in random.sample(range(len(of)), len(of)):
                if of[client] is old:
                    of[client] = placement.choose()
                    of[client].connections += 1
                    moves[client] += 1
    assert moves == [1] * len(of)


@pytest.mark.parametrize("count", [1, 3])
def test_without_any_worker_there_is_a_problem(count):
    assert [condition.kind for condition in Placement(count).problems()] == ["no_worker"]
