"""Feeds that can wait stay a bounded lead ahead of the slowest session; nobody holds them for ever."""

from __future__ import annotations

from itertools import cycle

import pytest
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st

from marketfeed.fanout.catchup import most_missing
from marketfeed.fanout.slowest import MOST_STALLS
from marketfeed.fanout.tiers import Tier
from marketfeed.fanout.wire import BINARY, JSON, PROBE, SSE
from marketfeed.ingest.room import Room
from tests.support.bench import BASIC, PREMIUM, SLOW_EVERY, VIP, Bench, Follower, S, kinds

STALL_S = 10  # of the bench
DEPTH = 64


async def waited(bench, g):
    """Return whether a wait for ``g`` ends without anything happening."""
    with trio.move_on_after(0.001) as scope:
        await bench.shard.slowest.wait(g)
    return not scope.cancelled_caught


async def test_a_session_whose_socket_is_full_is_waited_for_until_it_has_taken_its_ticks(autojump_clock):
    bench = Bench()
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="A")
    bench.publish(("q", "A"))
    await bench.cycle()
    assert await waited(bench, 1)
    socket.room = 0
    for _ in range(3):
        bench.publish(("q", "A"))
        await bench.cycle()
    # What waits in the outbox is safe from the ring; what comes behind it is not.
    assert await waited(bench, 2)
    assert not await waited(bench, 3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.shard.slowest.wait, 4)
        await trio.testing.wait_all_tasks_blocked()
        bench.open(member, socket)
        await bench.cycle()
    assert [m["n"] for m in socket.messages() if m["T"] == "q"] == [1, 2, 3, 4]


@pytest.mark.parametrize("tier", [PREMIUM, BASIC])
async def test_sessions_that_get_the_latest_are_not_waited_for(autojump_clock, tier):
    bench = Bench()
    member, socket = bench.enter(tier=tier)
    await bench.subscribe(member, quotes="A")
    socket.room = 0
    bench.publish(("q", "A"), ("q", "A"))
    assert await waited(bench, 2)


async def test_nobody_is_waited_for_where_nobody_is(autojump_clock):
    bench = Bench()
    bench.publish(("q", "A"))
    assert await waited(bench, 1)
    bench.enter()  # without a subscription
    assert await waited(bench, 1)


async def test_the_engines_own_probe_and_polls_are_not_waited_for(autojump_clock):
    bench = Bench()
    probe, socket = bench.enter("probe", VIP, PROBE)
    await bench.subscribe(probe, quotes="A", encoding=PROBE)
    socket.room = 0
    bench.publish(("q", "A"))
    await bench.cycle()
    bench.publish(("q", "A"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.shard.poll, probe.names, VIP, None, 30.0)
        await trio.testing.wait_all_tasks_blocked()
        assert await waited(bench, 2)
        nursery.cancel_scope.cancel()


async def test_a_session_that_leaves_or_turns_to_the_latest_is_waited_for_no_longer(autojump_clock):
    bench = Bench()
    for end in ("leave", "latest"):
        member, socket = bench.enter(end)
        await bench.subscribe(member, quotes="A")
        socket.room = 0
        for _ in range(2):
            bench.publish(("q", "A"))
            await bench.cycle()
        head = bench.rings.head()
        assert not await waited(bench, head)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.shard.slowest.wait, head)
            await trio.testing.wait_all_tasks_blocked()
            if end == "leave":
                bench.shard.leave(member)
                await bench.cycle()
            else:
                await bench.subscribe(member, tier=BASIC)


async def test_an_interval_tier_with_every_tick_is_waited_for_until_its_flush(autojump_clock):
    bench = Bench()
    member, socket = bench.enter(tier=SLOW_EVERY)
    await bench.subscribe(member, quotes="A")
    await trio.sleep(0.2)
    await bench.cycle()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.shard.run)
        room = Room(bench.rings.head, most_missing(DEPTH), bench.shard.slowest.wait)
        began_s = trio.current_time()
        for _ in range(5 * DEPTH // 16):
            granted = await room.wait()
            bench.publish(*[("q", "A")] * granted)
            bench.shard.wake()
        await trio.sleep(0.2)
        nursery.cancel_scope.cancel()
    got = [m["n"] for m in socket.messages() if m["T"] == "q"]
    assert got == list(range(1, 5 * DEPTH // 16 * (DEPTH // 4) + 1))
    assert trio.current_time() > began_s + 0.5


async def test_a_session_that_takes_next_to_nothing_holds_nobody_for_ever(autojump_clock):
    bench = Bench(depth=DEPTH)
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="A")
    socket.room = 0
    for _ in range(2):
        bench.publish(("q", "A"))
        await bench.cycle()
    await bench.shard.slowest.wait(2)
    assert trio.current_time() == MOST_STALLS * STALL_S
    assert await waited(bench, 2)
    # Back in its group it counts again.
    bench.open(member, socket)
    await bench.cycle()
    assert member.group is not None
    socket.room = 0
    for _ in range(2):
        bench.publish(("q", "A"))
        await bench.cycle()
    assert not await waited(bench, 4)


async def test_a_session_that_resumes_is_waited_for_from_its_cursor_on(autojump_clock):
    bench = Bench(depth=4096)
    member, socket = bench.enter()
    for _ in range(4):
        bench.publish(*[("q", "A")] * 1000)
    socket.room = 1  # the answer; then the ticks, in steps of two thousand
    await bench.subscribe(member, quotes="A", after="e1:3")
    await bench.cycle()
    assert not await waited(bench, 4000)
    bench.open(member, socket)
    await bench.cycle(3)
    assert await waited(bench, 4000)
    assert [m["n"] for m in socket.messages() if m["T"] == "q"] == list(range(4, 4001))


rooms = st.lists(st.integers(0, 4), min_size=1, max_size=60)


@pytest.mark.slow
@given(
    sockets=st.lists(st.tuples(st.sampled_from([JSON, BINARY, SSE]), rooms), min_size=1, max_size=4),
    feeds=st.integers(1, 3),
    depth=st.sampled_from([4, 8, 64]),
    symbols=st.sampled_from(["A", "AB", "ABCDE"]),
)
@example(sockets=[(JSON, [0, 0])], feeds=3, depth=4, symbols="A")  # all three wait, and wake up together
def test_every_session_gets_every_tick_of_feeds_that_wait_without_lag_or_gap(sockets, feeds, depth, symbols):
    async def main():
        bench = Bench(depth=depth)
        room = Room(bench.rings.head, most_missing(depth), bench.shard.slowest.wait)
        peers = []
        for number, (encoding, steps) in enumerate(sockets):
            tier = Tier(f"t{number}", 0, True, 65536)
            member, socket = bench.enter(f"s{number}", tier, encoding)
            await bench.subscribe(member, quotes="*", trades="*", encoding=encoding)
            peers.append((member, socket, cycle([*steps, 5])))

        async def feed():
            left = 2 * depth + 7
            kinds_ = cycle("qqt")
            names = cycle(symbols)
            while left:
                granted = min(await room.wait(), left)
                bench.publish(*[(next(kinds_), next(names)) for _ in range(granted)])
                bench.shard.wake()
                left -= granted

        async def peer(member, socket, steps):
            while True:
                bench.open(member, socket, next(steps))
                bench.shard.wake()
                await trio.sleep(0.001)

        async with trio.open_nursery() as others:
            others.start_soon(bench.shard.run)
            for one in peers:
                others.start_soon(peer, *one)
            async with trio.open_nursery() as sources:
                for _ in range(feeds):
                    sources.start_soon(feed)
            await trio.sleep(0.05)
            others.cancel_scope.cancel()
        for member, socket, _ in peers:
            bench.open(member, socket)
            messages = socket.messages()
            assert not {"lag", "gap"} & set(kinds(messages))
            gs = [m["g"] for m in messages if m["T"] in ("q", "t")]
            assert gs == list(range(1, feeds * (2 * depth + 7) + 1))
            follower = Follower(every=True)
            follower.follow(messages)
        bench.balanced()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_the_lead_is_half_a_ring_and_no_more_than_may_be_missed_without_lag():
    assert [most_missing(depth) for depth in (4, 1024, 1 << 20)] == [2, 512, 4096]


def test_a_stall_is_ten_seconds_here():
    assert Bench().shard.keepalive.timing.stall_ns == STALL_S * S
