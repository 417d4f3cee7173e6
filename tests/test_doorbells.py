"""Doorbells of workers: rung at once where each has a core, and no tick waits for ever where not."""

from __future__ import annotations

import os

import pytest
import trio
import trio.testing

from marketfeed.doorbells import REST_S, Doorbells


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
    bells = Doorbells(3 * len(os.sched_getaffinity(0)), lambda: descriptors)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bells.run)
        for _ in range(5):
            bells.ring()
        assert rings(descriptors) == [1, 1]  # the first waits for nothing
        await trio.sleep(2 * REST_S)
        await trio.testing.wait_all_tasks_blocked()
        assert rings(descriptors) == [1, 1]  # and one stands for the four that came in its rest
        await trio.sleep(10 * REST_S)
        assert rings(descriptors) == [0, 0]
        bells.ring()
        assert rings(descriptors) == [1, 1]
        nursery.cancel_scope.cancel()
