"""The shard's promises to one and to many sessions, on a virtual clock."""

from __future__ import annotations

from itertools import pairwise

import trio
import trio.testing

from marketfeed.errors import CloseCode
from marketfeed.fanout.change import SubscriptionChange
from marketfeed.fanout.interest import Names
from marketfeed.fanout.lane import MAX_FLUSH_TICKS
from marketfeed.fanout.ledger import Ledger
from tests.support.bench import BASIC, PREMIUM, SLOW_EVERY, VIP, Bench, Follower, kinds


async def test_snapshot_then_synced_then_every_tick(autojump_clock):
    bench = Bench()
    bench.publish(("q", "A"), ("q", "A"), ("t", "A"))
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="A", trades="A", request_id=7)
    answer, quote, trade, synced = socket.take()
    assert answer["T"] == "subscription"
    assert (quote["n"], quote["snap"], trade["n"], trade["snap"]) == (2, 1, 1, 1)
    assert synced == {"T": "synced", "cursor": "e1:3", "id": 7}
    bench.publish(("t", "A"), ("q", "A"), ("q", "B"), ("q", "A"))
    await bench.cycle()
    assert [(m["T"], m["n"], m["g"]) for m in socket.take()] == [("t", 2, 4), ("q", 3, 5), ("q", 4, 7)]
    bench.balanced()


async def test_a_name_no_feed_has_sent_waits_and_starts_at_one(autojump_clock):
    bench = Bench()
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="NEW")
    assert kinds(socket.take()) == ["subscription", "synced"]
    bench.publish(("q", "NEW"))
    await bench.cycle()
    assert [m["n"] for m in socket.take()] == [1]


async def test_a_prefix_takes_in_later_symbols_and_a_double_match_is_sent_once(autojump_clock):
    bench = Bench()
    bench.publish(("q", "AB"), ("q", "X"))
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="A* AB")
    assert [m.get("S") for m in socket.take()] == [None, "AB", None]
    bench.publish(("q", "AC"), ("q", "AB"), ("q", "X"))
    await bench.cycle()
    assert [(m["S"], m["n"]) for m in socket.take()] == [("AC", 1), ("AB", 2)]
    bench.balanced()


async def test_a_symbol_already_received_gets_no_second_snapshot(autojump_clock):
    bench = Bench()
    bench.publish(("q", "A"), ("q", "B"))
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="A")
    socket.take()
    await bench.subscribe(member, quotes="A B")
    assert [m.get("S") for m in socket.take()] == [None, "B", None]


async def test_unsubscribe_removes_exactly_what_is_written(autojump_clock):
    bench = Bench()
    bench.publish(("q", "AA"), ("q", "AB"))
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="A* AA")
    await bench.unsubscribe(member, quotes="AB")
    socket.take()
    bench.publish(("q", "AA"), ("q", "AB"))
    await bench.cycle()
    assert [m["S"] for m in socket.take()] == ["AA", "AB"]
    await bench.unsubscribe(member, quotes="A*")
    socket.take()
    bench.publish(("q", "AA"), ("q", "AB"))
    await bench.cycle()
    assert [m["S"] for m in socket.take()] == ["AA"]
    bench.balanced()


async def test_sessions_with_the_same_names_get_the_same_frame(autojump_clock):
    bench = Bench()
    bench.publish(("q", "A"))
    pairs = [bench.enter(f"s{i}") for i in range(5)]
    for member, _ in pairs:
        await bench.subscribe(member, quotes="A")
    for _, socket in pairs:
        socket.take()
    bench.publish(("q", "A"))
    await bench.cycle()
    assert len({id(socket.frames[0]) for _, socket in pairs}) == 1
    assert bench.shard.figures.statistics().groups == 1


async def test_latest_tier_sends_one_tick_a_symbol_and_step_on_its_own_grid(autojump_clock):
    bench = Bench()
    bench.publish(("q", "A"))
    member, socket = bench.enter(tier=PREMIUM)
    await bench.subscribe(member, quotes="A")
    assert kinds(socket.take()) == ["subscription"]  # the snapshot comes with the next flush
    seen = []
    for _ in range(1000):
        bench.publish(("q", "A"))
        await bench.cycle()
        seen += [(trio.current_time(), m["n"]) for m in socket.take() if m["T"] == "q"]
        bench.balanced()
        await trio.sleep(0.001)
    steps = [round(t * 1000) for t, _ in seen]
    assert 9 <= len(seen) <= 11
    assert {b - a for a, b in pairwise(steps)} == {100}
    assert seen[-1][1] > 900


async def test_every_tier_with_an_interval_sends_all_ticks_in_steps(autojump_clock):
    bench = Bench(depth=1024)
    member, socket = bench.enter(tier=SLOW_EVERY)
    await bench.subscribe(member, quotes="A")
    follower = Follower(every=True)
    for _ in range(500):
        bench.publish(("q", "A"))
        await bench.cycle()
        await trio.sleep(0.001)
    frames = len(socket.frames)
    await trio.sleep(0.1)
    await bench.cycle()
    follower.follow(socket.take())
    assert follower.last["q", "A"] == 500
    assert frames <= 8
    bench.balanced()


async def test_a_tier_change_keeps_the_position(autojump_clock):
    bench = Bench()
    bench.publish(("q", "A"))
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="A")
    socket.take()
    bench.publish(("q", "A"), ("q", "A"))
    await bench.subscribe(member, tier=BASIC)
    bench.publish(("q", "A"))
    await trio.sleep(0.5)
    await bench.cycle()
    ticks = [m for m in socket.take() if m["T"] == "q"]
    assert [m["n"] for m in ticks] == [2, 3, 4] or [m["n"] for m in ticks] == [4]
    await bench.subscribe(member, tier=VIP)
    bench.publish(("q", "A"))
    await bench.cycle()
    assert [m["n"] for m in socket.take() if m["T"] == "q"] == [5]
    assert socket.paced == [65536] * 3
    bench.balanced()


async def test_what_is_pending_at_a_tier_change_is_booked_on_the_old_tier(autojump_clock):
    bench = Bench()
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="A")
    socket.room = 0
    bench.publish(("q", "A"))
    await bench.cycle()
    for _ in range(9):
        bench.publish(("q", "A"))
    await bench.subscribe(member, tier=BASIC)
    bench.balanced()
    bench.open(member, socket)
    for _ in range(2):
        await bench.cycle()
        bench.balanced()
        await trio.sleep(0.5)
    bench.publish(("q", "A"))
    await bench.cycle()
    bench.balanced()
    old, new = (bench.shard.figures.ledgers(member)[tier] for tier in ("vip", "basic"))
    assert (old.matched, old.delivered, old.conflated, old.pending) == (10, 2, 8, 0)
    assert (new.matched, new.delivered) == (1, 1)


async def test_sessions_that_come_go_and_change_while_a_flush_yields_are_booked_exactly(
    autojump_clock, monkeypatch
):
    monkeypatch.setattr("marketfeed.fanout.flushes.YIELD_SENDS", 1)
    bench = Bench()
    pairs = [bench.enter(f"s{i}") for i in range(8)]
    for member, _ in pairs:
        await bench.subscribe(member, quotes="A B", trades=f"T{member.id}")
    followers = [Follower(every=True) for _ in pairs]
    for turn in range(6):
        bench.publish(("q", "A"), ("q", "B"), ("t", f"Ts{turn}"))
        leaver, leaver_socket = pairs[turn]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.cycle)
            # The flush is under way: each send is followed by a turn of ours.
            await trio.lowlevel.checkpoint()
            if turn % 2:
                bench.shard.leave(leaver)
            else:
                leaver_socket.room = 0
            newcomer, _ = bench.enter(f"n{turn}")
            change = SubscriptionChange(
                newcomer, Names(("A",)), VIP, newcomer.encoding, lambda _: b"\x81\x02[]", True
            )
            nursery.start_soon(bench.shard.change, change)
        await bench.cycle()
        bench.balanced()
        for (_, socket), follower in zip(pairs, followers, strict=True):
            follower.follow(socket.take())
    totals = await bench.shard.figures.totals()
    assert totals["vip"].difference == 0
    alive = [bench.shard.figures.ledgers(member)["vip"] for member in bench.shard.members]
    assert (
        totals["vip"].matched
        == sum(ledger.matched for ledger in alive) + bench.shard.figures.ended["vip"].matched
    )


async def test_sums_add_up_and_never_fall_whatever_happens_while_they_are_taken(autojump_clock, monkeypatch):
    monkeypatch.setattr("marketfeed.fanout.flushes.YIELD_SENDS", 1)
    monkeypatch.setattr("marketfeed.fanout.figures.YIELD_EVERY", 1)
    bench = Bench()
    pairs = [bench.enter(f"s{i}") for i in range(20)]
    for i, (member, _) in enumerate(pairs):
        await bench.subscribe(member, quotes=("A", "A B", "B", "A B C", "C")[i % 5])
    before = Ledger()
    taken: list[Ledger] = []

    async def take(unhurried: bool = False) -> None:
        taken.append((await bench.shard.figures.totals(unhurried))["vip"])

    for turn in range(18):
        bench.publish(("q", "A"), ("q", "B"), ("q", "C"))
        leaver, (mover, _) = pairs[turn][0], pairs[(turn + 7) % 20]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, bool(turn % 3))
            for _ in range(turn % 6):
                await trio.lowlevel.checkpoint()
            bench.shard.leave(leaver)
            names = Names(("A", "C") if turn % 2 else ("B",))
            change = SubscriptionChange(mover, names, VIP, mover.encoding, lambda _: b"\x81\x02[]", True)
            nursery.start_soon(bench.shard.change, change)
            nursery.start_soon(bench.cycle)
            nursery.start_soon(take)
        await bench.cycle()
        for sums in taken:
            assert sums.difference == 0
            assert sums.matched >= before.matched
            assert sums.delivered >= before.delivered
            assert sums.abandoned >= before.abandoned
            before = sums
        taken.clear()


async def test_more_than_one_flush_takes_goes_out_without_new_ticks(autojump_clock, monkeypatch):
    monkeypatch.setattr("marketfeed.fanout.lane.MAX_FLUSH_TICKS", 10)
    bench = Bench(depth=1024)
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="A B")
    socket.take()
    bench.publish(*[("q", "A"), ("q", "B")] * 50)
    follower = Follower(every=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.shard.run)
        while follower.count < 100:
            follower.follow(socket.take())
            await trio.lowlevel.checkpoint()
        assert trio.current_time() < 0.5
        nursery.cancel_scope.cancel()


async def test_many_who_ask_in_one_moment_are_answered_a_few_a_cycle(autojump_clock, monkeypatch):
    monkeypatch.setattr("marketfeed.fanout.shard.CHANGES_NS", -1)  # one a cycle: no time passes in one
    bench = Bench()
    bench.publish(("q", "A"))
    members = [bench.enter(f"s{number}") for number in range(5)]

    def answered() -> int:
        return sum(bool(socket.frames) for _, socket in members)

    async with trio.open_nursery() as nursery:
        for member, _ in members:
            nursery.start_soon(bench.ask, member, "A")
        await trio.testing.wait_all_tasks_blocked()
        for expected in (1, 2):
            await bench.cycle()
            assert answered() == expected
        nursery.start_soon(bench.shard.run)  # asks itself for the cycles that the others need
        await trio.testing.wait_all_tasks_blocked()
        assert answered() == 5
        nursery.cancel_scope.cancel()
    assert all(member.group is members[0][0].group for member, _ in members)
    bench.balanced()


async def test_a_group_of_many_lets_others_run_between_its_sends(autojump_clock, monkeypatch):
    monkeypatch.setattr("marketfeed.fanout.flushes.YIELD_SENDS", 10)
    bench = Bench()
    bench.publish(("q", "A"))
    pairs = [bench.enter(f"s{i}") for i in range(100)]
    for member, socket in pairs:
        await bench.subscribe(member, quotes="A")
        socket.take()
    bench.publish(("q", "A"))
    seen = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.cycle)
        while not all(socket.frames for _, socket in pairs):
            seen.append(sum(len(socket.frames) for _, socket in pairs))
            await trio.lowlevel.checkpoint()
    assert any(0 < count < 100 for count in seen)
    bench.balanced()


async def test_flush_work_does_not_grow_with_sessions_that_want_other_symbols(autojump_clock):
    bench = Bench(max_symbols=1024)
    bench.publish(*[("q", f"S{i:03d}") for i in range(600)])
    for i in range(300):
        member, _ = bench.enter(f"s{i}")
        await bench.subscribe(member, quotes=f"S{i:03d}")
    (lane,) = bench.shard._lanes
    bench.publish(("q", "S007"))
    assert [group.interest.symbols[0].tolist() for group in lane.collect(bench.rings.head())] == [[7]]
    looked_at = []

    class Watched(dict):
        def values(self):
            looked_at.append("all groups")
            return super().values()

    lane.groups = Watched(lane.groups)
    bench.publish(*[("q", f"S{i:03d}") for i in range(400, 600)], ("q", "S008"))
    assert len(lane.collect(bench.rings.head())) == 1
    assert not looked_at


async def test_a_prefix_of_many_symbols_is_one_group_for_all_who_wrote_it(autojump_clock):
    bench = Bench(max_symbols=8192)
    bench.publish(*[("q", f"S{i:04d}") for i in range(5000)])
    pairs = [bench.enter(f"s{i}") for i in range(20)]
    for member, socket in pairs:
        await bench.subscribe(member, quotes="S*")
        socket.take()
    assert bench.shard.figures.statistics().groups == 1
    bench.publish(("q", "S0001"), ("q", "S4999"))
    await bench.cycle()
    assert {len(socket.frames) for _, socket in pairs} == {1}


async def test_a_lapped_lane_tells_the_gap_before_the_ticks(autojump_clock):
    bench = Bench(depth=16)
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="A B")
    socket.take()
    for _ in range(30):
        bench.publish(("q", "A"))
    bench.publish(("q", "B"))
    await bench.cycle()
    messages = socket.take()
    assert messages[0] == {"T": "gap", "S": "A", "channel": "quotes", "lost": 14, "n": 15}
    follower = Follower(every=True)
    follower.follow(messages)
    assert follower.count == 17
    bench.balanced()


async def test_silence_brings_heartbeats_and_pings_and_then_the_end(autojump_clock):
    bench = Bench(heartbeat_s=1.0)
    _, socket = bench.enter()
    for _ in range(400):
        await bench.cycle()
        await trio.sleep(0.25)
    beats = [m for m in socket.messages() if m["T"] == "heartbeat"]
    assert 80 <= len(beats) <= 100
    assert beats[0]["t"] == 1_700_000_000_000_000
    for _ in range(800):
        await bench.cycle()
        await trio.sleep(0.25)
    assert sum(frame[0] == 0x89 for frame in socket.frames) == 3
    assert socket.ended is CloseCode.IDLE


async def test_one_session_that_breaks_inside_the_fan_out_ends_alone(autojump_clock, monkeypatch):
    bench = Bench()
    bad, bad_socket = bench.enter("bad")
    good, good_socket = bench.enter("good")
    await bench.subscribe(good, quotes="A")
    align = bench.shard._catch_up._align

    def broken(member):
        if member is bad:
            raise RuntimeError("broken on purpose")
        align(member)

    monkeypatch.setattr(bench.shard._catch_up, "_align", broken)
    await bench.subscribe(bad, quotes="A")
    assert bad_socket.ended is CloseCode.INTERNAL
    bench.publish(("q", "A"))
    await bench.cycle()
    assert kinds(good_socket.take())[-1] == "q"


async def test_a_session_that_left_leaves_nothing_behind(autojump_clock):
    bench = Bench()
    member, _ = bench.enter()
    await bench.subscribe(member, quotes="A* B", trades="C")
    bench.publish(("q", "A1"))
    bench.shard.leave(member)
    await bench.cycle()
    statistics = bench.shard.figures.statistics()
    assert (statistics.sessions, statistics.groups, statistics.lanes) == (0, 0, 0)
    assert len(bench.shard._interests) == 0
    assert bench.shard.figures.ended["vip"].difference == 0


async def test_an_interval_with_more_than_one_flush_takes_is_sent_in_several_at_once(autojump_clock):
    bench = Bench(depth=1024)
    member, socket = bench.enter(tier=SLOW_EVERY)
    await bench.subscribe(member, quotes="*", trades="*")
    await trio.sleep(0.2)
    await bench.cycle()
    names = [f"S{i}" for i in range(60)]
    ticks = [("qt"[i % 3 == 0], names[i % 60]) for i in range(MAX_FLUSH_TICKS * 2)]
    bench.publish(*ticks)
    socket.take()
    await trio.sleep(0.2)
    await bench.cycle()
    assert len(socket.frames) == 1
    await bench.cycle(2)  # the others right behind it, and not at the tier's next moment
    assert len(socket.frames) == 2
    got = [message for message in socket.take() if message["T"] in "qt"]
    assert len(got) == len(ticks)
    assert [message["g"] for message in got] == sorted(message["g"] for message in got)
    bench.balanced()
