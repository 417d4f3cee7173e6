"""Frame lengths of 7, 16 and 64 bits, written and read: RFC 6455, section 5.2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.fanout.ws_frames import BINARY, PING, TEXT, frame, header, payload_span

# Section 5.7 has these, and the limits between the three lengths.
EXAMPLES = [
    (b"\x81\x05", TEXT, 5),
    (b"\x82\x7e\x01\x00", BINARY, 256),
    (b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", BINARY, 65536),
    (b"\x89\x7d", PING, 125),
    (b"\x81\x7e\x00\x7e", TEXT, 126),
    (b"\x81\x7e\xff\xff", TEXT, 65535),
]


@pytest.mark.parametrize(("head", "opcode", "length"), EXAMPLES)
def test_headers_as_the_standard_writes_them(head, opcode, length):
    assert header(opcode, length) == head
    assert payload_span(head) == (len(head), length)


@pytest.mark.parametrize(("head", "opcode", "length"), EXAMPLES)
def test_an_incomplete_header_has_no_length_yet(head, opcode, length):
    masked = bytes((head[0], head[1] | 0x80)) + head[2:] + b"mask"
    for whole in (head, masked):
        for size in range(len(whole)):
            assert payload_span(whole[:size]) is None
    assert payload_span(masked) == (len(masked), length)


def test_a_masked_frame_of_the_standard():
    hello = bytes((0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58))
    assert payload_span(hello) == (6, 5)


@given(st.binary(max_size=70_000), st.binary(max_size=20), st.booleans())
def test_the_span_is_the_payload_wherever_the_frame_begins(payload, before, mutable):
    data = before + frame(BINARY, payload)
    span = payload_span(bytearray(data) if mutable else data, len(before))
    assert span is not None
    start, length = span
    assert data[start : start + length] == payload
    assert start + length == len(data)
