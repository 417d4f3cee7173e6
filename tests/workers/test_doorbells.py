"""Doorbells of workers: rung at once where each has a core, and no tick waits for ever where not."""

from __future__ import annotations

import os

import pytest
import trio
import trio.testing

from marketfeed.workers.doorbells import REST_S, STEP_S, Doorbells


@pytest.fixture
def descriptors():
    opened = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
    yield opened
    for descriptor in opened:
        os.close(descriptor)


def rings(descriptors) -> list[int]:
    found = []
    for descriptor in descriptors:
        try:
            found.append(os.eventfd_read(descriptor))
        except BlockingIOError:
            found.append(0)
    return found


async def test_where_each_worker_has_a_core_every_ring_is_at_once(descriptors):
    bells = Doorbells(1, lambda: descriptors)
    for _ in range(5):
        bells.ring()
    assert rings(descriptors) == [5, 5]


async def test_where_workers_share_cores_rings_rest_and_the_last_is_made_up_for(descriptors, autojump_clock):
    await trio.sleep(1)
    bells = Doorbells(3 * len(os.sched_getaffinity(0)), lambda: descriptors[:1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bells.run)
        for _ in range(5):
            bells.ring()
        assert rings(descriptors) == [1, 0]  # the first waits for nothing
        await trio.sleep(2 * REST_S)
        await trio.testing.wait_all_tasks_blocked()
        assert rings(descriptors) == [1, 0]  # and one stands for the four that came in its rest
        await trio.sleep(10 * REST_S)
        assert rings(descriptors) == [0, 0]
        bells.ring()
        assert rings(descriptors) == [1, 0]
        nursery.cancel_scope.cancel()


async def test_as_many_are_rung_at_a_time_as_there_are_cores_and_each_in_its_turn(
    autojump_clock, monkeypatch
):
    await trio.sleep(1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    opened = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(6)]
    bells = Doorbells(6, lambda: opened)
    rest_s = 2 * REST_S
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bells.run)
        bells.ring()
        assert rings(opened) == [1, 1, 0, 0, 0, 0]
        bells.ring()  # for the first two again, after their rest
        found = []
        for _ in range(6):
            await trio.sleep(STEP_S)
            await trio.testing.wait_all_tasks_blocked()
            found.append(rings(opened))
        assert found[:2] == [[0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]]
        assert [sum(column) for column in zip(*found, strict=True)] == [1] * 6
        assert found.index([1, 1, 0, 0, 0, 0]) == round(rest_s / STEP_S) - 1
        # One that has gone meanwhile is passed over, and nobody waits for it.
        bells.ring()
        gone = opened.pop()
        await trio.sleep(10 * rest_s)
        assert all(count >= 1 for count in rings(opened))
        os.close(gone)
        nursery.cancel_scope.cancel()
    for descriptor in opened:
        os.close(descriptor)
