"""Bells: what is rung is heard, once, and by whoever waits next."""

from __future__ import annotations

import os

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


async def test_a_waiter_is_woken_and_the_next_wait_waits(bell):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bell.wait)
        await trio.testing.wait_all_tasks_blocked()
        bell.ring()
    with trio.move_on_after(0.01) as scope:
        await bell.wait()
    assert scope.cancelled_caught


async def test_rings_that_nobody_waited_for_are_heard_as_one(bell):
    for _ in range(3):
        bell.ring()
    with trio.fail_after(5):
        await bell.wait()
    with trio.move_on_after(0.01) as scope:
        await bell.wait()
    assert scope.cancelled_caught


async def test_a_ring_is_not_lost_to_a_wait_that_was_given_up(bell):
    with trio.CancelScope() as scope:
        scope.cancel()
        await bell.wait()
    bell.ring()
    with trio.fail_after(5):
        await bell.wait()


async def test_another_process_rings_the_doorbell():
    descriptor = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        bell = DoorBell(descriptor)
        pid = os.fork()
        if pid == 0:
            os.eventfd_write(descriptor, 1)
            os._exit(0)
        with trio.fail_after(10):
            await bell.wait()
        os.waitpid(pid, 0)
    finally:
        os.close(descriptor)
