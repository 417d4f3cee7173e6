"""Sessions whose sockets are full: paced, behind, lagging, back again, or given up; nobody else pays."""

from __future__ import annotations

import trio
import trio.testing

from marketfeed.errors import CloseCode
from tests.support.bench import Bench, Follower, kinds


async def test_an_answer_that_fills_the_socket_takes_the_session_out_of_its_group(autojump_clock):
    bench = Bench()
    member, socket = bench.enter()
    other, _ = bench.enter("other")
    for each in (member, other):
        await bench.subscribe(each, quotes="A")
    follower = Follower(every=True)
    bench.publish(("q", "A"), ("q", "A"))
    await bench.cycle()
    socket.room = 0
    assert not socket.offer(b"\x81\x02[]")  # a pong, which goes past the shard
    bench.shard.filled(member)
    await bench.cycle()
    assert member.group is None
    bench.open(member, socket)
    await bench.cycle()
    bench.balanced()
    bench.publish(("q", "A"))
    await bench.cycle()
    follower.follow(socket.take())
    assert follower.last["q", "A"] == 3
    assert member.group is other.group
    bench.balanced()


async def test_the_librarys_own_frame_that_had_to_wait_changes_nothing(autojump_clock):
    bench = Bench()
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="A")
    group = member.group
    bench.shard.drained(member)
    await bench.cycle(2)
    assert member.group is group
    bench.publish(("q", "A"))
    await bench.cycle()
    assert [m["n"] for m in socket.take() if m["T"] == "q"] == [1]
    bench.balanced()


async def test_a_full_socket_costs_others_nothing_and_misses_nothing(autojump_clock):
    bench = Bench(depth=64)
    slow, slow_socket = bench.enter("slow")
    good, good_socket = bench.enter("good")
    for member in (slow, good):
        await bench.subscribe(member, quotes="A")
    slow_socket.room = 0
    follower = Follower(every=True)
    for _ in range(20):
        bench.publish(("q", "A"))
        await bench.cycle()
        bench.balanced()
    assert len([m for m in good_socket.messages() if m["T"] == "q"]) == 20
    assert len(slow_socket.tail) == 1  # one unsent frame and a position
    bench.open(slow, slow_socket)
    await bench.cycle()
    follower.follow(slow_socket.take())
    assert follower.last["q", "A"] == 20
    assert slow.group is good.group
    bench.balanced()


async def test_a_session_far_behind_lags_quotes_conflate_and_trades_stay_complete(autojump_clock):
    bench = Bench(depth=64)
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="A", trades="A")
    follower = Follower(every=True)
    socket.room = 0
    for _ in range(20):
        bench.publish(("q", "A"), ("q", "A"), ("t", "A"), ("q", "A"))
        await bench.cycle()
        bench.balanced()
    bench.open(member, socket)
    for _ in range(5):
        await bench.cycle()
        await trio.sleep(0.02)
    messages = socket.take()
    follower.follow(messages)
    assert [m for m in messages if m["T"] == "lag"] == [
        {"T": "lag", "on": True},
        {"T": "lag", "on": False, "conflated": 56},
    ]
    assert follower.last == {("q", "A"): 60, ("t", "A"): 20}
    assert member.group is not None
    ledger = bench.shard.figures.ledgers(member)["vip"]
    assert (ledger.conflated, ledger.lost, ledger.matched) == (56, 0, 80)
    bench.balanced()


async def test_a_lagging_session_comes_back_though_ticks_never_stop(autojump_clock):
    bench = Bench(depth=64)
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="A", trades="A")
    follower = Follower(every=True)
    socket.room = 0
    for turn in range(100):
        bench.publish(("q", "A"), ("q", "A"), ("t", "A"))
        await bench.cycle()
        if turn == 40:
            bench.open(member, socket)
        if turn >= 40:
            follower.follow(socket.take())
        bench.balanced()
        await trio.sleep(0.001)
    assert member.group is not None
    assert not follower.lagging
    assert follower.last == {("q", "A"): 200, ("t", "A"): 100}
    assert follower.count > 150  # in full again


async def test_trades_overwritten_while_lagging_are_told_as_a_gap(autojump_clock):
    bench = Bench(depth=16)
    member, socket = bench.enter()
    await bench.subscribe(member, trades="A")
    follower = Follower(every=True)
    socket.room = 0
    for _ in range(40):
        bench.publish(("t", "A"))
        await bench.cycle()
    bench.open(member, socket)
    await bench.cycle(3)
    messages = socket.take()
    follower.follow(messages)
    assert follower.last["t", "A"] == 40
    assert bench.shard.figures.ledgers(member)["vip"].lost == 23
    bench.balanced()


async def test_a_snapshot_larger_than_the_socket_is_paced_and_is_no_lag(autojump_clock):
    bench = Bench(max_symbols=4096)
    bench.publish(*[("q", f"S{i:04d}") for i in range(2000)])
    member, socket = bench.enter()
    socket.room = 2  # the answer and one frame
    await bench.subscribe(member, quotes="*")
    for _ in range(10):
        bench.publish(("q", "S0000"))
        bench.open(member, socket, room=1)
        await bench.cycle()
    messages = socket.messages()
    assert sum("snap" in m for m in messages) == 2000
    assert "lag" not in kinds(messages)
    follower = Follower(every=True)
    follower.follow(messages)
    assert follower.last["q", "S0000"] == 11
    assert kinds(messages).index("synced") > 2000
    bench.balanced()


async def test_a_peer_that_acknowledges_nothing_is_given_up(autojump_clock):
    bench = Bench()
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="A")
    socket.room = 0
    bench.publish(("q", "A"))
    await bench.cycle()
    for second in range(8):
        socket.acked = second // 4
        await bench.cycle()
        await trio.sleep(1)
    assert socket.ended is None
    for _ in range(12):
        await bench.cycle()
        await trio.sleep(1)
    assert socket.ended is CloseCode.SLOW
