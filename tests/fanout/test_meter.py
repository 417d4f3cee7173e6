"""The meter: users are charged what the ledgers say was delivered, and the bytes that sockets were handed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.access import usage
from marketfeed.access.usage import Interval, Report, User
from marketfeed.fanout import meter as meters
from marketfeed.fanout.compression import COMPRESSED
from marketfeed.fanout.interest import Names
from marketfeed.fanout.meter import trades_in
from marketfeed.fanout.wire import BINARY, PROBE
from tests.support.bench import PREMIUM, SLOW_EVERY, VIP, Bench, everything_packed
from tests.support.metered import ENCODINGS, INTERVAL, TIERS, metered, metered_steps

ANN, BOB = User("acme", "ann"), User("acme", "bob")


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    depth=st.sampled_from([16, 32, 64]),
    tier=st.sampled_from(TIERS),
    encodings=st.tuples(*[st.sampled_from(ENCODINGS)] * 3),
    script=st.lists(metered_steps, max_size=60),
)
def test_users_are_metered_exactly_what_was_delivered_and_sent(depth, tier, encodings, script):
    with everything_packed():
        trio.run(metered, depth, tier, encodings, script, clock=trio.testing.MockClock(autojump_threshold=0))


def taken(bench: Bench) -> dict[tuple[str, str, str], tuple[int, int]]:
    """Return ticks and bytes by sub, tier and channel since the last call."""
    (report,) = bench.shard.meter.take(INTERVAL)
    return {(row.sub, *key): both for row in report.users for key, both in row.counts.items()}


def symbols(bench: Bench, report: Report) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in report.users:
        for number in row.sets:
            ids = np.frombuffer(report.sets[number], "<u4").tolist()
            found.setdefault(row.sub, []).extend(bench.symbols.name(one) for one in ids)
    return found


async def swept(bench: Bench) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.shard.meter.sweep)
        await trio.testing.wait_all_tasks_blocked()
        await bench.cycle()


async def attached(bench: Bench, user: User = ANN, id: str = "s1", **names: Any):
    member, socket = bench.enter(id)
    bench.shard.meter.attach(member, user)
    await bench.subscribe(member, **names)
    return member, socket


async def test_ticks_count_by_tier_and_channel_and_bytes_are_divided_in_proportion(autojump_clock):
    bench = Bench()
    member, _ = await attached(bench, quotes="A", trades="A")
    await swept(bench)
    taken(bench)
    bench.publish(("q", "A"), ("q", "A"), ("t", "A"), ("q", "A"))
    await bench.cycle()
    await swept(bench)
    found = taken(bench)
    quotes, trades = found["ann", "vip", "quotes"], found["ann", "vip", "trades"]
    assert (quotes[0], trades[0]) == (3, 1)
    assert trades[1] == (quotes[1] + trades[1]) // 4
    await bench.subscribe(member, tier=PREMIUM)
    await trio.sleep(0.2)
    await bench.cycle()
    bench.publish(("t", "A"), ("t", "A"), ("t", "A"))
    await trio.sleep(0.2)
    await bench.cycle()
    await swept(bench)
    assert taken(bench)["ann", "premium", "trades"][0] == 1  # the others were conflated


async def test_trades_that_a_group_lost_are_not_counted(autojump_clock):
    bench = Bench(depth=16)
    member, _ = bench.enter(tier=SLOW_EVERY)
    bench.shard.meter.attach(member, ANN)
    await bench.subscribe(member, quotes="A", trades="A")
    await trio.sleep(0.2)
    await bench.cycle()
    assert member.group is not None
    await swept(bench)
    taken(bench)
    bench.publish(*[("t", "A")] * 40, ("q", "A"))
    await trio.sleep(0.2)
    await bench.cycle()
    assert member.group is not None
    assert member.group.lost >= 24
    await swept(bench)
    found = taken(bench)
    assert found["ann", "archive", "trades"][0] == 40 - member.group.lost
    assert found["ann", "archive", "quotes"][0] == 1


async def test_a_snapshot_counts_its_bytes_and_no_tick(autojump_clock):
    bench = Bench()
    bench.publish(("t", "A"))
    await attached(bench, trades="A")
    await bench.cycle()
    await swept(bench)
    found = taken(bench)
    assert found.keys() == {("ann", "vip", "trades")}
    ticks, size = found["ann", "vip", "trades"]
    assert ticks == 0
    assert size > 0


async def test_sessions_without_a_user_and_probes_are_not_metered(autojump_clock):
    bench = Bench()
    member, _ = bench.enter()
    await bench.subscribe(member, quotes="A")
    probe, _ = bench.enter("p", encoding=PROBE)
    await bench.subscribe(probe, quotes="A")
    bench.publish(("q", "A"))
    await bench.cycle()
    await swept(bench)
    assert taken(bench) == {}
    assert len(bench.shard.meter) == 0


async def test_ticks_in_a_full_socket_count_once_they_have_left_it(autojump_clock):
    bench = Bench()
    member, socket = await attached(bench, trades="A", quotes="A")
    await bench.cycle()
    await swept(bench)
    taken(bench)
    socket.room = 0
    bench.publish(("t", "A"), ("q", "A"))
    await bench.cycle()
    await swept(bench)
    assert sum(ticks for ticks, _ in taken(bench).values()) == 0
    bench.open(member, socket)
    await bench.cycle()
    await swept(bench)
    found = taken(bench)
    assert found["ann", "vip", "trades"][0] == found["ann", "vip", "quotes"][0] == 1


async def test_symbols_of_a_user_are_those_that_any_subscription_matched(autojump_clock):
    bench = Bench()
    bench.publish(("q", "A"), ("q", "B"), ("q", "AB"), ("q", "C"))
    member, _ = await attached(bench, quotes="A")
    await bench.unsubscribe(member, quotes="A")  # before any sweep
    await bench.subscribe(member, quotes="B Z")
    other, _ = await attached(bench, BOB, "s2", quotes="A*")
    twin, _ = await attached(bench, User("acme", "cleo"), "s3", quotes="A*")
    await swept(bench)
    (report,) = bench.shard.meter.take(INTERVAL)
    found = symbols(bench, report)
    assert {sub: sorted(names) for sub, names in found.items()} == {
        "ann": ["A", "B"], "bob": ["A", "AB"], "cleo": ["A", "AB"],
    }  # fmt: skip
    assert len(report.sets) == 3  # bob and cleo share theirs
    await swept(bench)
    assert symbols(bench, bench.shard.meter.take(INTERVAL)[0]) == {}
    bench.publish(("q", "AD"), ("q", "Z"))
    await bench.cycle()
    await swept(bench)
    found = symbols(bench, bench.shard.meter.take(INTERVAL)[0])
    assert found == {"ann": ["Z"], "bob": ["AD"], "cleo": ["AD"]}
    bench.shard.meter.new_day()
    bench.shard.leave(other)
    await swept(bench)
    found = symbols(bench, bench.shard.meter.take(INTERVAL)[0])
    assert {sub: sorted(names) for sub, names in found.items()} == {
        "ann": ["B", "Z"], "bob": ["A", "AB", "AD"], "cleo": ["A", "AB", "AD"],
    }  # fmt: skip
    assert twin.group is not None


async def test_a_session_that_changes_its_user_counts_for_the_new_one_from_then_on(autojump_clock):
    bench = Bench()
    member, _ = await attached(bench, quotes="A")
    bench.publish(("q", "A"))
    await bench.cycle()
    await swept(bench)
    assert taken(bench)["ann", "vip", "quotes"][0] == 1
    bench.shard.meter.attach(member, BOB)
    bench.publish(("q", "A"))
    await bench.cycle()
    await swept(bench)
    (report,) = bench.shard.meter.take(INTERVAL)
    assert symbols(bench, report) == {"bob": ["A"]}
    assert [(row.sub, row.counts["vip", "quotes"][0]) for row in report.users] == [("bob", 1)]


async def test_alerts_count_with_their_bytes(autojump_clock):
    bench = Bench()
    member, _ = await attached(bench)
    member.got_alerts(2, 300)
    await swept(bench)
    member.got_alerts(1, 100)
    bench.shard.leave(member)
    await bench.cycle()
    assert taken(bench)["ann", "vip", "alerts"] == (3, 400)


async def test_answers_to_polls_count_with_their_ticks_and_symbols(autojump_clock):
    bench = Bench()
    bench.publish(("q", "A"), ("t", "A"), ("q", "AB"), ("q", "B"))
    async with trio.open_nursery() as nursery:
        answers = []

        async def poll():
            answers.append(await bench.shard.poll(Names(["A*"], ["A*"]), VIP, None, 10))

        nursery.start_soon(poll)
        await trio.testing.wait_all_tasks_blocked()
        await bench.cycle()
    body = answers[0].body or b""
    bench.shard.meter.polled(ANN, "vip", ["A*", "Z"], body)
    bench.shard.meter.polled(ANN, "vip", ["B"], b"")  # nothing new
    (report,) = bench.shard.meter.take(INTERVAL)
    (row,) = report.users
    assert len(json.loads(body)["messages"]) == 3
    assert {key: ticks for key, (ticks, _) in row.counts.items()} == {
        ("vip", "quotes"): 2, ("vip", "trades"): 1,
    }  # fmt: skip
    assert sum(size for _, size in row.counts.values()) == len(body)
    assert symbols(bench, report) == {"ann": ["A", "AB"]}


async def test_reports_are_divided_by_users_and_by_size(autojump_clock, monkeypatch):
    bench = Bench()
    bench.publish(*(("q", f"S{number}") for number in range(10)))
    monkeypatch.setattr(meters, "MAX_USERS", 2)
    for number in range(5):
        await attached(bench, User("acme", f"u{number}"), f"s{number}", quotes=f"S{number}")
    await swept(bench)
    reports = bench.shard.meter.take(Interval(0, 20))
    assert [len(report.users) for report in reports] == [2, 2, 1]
    found: dict[str, list[str]] = {}
    for report in reports:
        found |= symbols(bench, report)
    assert found == {f"u{number}": [f"S{number}"] for number in range(5)}
    (empty,) = bench.shard.meter.take(Interval(20, 40))
    assert empty == Report(Interval(20, 40), [], [])
    bench.shard.meter.new_day()
    monkeypatch.setattr(meters, "MAX_USERS", 1000)
    monkeypatch.setattr(meters, "MAX_SETS_BYTES", 8)
    await swept(bench)
    assert [len(report.users) for report in bench.shard.meter.take(Interval(0, 20))] == [2, 2, 1]


async def test_what_a_cancelled_flush_has_not_sent_is_not_counted(autojump_clock):
    bench = Bench()
    members = [await attached(bench, ANN, f"s{number}", quotes="A", trades="A") for number in range(2)]
    jsons = [await attached(bench, BOB, "b", quotes="A", trades="A")]
    await bench.subscribe(jsons[0][0], encoding=BINARY)
    await bench.cycle()
    await swept(bench)
    taken(bench)
    bench.publish(("q", "A"), ("t", "A"))
    head = bench.shard._lanes.learn()
    for lane in bench.shard._lanes:
        lane.collect(head)
    bench.shard.meter.finish()
    assert taken(bench) == {}
    assert members


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_trades_are_found_in_frames_of_any_encoding(autojump_clock, encoding):
    bench = Bench()
    member, socket = bench.enter(tier=SLOW_EVERY, encoding=encoding)
    await bench.subscribe(member, quotes="A", trades="A")
    await trio.sleep(0.1)
    await bench.cycle()
    socket.frames.clear()
    bench.publish(*[("q", "A"), ("t", "A")] * 20, ("t", "A"))
    await trio.sleep(0.1)
    with everything_packed():
        await bench.cycle()
    (frame,) = socket.frames
    assert (frame[0] == 0x82) == (encoding in (BINARY, COMPRESSED))
    assert trades_in(frame, encoding) == 21


def test_a_report_survives_its_way_to_the_engine():
    import msgspec

    users = [usage.UserReport("acme", "ann", {("vip", "quotes"): (3, 400)}, [0])]
    report = Report(Interval(1.5, 21.5), [b"\1\0\0\0"], users)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(report), type=Report) == report
