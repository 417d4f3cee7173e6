"""Bells: what is rung is heard, once, and by whoever waits next."""

from __future__ import annotations

import os
import sys

import pytest
import trio
import trio.testing

from marketfeed.fanout.bell import Bell, DoorBell


@pytest.fixture(params=["own", "eventfd"])
def bell(request):
    if request.param == "own":
        yield Bell()
        return
    descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    yield DoorBell(descriptor)
    os.close(descriptor)


async def waits(bell) -> bool:
    """Tell whether a wait goes on when nothing else can happen; then it is given up."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bell.wait)
        await trio.testing.wait_all_tasks_blocked()
        waiting = bool(nursery.child_tasks)
        nursery.cancel_scope.cancel()
    return waiting


async def test_a_waiter_is_woken_and_the_next_wait_waits(bell):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bell.wait)
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        bell.ring()
    assert await waits(bell)


async def test_rings_that_nobody_waited_for_are_heard_as_one(bell):
    for _ in range(3):
        bell.ring()
    await bell.wait()
    assert await waits(bell)


async def test_a_ring_is_not_lost_to_a_wait_that_was_given_up(bell):
    assert await waits(bell)
    bell.ring()
    await bell.wait()


@pytest.mark.e2e
async def test_another_process_rings_the_doorbell():
    descriptor = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        ring = f"import os; os.eventfd_write({descriptor}, 1)"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(DoorBell(descriptor).wait)
            await trio.run_process([sys.executable, "-c", ring], pass_fds=(descriptor,))
    finally:
        os.close(descriptor)
