"""What quick_head accepts, h11 accepts with the same result; everything else is left to h11."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfeed.gateway.quick_head import quick_head

OPENING = (
    b"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
EVENTS = b"GET /v1/events?quotes=A HTTP/1.1\r\nHOST:x\r\nAccept:\ttext/event-stream \r\nX-A: \r\n\r\n"
PIECES = [
    b"GET ", b"POST ", b"/v1/stream", b"*", b" ", b"\t", b"\r\n", b"\n", b"\r", b"\x00", b"\xff", b":",
    b"HTTP/1.1", b"HTTP/1.0", b"Host: x\r\n", b"Host: y", b"Upgrade: websocket\r\n", b"upgrade:h2c\r\n",
    b"A: b\r\n", b"A : b\r\n", b"Content-Length: 0\r\n", b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n",
    b" folded\r\n", b'a"b: c\r\n', b"\r\n\r\n", b"hello",
]  # fmt: skip


def parsed(data: bytes) -> tuple[object, ...] | None:
    """Return what h11 makes of ``data``, None if that is not one whole request without a body."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    try:
        head, end = connection.next_event(), connection.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(head, h11.Request) or not isinstance(end, h11.EndOfMessage):
        return None
    assert connection.trailing_data[0] == b""
    return head.method, head.target, list(head.headers), head.http_version


def check(data: bytes) -> bool:
    head = quick_head(data)
    assert head is None or tuple(head) == parsed(data)
    return head is not None


@pytest.mark.parametrize("data", [OPENING, EVENTS])
def test_the_openings_of_sessions_are_parsed(data):
    assert check(data)


@pytest.mark.parametrize(
    "more",
    [
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Host: y\r\n",
        b" folded\r\n",
        b"A : b\r\n",
        b"A: \xff\r\n",
        b"A: b\r\n" * 60,
    ],
)
def test_unusual_headers_are_left_to_h11(more):
    assert quick_head(OPENING[:-2] + more + b"\r\n") is None


def test_incomplete_heads_and_what_follows_a_head_are_left_to_h11():
    assert not any(quick_head(OPENING[:end]) for end in range(len(OPENING)))
    assert quick_head(OPENING + b"\x81") is None
    assert quick_head(OPENING.replace(b"Host", b"X")) is None
    assert quick_head(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") is None


@given(st.sampled_from([OPENING, EVENTS]), st.integers(0, 250), st.integers(0, 12), st.sampled_from(PIECES))
@example(OPENING, 0, 0, b"")
def test_a_changed_opening_means_what_h11_says(data, at, cut, piece):
    check(data[:at] + piece + data[at + cut :])


@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_any_head_means_what_h11_says(pieces):
    check(b"GET / HTTP/1.1\r\n" + b"".join(pieces))
    check(b"".join(pieces) + b"Upgrade: websocket\r\n\r\n")
