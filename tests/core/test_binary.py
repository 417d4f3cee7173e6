"""Binary frames: every offset and limit, for any division of the stream."""

from __future__ import annotations

import struct

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.binary import (
    HEADER,
    MAX_PAYLOAD_BYTES,
    MAX_SYMBOLS_BYTES,
    Frame,
    FrameParser,
    Kind,
    frame_header,
    heartbeat_frame,
    messages_frame,
    quotes_frame,
    symbols_frame,
    trades_frame,
)
from marketfeed.core.records import QUOTE, TRADE
from marketfeed.core.symbols import is_symbol
from marketfeed.errors import FeedProtocolError

SENT_NS = 0x1122334455667788


def frames_of(data: bytes) -> list[Frame]:
    parser = FrameParser()
    parser.feed(data)
    return list(parser)


def raw(version=1, kind=5, flags=0, length=0, sent_ns=0) -> bytes:
    return struct.pack("<BBHIQ", version, kind, flags, length, sent_ns)


def records(dtype, count: int, seed: int = 0):
    return np.frombuffer(np.random.default_rng(seed).bytes(64 * count), dtype)


def test_every_offset_of_the_header():
    header = quotes_frame(records(QUOTE, 3), SENT_NS)[:16]
    assert header == bytes([1, 2, 0, 0, 192, 0, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11])
    assert HEADER.size == 16


def test_the_kinds_are_numbered_as_written_down():
    assert {kind.name: kind.value for kind in Kind} == {
        "SYMBOLS": 1,
        "QUOTES": 2,
        "TRADES": 3,
        "MESSAGES": 4,
        "HEARTBEAT": 5,
    }


def test_flags_are_handed_through():
    (frame,) = frames_of(raw(flags=0xABCD, sent_ns=SENT_NS))
    assert (frame.kind, frame.flags, frame.sent_ns, len(frame.payload)) == (
        Kind.HEARTBEAT,
        0xABCD,
        SENT_NS,
        0,
    )


def test_a_payload_is_a_view_of_what_was_fed():
    data = quotes_frame(records(QUOTE, 4), 0)
    (frame,) = frames_of(data)
    assert frame.payload.obj is data
    assert np.shares_memory(frame.records(), np.frombuffer(data, np.uint8))
    assert not frame.records().flags.writeable


def test_records_that_do_not_lie_in_one_piece_are_sent_all_the_same():
    every_other = records(TRADE, 6)[::2]
    (frame,) = frames_of(trades_frame(every_other, 0))
    assert frame.records().tobytes() == every_other.tobytes()


names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=24).filter(is_symbol)
built = st.one_of(
    st.dictionaries(names, st.integers(0, 65535), max_size=5)
    .map(lambda ids: {name: number for number, name in {n: s for s, n in ids.items()}.items()})
    .map(lambda ids: (Kind.SYMBOLS, ids, symbols_frame(ids, SENT_NS))),
    st.tuples(st.integers(0, 4), st.integers(0, 99)).map(
        lambda k: (Kind.QUOTES, records(QUOTE, *k).tobytes(), quotes_frame(records(QUOTE, *k), SENT_NS))
    ),
    st.tuples(st.integers(0, 4), st.integers(0, 99)).map(
        lambda k: (Kind.TRADES, records(TRADE, *k).tobytes(), trades_frame(records(TRADE, *k), SENT_NS))
    ),
    st.lists(st.dictionaries(st.text(), st.integers(-9, 9)), max_size=3).map(
        lambda said: (Kind.MESSAGES, said, messages_frame([orjson.dumps(each) for each in said], SENT_NS))
    ),
    st.just((Kind.HEARTBEAT, b"", heartbeat_frame(SENT_NS))),
)


def content(frame: Frame):
    if frame.kind is Kind.SYMBOLS:
        return frame.symbols()
    if frame.kind is Kind.MESSAGES:
        return frame.messages()
    return frame.payload.tobytes()


@given(st.lists(built, max_size=6), st.lists(st.integers(0, 200), max_size=30))
def test_frames_come_back_whole_and_in_order_in_any_pieces(sent, sizes):
    stream = b"".join(data for _, _, data in sent)
    parser, found = FrameParser(), list[Frame]()
    for size in [*sizes, len(stream)]:
        piece, stream = stream[:size], stream[size:]
        parser.feed(piece)
        found.extend(parser)
    assert [(frame.kind, content(frame)) for frame in found] == [(kind, value) for kind, value, _ in sent]
    assert all(frame.sent_ns == SENT_NS for frame in found)
    assert parser.pending_bytes == 0


@given(st.lists(built, min_size=1, max_size=4), st.integers(0, 3))
def test_frames_may_be_taken_later_than_fed(sent, untaken):
    parser, found = FrameParser(), list[Frame]()
    for turn, (_, _, data) in enumerate(sent):
        parser.feed(data[:7])
        if turn % (untaken + 1) == 0:
            found.extend(parser)
        parser.feed(data[7:])
    found.extend(parser)
    assert [content(frame) for frame in found] == [value for _, value, _ in sent]


header_like = st.builds(
    raw, st.integers(0, 2), st.integers(0, 6), st.integers(0, 65535), st.integers(0, 300), st.integers(0, 9)
)


@given(st.lists(st.one_of(st.binary(max_size=200), header_like, built.map(lambda b: b[2])), max_size=8))
def test_junk_raises_nothing_but_the_one_error(pieces):
    parser = FrameParser()
    try:
        for piece in pieces:
            parser.feed(piece)
            for frame in parser:
                if frame.kind in (Kind.QUOTES, Kind.TRADES):
                    frame.records()
                elif frame.kind in (Kind.SYMBOLS, Kind.MESSAGES):
                    content(frame)
    except FeedProtocolError:
        pass


@given(st.binary(max_size=60))
def test_any_symbols_payload_is_ids_or_an_error(payload):
    (frame,) = frames_of(raw(kind=1, length=len(payload)) + payload)
    try:
        ids = frame.symbols()
    except FeedProtocolError:
        return
    assert all(is_symbol(name) and 0 <= number <= 65535 for name, number in ids.items())


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (raw(version=0), "frame version 0, not 1"),
        (raw(version=2), "frame version 2, not 1"),
        (raw(kind=0), "frame kind 0, not 1 to 5"),
        (raw(kind=6), "frame kind 6, not 1 to 5"),
        (raw(kind=2, length=63), "a quotes frame of 63 bytes, no multiple of 64"),
        (raw(kind=3, length=65), "a trades frame of 65 bytes, no multiple of 64"),
        (raw(kind=2, length=MAX_PAYLOAD_BYTES + 64), "a quotes frame of 16777280 bytes; at most 16777216"),
        (raw(kind=4, length=2**32 - 1), "a messages frame of 4294967295 bytes; at most 16777216"),
        (raw(kind=1, length=MAX_SYMBOLS_BYTES + 1), "a symbols frame of 4194305 bytes; at most 4194304"),
        (raw(kind=5, length=1), "a heartbeat frame of 1 bytes; at most 0"),
    ],
)
def test_a_bad_header_is_told_without_waiting_for_its_payload(header, reason):
    for pieces in ([header], [header[:5], header[5:]]):
        parser = FrameParser()
        for piece in pieces[:-1]:
            parser.feed(piece)
            assert parser.next_frame() is None
        parser.feed(pieces[-1])
        with pytest.raises(FeedProtocolError) as raised:
            parser.next_frame()
        assert str(raised.value) == reason
        parser.feed(heartbeat_frame(0))
        with pytest.raises(FeedProtocolError):
            parser.next_frame()


def test_frames_before_the_bad_one_are_given():
    parser = FrameParser()
    parser.feed(heartbeat_frame(0) + raw(version=9))
    assert parser.next_frame() is not None
    with pytest.raises(FeedProtocolError):
        parser.next_frame()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "a symbols frame is not JSON"),
        (b"{", "a symbols frame is not JSON"),
        (b"[" * 5000, "a symbols frame is not JSON"),
        (b"[]", "must hold a JSON object"),
        (b'{"A B":1}', "invalid symbol: 'A B'"),
        (b'{"":1}', "invalid symbol: ''"),
        (b'{"%b":1}' % (b"A" * 25), "invalid symbol"),
        (b'{"A":-1}', "gives A the id -1"),
        (b'{"A":65536}', "gives A the id 65536, not 0 to 65535"),
        (b'{"A":true}', "gives A the id True"),
        (b'{"A":1.0}', "gives A the id 1.0"),
        (b'{"A":"1"}', "gives A the id 1,"),
        (b'{"A":1,"B":1}', "one id to two names"),
    ],
)
def test_a_bad_announcement_is_told(payload, reason):
    (frame,) = frames_of(raw(kind=1, length=len(payload)) + payload)
    with pytest.raises(FeedProtocolError) as raised:
        frame.symbols()
    assert reason in str(raised.value)


@pytest.mark.parametrize("payload", [b"", b"{}", b"[", b"null"])
def test_bad_messages_are_told(payload):
    (frame,) = frames_of(raw(kind=4, length=len(payload)) + payload)
    with pytest.raises(FeedProtocolError):
        frame.messages()


def test_the_sender_may_not_break_the_limits_either():
    with pytest.raises(ValueError, match="at most 16777216"):
        frame_header(Kind.QUOTES, MAX_PAYLOAD_BYTES + 64, 0)
    with pytest.raises(ValueError, match="a quotes frame does not hold"):
        quotes_frame(records(TRADE, 1), 0)


def test_the_largest_announcement_fits():
    ids = {f"{number:024d}": number for number in range(65536)}
    (frame,) = frames_of(symbols_frame(ids, 0))
    assert frame.symbols() == ids


def test_a_large_frame_in_pieces_is_put_together_once():
    data = quotes_frame(records(QUOTE, 10_000), 0)
    parser = FrameParser()
    for at in range(0, len(data), 65536):
        assert parser.next_frame() is None
        parser.feed(data[at : at + 65536])
    frame = parser.next_frame()
    assert frame is not None
    assert frame.payload.tobytes() == data[16:]
    assert not frame.records().flags.writeable
