"""Compression: one frame for a large group, what is left as it is, and what members are told and charged."""

from __future__ import annotations

import json

import pytest
import trio

from marketfeed.core.compressed import MAX_INFLATED_BYTES, inflated, is_compressed
from marketfeed.core.cursor import parse_cursor
from marketfeed.fanout import wire
from marketfeed.fanout.compression import COMPRESS_BYTES, COMPRESS_MEMBERS, COMPRESSED
from marketfeed.fanout.wire import JSON, FrameContent, Moment
from marketfeed.fanout.ws_frames import TEXT, frame
from tests.support.bench import SLOW_EVERY, VIP, Bench, Follower, everything_packed
from tests.support.ws_frames import split_frame

MANY = [("q", "A"), ("t", "A")] * 30  # 4.8 kB


def packed(data: bytes) -> bool:
    whole = split_frame(data)
    assert whole is not None
    return whole[0] == 0x82 and is_compressed(whole[1])


async def crowd(bench, count, tier=SLOW_EVERY, encoding=COMPRESSED):
    """Return the sockets of ``count`` sessions that share a group, and their members; all are live."""
    phase = tier.phase_of("c0")
    ids = [one for one in (f"c{number}" for number in range(20 * count)) if tier.phase_of(one) == phase]
    pairs = [bench.enter(one, tier, encoding) for one in ids[:count]]
    for member, _ in pairs:
        await bench.subscribe(member, quotes="A", trades="A")
    await after(bench)
    for _, socket in pairs:
        socket.take()
    return [socket for _, socket in pairs], [member for member, _ in pairs]


async def after(bench, *ticks):
    """Publish ``ticks``, and flush all lanes."""
    if ticks:
        bench.publish(*ticks)
    await trio.sleep(0.2)
    await bench.cycle()


async def test_a_large_group_gets_one_compressed_frame_with_what_json_sessions_get(autojump_clock):
    bench = Bench()
    sockets, _ = await crowd(bench, COMPRESS_MEMBERS)
    (plain,), _ = await crowd(bench, 1, encoding=JSON)
    await after(bench, *MANY)
    (text,) = plain.frames
    frames = [socket.frames for socket in sockets]
    assert frames == [frames[0]] * COMPRESS_MEMBERS
    assert all(socket.frames[0] is frames[0][0] for socket in sockets)  # compressed once
    ((whole),) = frames[0]
    parts = split_frame(whole)
    assert parts is not None
    assert packed(whole)
    assert inflated(parts[1]).encode() == text[4:]
    assert len(whole) * 3 < len(text)
    bench.balanced()


@pytest.mark.parametrize(
    ("members", "ticks", "tier", "compressed"),
    [
        (COMPRESS_MEMBERS, MANY, SLOW_EVERY, True),
        (COMPRESS_MEMBERS - 1, MANY, SLOW_EVERY, False),
        (COMPRESS_MEMBERS, MANY[:8], SLOW_EVERY, False),
        (COMPRESS_MEMBERS, MANY, VIP, False),
    ],
)
async def test_short_frames_small_groups_and_tiers_without_interval_are_left_as_they_are(
    autojump_clock, members, ticks, tier, compressed
):
    bench = Bench()
    (socket, *_), _ = await crowd(bench, members, tier)
    await after(bench, *ticks)
    assert [packed(one) for one in socket.frames] == [compressed]
    assert len(socket.take()) == len(ticks)


async def test_answers_snapshots_missed_ticks_and_heartbeats_are_never_compressed(autojump_clock):
    bench = Bench(depth=256, heartbeat_s=1.0)
    with everything_packed():
        bench.publish(*MANY)
        member, socket = bench.enter("c0", SLOW_EVERY, COMPRESSED)
        await bench.subscribe(member, quotes="A", trades="A", request_id=1)
        await after(bench)
        bench.publish(*MANY)
        late, other = bench.enter("c1", SLOW_EVERY, COMPRESSED)
        await bench.subscribe(late, quotes="A", trades="A", request_id=2, after="e1:20")
        for _ in range(3):
            await trio.sleep(2)
            await bench.cycle()
        seen = set[tuple[bool, str]]()
        for one in (socket, other):
            for data in one.frames:
                for message in one.decoder.decode(data):
                    seen.add((packed(data), "snap" if "snap" in message else message["T"]))
    assert {kind for compressed, kind in seen if compressed} == {"q", "t"}
    assert seen >= {(False, kind) for kind in ("subscription", "snap", "synced", "q", "heartbeat")}


async def test_a_compressed_session_that_is_cut_resumes_by_its_cursor_without_a_hole(autojump_clock):
    bench = Bench(depth=256)
    sockets, members = await crowd(bench, COMPRESS_MEMBERS)
    follower = Follower(every=True)
    member, socket = bench.enter(members[0].id + "x", SLOW_EVERY, COMPRESSED)
    await bench.subscribe(member, quotes="A", trades="A", request_id=1)
    await after(bench)
    follower.follow(socket.take())
    await after(bench, *MANY)
    follower.follow(socket.take())
    cursor = follower.cursor
    assert cursor is not None
    parse_cursor(cursor)
    bench.shard.leave(member)
    await after(bench, *MANY)
    again, socket = bench.enter(members[0].id, SLOW_EVERY, COMPRESSED)
    await bench.subscribe(again, quotes="A", trades="A", request_id=1, after=cursor)
    await after(bench)
    await after(bench, *MANY)
    assert packed(socket.frames[-1])
    follower.follow(socket.take())
    assert follower.last == {("q", "A"): 90, ("t", "A"): 90}
    assert all(len(socket.messages()) for socket in sockets)
    bench.balanced()


async def test_a_member_whose_socket_is_full_holds_a_compressed_frame_whose_trades_are_counted(
    autojump_clock,
):
    bench = Bench()
    sockets, members = await crowd(bench, COMPRESS_MEMBERS)
    sockets[0].room = 0
    await after(bench, *MANY)
    assert packed(sockets[0].tail[0])
    assert (members[0].tail_ticks, members[0].tail_trades) == (60, 30)
    bench.balanced()
    bench.open(members[0], sockets[0])
    await after(bench)
    assert len([one for one in sockets[0].take() if one["T"] in "qt"]) == 60
    bench.balanced()


async def test_the_bytes_sent_are_those_of_the_compressed_frame(autojump_clock):
    bench = Bench()
    sockets, members = await crowd(bench, COMPRESS_MEMBERS)
    group = members[0].group
    assert group is not None
    before, all_before = group.sent_bytes, bench.shard.figures.sent_bytes
    await after(bench, *MANY)
    (whole,) = sockets[0].frames
    assert packed(whole)
    assert group.sent_bytes - before == len(whole)
    assert bench.shard.figures.sent_bytes - all_before == len(whole) * COMPRESS_MEMBERS


def test_what_does_not_get_shorter_or_is_too_long_for_clients_is_sent_as_text():
    short = frame(TEXT, json.dumps([{"x": "".join(map(chr, range(35, 90)))}]).encode())
    with everything_packed():
        assert COMPRESSED.packed(short, 1, 0) == short
    for length in (MAX_INFLATED_BYTES, MAX_INFLATED_BYTES + 1):
        long = frame(TEXT, b"[" + b" " * (length - 2) + b"]")
        assert packed(COMPRESSED.packed(long, COMPRESS_MEMBERS, 0)) == (length == MAX_INFLATED_BYTES)
    for length in (COMPRESS_BYTES - 1, COMPRESS_BYTES):
        some = frame(TEXT, b"[" + b" " * (length - 2) + b"]")
        assert packed(COMPRESSED.packed(some, COMPRESS_MEMBERS, 0)) == (length == COMPRESS_BYTES)


def test_no_other_encoding_packs():
    content = FrameContent(mixed=True)
    content.ticks += [b"{}"] * 2000
    plain = JSON.frame(content, Moment("e1", 1, 0))
    for encoding in (JSON, wire.BINARY, wire.SSE, wire.POLL, wire.PROBE):
        assert not encoding.packs
        assert encoding.packed(plain, 1000, 0) is plain
