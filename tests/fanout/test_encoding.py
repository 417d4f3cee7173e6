"""What goes into sockets: the same ticks as text frames, binary messages and events."""

from __future__ import annotations

import trio

from marketfeed.core.binary import FrameParser, Kind
from marketfeed.core.records import QUOTE, TRADE
from marketfeed.fanout.wire import BINARY, JSON, SSE, Encoding, FrameContent, Moment
from tests.support.bench import BASIC, VIP, Bench, Follower, S
from tests.support.ws_frames import split_frame


def kinds(messages):
    return [message["T"] for message in messages]


def binary_frames(frame):
    """Return the frames of one binary message."""
    parts = split_frame(frame)
    assert parts is not None
    first, payload, rest = parts
    assert (first, rest) == (0x82, b"")
    parser = FrameParser()
    parser.feed(payload)
    return list(parser)


async def test_three_encodings_tell_the_same_story(autojump_clock):
    bench = Bench()
    bench.publish(("q", "A"), ("t", "A"))
    pairs = [bench.enter(encoding.name, encoding=encoding) for encoding in (JSON, BINARY, SSE)]
    for member, _ in pairs:
        await bench.subscribe(member, quotes="A", trades="A*", request_id=7)
    bench.publish(("t", "A"), ("q", "A"), ("q", "B"), ("q", "A"))
    await bench.cycle()
    bench.publish(("t", "AB"), ("q", "A"))
    await bench.cycle()
    stories = []
    for _, socket in pairs:
        ticks = [m for m in socket.take() if m["T"] in "qt"]
        stories.append([(m["T"], m["S"], m["n"], m["g"], m.get("snap")) for m in ticks])
    assert len(stories[0]) == 7
    assert stories == [stories[0]] * 3
    bench.balanced()


async def test_json_and_sse_sessions_share_a_lane_and_binary_has_its_own(autojump_clock):
    bench = Bench()
    encodings: list[Encoding] = [JSON, SSE, BINARY, JSON, SSE]
    for number, encoding in enumerate(encodings):
        member, _ = bench.enter(f"s{number}", encoding=encoding)
        await bench.subscribe(member, quotes="A")
    statistics = bench.shard.figures.statistics()
    assert (statistics.lanes, statistics.groups) == (2, 3)


async def test_a_binary_message_is_records_as_they_lie_in_memory(autojump_clock):
    bench = Bench()
    member, socket = bench.enter(encoding=BINARY)
    await bench.subscribe(member, quotes="A", trades="A")
    bench.publish(("q", "A"), ("t", "A"), ("q", "A"))
    await bench.cycle()
    announced, quotes, trades = binary_frames(socket.frames[-1])
    assert (announced.kind, announced.symbols()) == (Kind.SYMBOLS, {"A": 0})
    assert (quotes.records().dtype, trades.records().dtype) == (QUOTE, TRADE)
    assert quotes.records()["g"].tolist() == [1, 3]
    assert quotes.records()["bid_px"].tolist() == [101_250_000_000] * 2
    assert trades.records()["price"].tolist() == [101_260_000_000]
    assert announced.sent_ns == quotes.sent_ns == 1_700_000_000 * S
    bench.publish(("q", "A"))
    await bench.cycle()
    assert [frame.kind for frame in binary_frames(socket.frames[-1])] == [Kind.QUOTES]


async def test_ids_are_announced_before_use_also_of_symbols_that_come_later(autojump_clock):
    bench = Bench()
    bench.publish(("q", "A1"))
    early, early_socket = bench.enter("early", encoding=BINARY)
    await bench.subscribe(early, quotes="A*")
    bench.publish(("q", "A2"))
    await bench.cycle()
    late, late_socket = bench.enter("late", encoding=BINARY)
    await bench.subscribe(late, quotes="A*")
    assert late.group is early.group
    bench.publish(("q", "A3"), ("q", "A1"), ("q", "A2"))
    await bench.cycle()
    assert early_socket.frames[-1] is late_socket.frames[-1]
    for socket in (early_socket, late_socket):  # the decoder knows only what it was told
        assert {m["S"] for m in socket.take() if m["T"] == "q"} == {"A1", "A2", "A3"}


async def test_a_name_added_later_is_announced_alone(autojump_clock):
    bench = Bench()
    bench.publish(("q", "A"), ("q", "B"))
    member, socket = bench.enter(encoding=BINARY)
    await bench.subscribe(member, quotes="A")
    socket.take()
    await bench.subscribe(member, quotes="B")
    announced = [f.symbols() for frame in socket.frames for f in binary_frames(frame) if f.kind == 1]
    assert announced == [{"B": 1}]
    await bench.unsubscribe(member, quotes="A")
    socket.take()
    bench.publish(("q", "B"))
    await bench.cycle()
    assert [m["S"] for m in socket.take()] == ["B"]


async def test_many_names_are_announced_in_pieces(autojump_clock, monkeypatch):
    monkeypatch.setattr("marketfeed.fanout.catchup.MAX_NAMES", 10)
    bench = Bench()
    bench.publish(*[("q", f"S{i}") for i in range(25)])
    member, socket = bench.enter(encoding=BINARY)
    await bench.subscribe(member, quotes="*")
    pieces = [len(f.symbols()) for frame in socket.frames for f in binary_frames(frame) if f.kind == 1]
    assert pieces == [10, 10, 5]
    assert sum("snap" in m for m in socket.take()) == 25


async def test_the_encoding_is_changed_live_and_nothing_is_missed(autojump_clock):
    bench = Bench()
    member, socket = bench.enter()
    follower = Follower(every=True)
    await bench.subscribe(member, quotes="A", trades="A")
    for turn in range(6):
        bench.publish(("q", "A"), ("t", "A"))
        await bench.subscribe(member, encoding=(BINARY, JSON)[turn % 2])
        bench.publish(("q", "A"))
        await bench.cycle()
        assert {frame[0] for frame in socket.frames} <= {0x81, 0x82}
        assert socket.frames[-1][0] == (0x82, 0x81)[turn % 2]
        follower.follow(socket.take())
    assert follower.last == {("q", "A"): 12, ("t", "A"): 6}
    assert bench.shard.figures.statistics().lanes == 1
    bench.balanced()


async def test_what_was_under_way_when_the_encoding_changed_comes_before_the_answer(autojump_clock):
    bench = Bench(max_symbols=2048)
    bench.publish(*[("q", f"S{i:04d}") for i in range(1500)])
    member, socket = bench.enter()
    socket.room = 1  # the answer
    await bench.subscribe(member, quotes="*")
    await bench.subscribe(member, encoding=BINARY)
    for _ in range(5):
        bench.open(member, socket)
        await bench.cycle()
    opcodes = [frame[0] for frame in socket.frames]
    assert opcodes == sorted(opcodes)
    messages = socket.take()
    assert sum("snap" in m for m in messages) == 1500
    assert kinds(messages)[-1] == "synced"


async def test_a_gap_is_a_messages_frame_before_the_ticks(autojump_clock):
    bench = Bench(depth=16)
    bench.publish(("q", "A"))
    member, socket = bench.enter(encoding=BINARY)
    await bench.subscribe(member, quotes="A", trades="A")
    socket.take()
    for _ in range(30):
        bench.publish(("q", "A"))
    await bench.cycle()
    messages, quotes = binary_frames(socket.frames[-1])
    assert messages.messages() == [{"T": "gap", "S": "A", "channel": "quotes", "lost": 14, "n": 16}]
    assert len(quotes.records()) == 16
    bench.balanced()


async def test_events_have_ids_only_where_the_cursor_may_move(autojump_clock):
    bench = Bench()
    bench.publish(("q", "A"), ("q", "B"))
    member, socket = bench.enter(encoding=SSE, tier=VIP)
    await bench.subscribe(member, quotes="A B")
    ids = [frame.split(b"\n")[0] for frame in socket.frames]
    assert [line[:4] for line in ids[:-1]] == [b"data"] * 2  # the answer and the snapshot
    assert ids[-1] == b"id: e1:2"  # `synced`
    bench.publish(("q", "A"), ("q", "C"), ("q", "B"), ("q", "C"))
    await bench.cycle()
    assert socket.frames[-1].startswith(b"id: e1:5\n")


async def test_silence_is_a_comment_for_sse_and_a_kind_of_its_own_in_binary(autojump_clock):
    bench = Bench(heartbeat_s=1.0)
    _, events = bench.enter("sse", encoding=SSE)
    _, records = bench.enter("binary", encoding=BINARY)
    for _ in range(4 * 300):
        await bench.cycle()
        await trio.sleep(0.25)
    assert set(events.frames) == {b": heartbeat\n\n"}  # and no ping, which it could not answer
    assert events.ended is None
    assert {frame.kind for frame in binary_frames(records.frames[0])} == {Kind.HEARTBEAT}


async def test_a_slow_tier_hands_out_what_a_faster_one_encoded_in_its_own_codec(autojump_clock):
    bench = Bench()
    fast, _ = bench.enter("fast", encoding=BINARY)
    slow, socket = bench.enter("slow", BASIC, encoding=BINARY)
    for member in (fast, slow):
        await bench.subscribe(member, quotes="A B")
    for _ in range(3):
        bench.publish(("q", "A"), ("q", "B"))
        await bench.cycle()
    await trio.sleep(0.5)
    await bench.cycle()
    ticks = [(m["S"], m["n"]) for m in socket.take() if m["T"] == "q"]
    assert ticks == [("A", 3), ("B", 3)]
    bench.balanced()


def test_a_hundred_quotes_take_two_headers_and_64_bytes_each():
    step = FrameContent(mixed=False)
    step.ticks += [bytes(64)] * 100
    frame = BINARY.frame(step, Moment("e1", 9, 1_700_000_000 * S))
    assert len(frame) == 4 + 16 + 100 * 64
    assert [len(part.records()) for part in binary_frames(frame)] == [100]
