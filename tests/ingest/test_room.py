"""Feeds that can wait are granted half a lead each, one at a time."""

from __future__ import annotations

import trio
import trio.testing

from marketfeed.ingest.room import Room


class Sessions:
    """A head moved by feeds, and a slowest session moved by the test."""

    def __init__(self):
        self.head = self.reached = 0
        self.asked = []
        self._moved = trio.Event()

    async def wait_reached(self, g):
        self.asked.append(g)
        while self.reached < g:
            await self._moved.wait()

    def reach(self, g):
        self.reached = g
        self._moved.set()
        self._moved = trio.Event()


async def test_a_feed_runs_one_lead_ahead_and_no_further():
    sessions = Sessions()
    room = Room(lambda: sessions.head, 10, sessions.wait_reached)

    async def feed():
        while True:
            sessions.head += await room.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed)
        heads = []
        for reached in (0, 4, 5, 9, 10, 40):
            sessions.reach(reached)
            await trio.testing.wait_all_tasks_blocked()
            heads.append(sessions.head)
        nursery.cancel_scope.cancel()
    assert heads == [10, 10, 15, 15, 20, 50]


async def test_feeds_that_wait_together_do_not_overrun_together():
    sessions = Sessions()
    room = Room(lambda: sessions.head, 10, sessions.wait_reached)
    given = []

    async def feed(name):
        for _ in range(20):
            granted = await room.wait()
            sessions.head += granted
            given.append(name)
            assert sessions.head <= sessions.reached + 10

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(feed, name)
        while len(given) < 60:
            await trio.testing.wait_all_tasks_blocked()
            sessions.reach(min(sessions.reached + 5, sessions.head))
    assert sorted(given) == sorted("abc" * 20)


async def test_sessions_are_asked_once_for_each_half_of_the_lead_however_little_is_published_at_a_time():
    sessions = Sessions()
    room = Room(lambda: sessions.head, 100, sessions.wait_reached)
    sessions.reach(1000)
    for _ in range(500):
        assert 1 <= await room.wait() <= 50
        sessions.head += 1
    assert sessions.asked == list(range(50, 450, 50))


async def test_a_feed_that_is_cancelled_while_it_waits_holds_no_other_up():
    sessions = Sessions()
    room = Room(lambda: sessions.head, 10, sessions.wait_reached)
    sessions.head = 100
    with trio.move_on_after(0):
        await room.wait()
    sessions.reach(100)
    assert await room.wait() == 5
