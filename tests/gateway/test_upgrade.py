"""Handshakes that are none get an answer that says why; the others reach the library in one form."""

from __future__ import annotations

import json

import pytest
from structlog.testing import capture_logs

from tests.support.live import serving

KEY = "MDEyMzQ1Njc4OWFiY2RlZg=="
GOOD = {
    "Host": "127.0.0.1",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def request(changed: dict[str, str | None], line: str = "GET /v1/stream HTTP/1.1") -> bytes:
    headers = {name: value for name, value in (GOOD | changed).items() if value is not None}
    return "\r\n".join([line, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"Upgrade": "WebSocket"},
        {"Upgrade": "h2c, websocket"},
        {"Upgrade": "websocket,h2c"},
        {"Connection": "keep-alive, Upgrade"},
        {"Connection": "UPGRADE"},
        {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c, websocket", "HTTP2-Settings": "AAMAAABk"},
        {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"},
        {"Sec-WebSocket-Extensions": "=;,;"},
        {"Sec-WebSocket-Protocol": "json, x"},
        {"Host": "127.0.0.1:1"},
        {"Content-Length": "0"},
    ],
)
async def test_a_handshake_is_taken_however_it_is_written(changed):
    async with serving() as live:
        stream = await live.connect()
        await stream.send_all(request(changed))
        got = await stream.receive_some()
        assert got.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Accept: " in got


@pytest.mark.parametrize(
    ("line", "changed", "status", "told"),
    [
        ("GET /v1/stream HTTP/1.1", {"Connection": None}, 400, "Connection: Upgrade"),
        ("GET /v1/stream HTTP/1.1", {"Connection": "keep-alive"}, 400, "Connection: Upgrade"),
        ("GET /v1/stream HTTP/1.1", {"Connection": "close"}, 400, "Connection: Upgrade"),
        ("GET /v1/stream HTTP/1.1", {"Connection": "xupgrade"}, 400, "Connection: Upgrade"),
        ("GET /v1/stream HTTP/1.1", {"Upgrade": "h2c"}, 400, "Upgrade: websocket"),
        ("GET /v1/stream HTTP/1.1", {"Upgrade": "websockets"}, 400, "Upgrade: websocket"),
        ("GET /v1/stream HTTP/1.1", {"Upgrade": None}, 400, "a proxy in between"),
        ("GET /v1/stream HTTP/1.0", {}, 400, "HTTP/1.1"),
        ("POST /v1/stream HTTP/1.1", {}, 405, "GET"),
        ("OPTIONS /v1/nope HTTP/1.1", {}, 404, "no such path"),
        ("GET /v1/stream HTTP/1.1", {"Sec-WebSocket-Key": None}, 400, "Sec-WebSocket-Key"),
        ("GET /v1/stream HTTP/1.1", {"Sec-WebSocket-Key": f"{KEY}\r\nSec-WebSocket-Key: {KEY}"}, 400, "Key"),
        ("GET /v1/stream HTTP/1.1", {"Sec-WebSocket-Version": "8"}, 426, "13"),
        ("GET /v1/stream HTTP/1.1", {"Sec-WebSocket-Protocol": "a b"}, 400, "Sec-WebSocket-Protocol"),
        ("GET /v1/stream HTTP/1.1", {"Content-Length": "5"}, 400, "takes no body"),
        ("GET /v1/stream HTTP/1.1", {"Transfer-Encoding": "chunked"}, 400, "takes no body"),
    ],
)
async def test_what_is_no_handshake_is_answered_in_json_counted_and_no_session(line, changed, status, told):
    async with serving() as live:
        stream = await live.connect()
        await stream.send_all(request(changed, line))
        head, _, body = (await stream.receive_some()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        error = json.loads(body)["error"]
        assert error["code"] == status
        assert told in error["msg"]
        path = "/v1/stream" if "/v1/stream" in line else ""
        assert live.counters.requests == {(path, status): 1}
        assert not live.gateway.sessions


async def test_a_head_request_with_all_of_a_handshake_is_none():
    async with serving() as live:
        stream = await live.connect()
        await stream.send_all(request({}, "HEAD /v1/stream HTTP/1.1"))
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 400 ")


async def test_handshakes_that_are_none_are_one_line_in_the_log():
    async with serving() as live:
        with capture_logs() as logged:
            stream = await live.connect()
            for _ in range(5):
                await stream.send_all(request({"Connection": None}))
                assert b" 400 " in await stream.receive_some()
        (told,) = [entry for entry in logged if "handshake" in entry["event"]]
        assert "Connection: Upgrade" in told["reason"]
