"""Compressed frames: what goes in comes out, and no frame fills the memory of its reader."""

from __future__ import annotations

import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfeed.core.binary import HEADER, FrameParser
from marketfeed.core.compressed import (
    COMPRESSED,
    MAX_INFLATED_BYTES,
    compressed_frame,
    inflated,
    is_compressed,
)
from marketfeed.errors import FeedProtocolError


def frame(payload: bytes, version: int = 1, kind: int = COMPRESSED, length: int | None = None) -> bytes:
    return HEADER.pack(version, kind, 0, len(payload) if length is None else length, 7) + payload


def deflated(data: bytes, level: int = 9) -> bytes:
    return zlib.compress(data, level, -15)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 2**64 - 1))
@example("x" * MAX_INFLATED_BYTES, 1)
def test_every_text_comes_back(text, sent_ns):
    packed = compressed_frame(text.encode(), sent_ns)
    assert is_compressed(packed)
    assert inflated(packed) == text
    assert HEADER.unpack_from(packed) == (1, 6, 0, len(packed) - 16, sent_ns)
    assert (
        zlib.decompressobj(-15).decompress(packed[16:], 1 << 20).decode() == text
    )  # as docs/protocol.md says


def test_the_longest_text_that_does_not_get_shorter_comes_back():
    text = "".join(chr(33 + (number * number * 7919 >> 5) % 90) for number in range(MAX_INFLATED_BYTES))
    assert inflated(compressed_frame(text.encode(), 0)) == text


def test_more_than_the_limit_is_not_compressed():
    with pytest.raises(ValueError, match="at most 1048576 bytes"):
        compressed_frame(bytes(MAX_INFLATED_BYTES + 1), 0)


@pytest.mark.parametrize("size", [MAX_INFLATED_BYTES + 1, 200 << 20])
def test_a_bomb_is_refused_without_being_inflated(size):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20))
    bomb = frame(bomb + packer.compress(bytes(size & (1 << 20) - 1)) + packer.flush())
    tracemalloc.start()
    try:
        with pytest.raises(FeedProtocolError, match="holds more than 1048576 bytes"):
            inflated(bomb)
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_INFLATED_BYTES
    finally:
        tracemalloc.stop()


WHOLE = deflated(b"[1,2,3]")


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "header is cut off"),
        (frame(WHOLE)[:15], "header is cut off"),
        (frame(WHOLE, version=2), "version 2"),
        (frame(WHOLE, kind=4), "kind 4"),
        (frame(WHOLE, length=len(WHOLE) + 1), "a compressed frame of"),
        (frame(WHOLE) + b"x", "a compressed frame of"),
        (frame(WHOLE) + frame(WHOLE), "a compressed frame of"),
        (frame(WHOLE[:-1]), "cut off"),
        (frame(WHOLE + b"x"), "behind its end"),
        (frame(b""), "cut off"),
        (frame(b"\xff\xff\xff"), "damaged"),
        (frame(zlib.compress(b"[]")), "damaged"),  # with the header of zlib
        (frame(deflated(b"\xff\xfe")), "not UTF-8"),
    ],
)
def test_what_is_not_one_whole_compressed_frame_is_refused(message, why):
    with pytest.raises(FeedProtocolError, match=why):
        inflated(message)


@given(st.binary(max_size=300))
def test_any_bytes_are_text_or_refused(data):
    for message in (data, frame(data)):
        with suppress(FeedProtocolError):
            assert len(inflated(message).encode()) <= MAX_INFLATED_BYTES


def test_streams_of_publishers_and_recordings_have_no_compressed_frames():
    parser = FrameParser()
    parser.feed(compressed_frame(b"[]", 0))
    with pytest.raises(FeedProtocolError, match="frame kind 6"):
        parser.next_frame()
