"""Frame headers are counted right in whatever pieces the bytes come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.gateway.scan import MAX_CONTROL_FRAMES, MAX_FRAGMENTS, FrameScanner, FramingAbuseError
from tests.support.ws_frames import masked


def feed_in_pieces(data: bytes, cuts: list[int]) -> int:
    """Return how many pieces went in before the scanner had enough; -1 if it never had."""
    scanner, at = FrameScanner(), 0
    for number, size in enumerate([*cuts, len(data)]):
        try:
            scanner.feed(data[at : at + size], 0.0)
        except FramingAbuseError:
            return number
        at += size
    return -1


sizes = st.sampled_from([0, 1, 125, 126, 200, 65535, 65536])


@given(st.lists(sizes, min_size=1, max_size=5), st.lists(st.integers(0, 300), max_size=30))
def test_whole_messages_of_any_size_in_any_pieces_pass(lengths, cuts):
    data = b"".join(masked(0x81, b"x" * length) for length in lengths)
    assert feed_in_pieces(data * 3, cuts) == -1


@given(st.lists(st.integers(1, 4000), max_size=20))
def test_endless_empty_fragments_are_refused_however_cut(cuts):
    assert feed_in_pieces(masked(0x01, b"") + masked(0x00, b"") * MAX_FRAGMENTS, cuts) >= 0


def test_the_last_permitted_fragment_and_the_first_refused():
    scanner = FrameScanner()
    scanner.feed(masked(0x01, b"a") + masked(0x00, b"") * (MAX_FRAGMENTS - 1) + masked(0x80, b""), 0.0)
    with pytest.raises(FramingAbuseError, match="fragments"):
        scanner.feed(masked(0x01, b"a") + masked(0x00, b"") * MAX_FRAGMENTS, 0.0)


def test_a_flood_of_pings_is_refused_and_a_steady_beat_is_not():
    scanner = FrameScanner()
    for second in range(5):
        scanner.feed(masked(0x89, b"") * MAX_CONTROL_FRAMES, float(second))
    with pytest.raises(FramingAbuseError, match="control frames"):
        scanner.feed(masked(0x89, b"") * (MAX_CONTROL_FRAMES + 1), 9.0)


pongs = st.binary(max_size=125).map(lambda payload: masked(0x8A, payload))
others = st.one_of(
    st.binary(max_size=300).map(lambda payload: masked(0x81, payload)),
    st.binary(max_size=125).map(lambda payload: masked(0x89, payload)),
    st.just(masked(0x0A, b"a pong in pieces")),
    st.just(masked(0xCA, b"a reserved bit")),
    st.just(masked(0x8A, b"x" * 126)),
    st.just(b"\x8a\x04bare"),
)


@given(st.lists(pongs, min_size=1, max_size=4), others, st.integers(0, 4))
def test_whole_pongs_alone_are_told_from_all_else(answers, other, at):
    assert FrameScanner().feed(b"".join(answers), 0.0)
    assert not FrameScanner().feed(b"".join([*answers[:at], other, *answers[at:]]), 0.0)
    assert not FrameScanner().feed(b"".join(answers) + b"\x8a", 0.0)
    assert not FrameScanner().feed(b"", 0.0)


@given(pongs, st.integers(1, 130))
def test_a_pong_in_two_pieces_goes_on_in_both(answer, at):
    scanner = FrameScanner()
    first, second = answer[:at], answer[at:]
    if second:
        assert not scanner.feed(first, 0.0)
        assert not scanner.feed(second, 0.0)
    assert scanner.feed(answer, 0.0)


def with_key(payload: bytes, key: bytes) -> bytes:
    """Return a pong of ``payload``, masked with ``key``."""
    hidden = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
    return bytes((0x8A, 0x80 | len(payload))) + key + hidden


def heard(pieces: list[bytes]) -> list[bytes]:
    """Return the payloads that a scanner reports."""
    scanner, found = FrameScanner(), list[bytes]()
    for piece in pieces:
        scanner.feed(piece, 0.0, found.append)
    return found


@given(
    st.lists(st.binary(min_size=8, max_size=8), min_size=1, max_size=3),
    st.binary(min_size=4, max_size=4),
    others,
    st.lists(st.integers(0, 40), max_size=10),
)
def test_payloads_as_long_as_ours_are_reported_however_masked_and_cut(payloads, key, other, cuts):
    data = other + b"".join(with_key(payload, key) for payload in payloads)
    pieces = []
    for size in cuts:
        pieces.append(data[:size])
        data = data[size:]
    assert heard([*pieces, data]) == payloads


@pytest.mark.parametrize(
    "frame",
    [
        masked(0x8A, b"x" * 7),
        masked(0x8A, b"x" * 9),
        masked(0x89, b"x" * 8),  # a ping
        masked(0x0A, b"x" * 8),  # a fragment
        masked(0xCA, b"x" * 8),  # a reserved bit
        b"\x8a\x08" + b"x" * 8,  # not masked
        b"\x8a\xfe\x00\x08" + bytes(4) + b"x" * 8,  # the length in three bytes
    ],
)
def test_no_other_frame_is_reported(frame):
    assert heard([frame, masked(0x8A, b"ours, ok")]) == [b"ours, ok"]
