"""The gateway's one port: what it makes of connections before and beside sessions."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from tests.support.live import LIMITS, Live, connected, serving
from tests.support.ws_frames import masked

if TYPE_CHECKING:
    import trio

GET = b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n"


async def status_of(stream: trio.SocketStream) -> int:
    """Read one answer with a body, and return its status."""
    got = b""
    while b"}" not in got:
        more = await stream.receive_some()
        assert more, got
        got += more
    return int(got.split()[1])


async def test_a_session_may_begin_on_a_connection_that_was_used_for_http():
    async with serving() as live:
        stream = await live.connect()
        await stream.send_all(GET)
        assert await status_of(stream) == 404
        await stream.send_all(live.handshake())
        got = await stream.receive_some()
        await stream.send_all(masked(0x81, b'{"action":"ping","t":5}'))
        while b"pong" not in got:
            got += await stream.receive_some()
        assert got.startswith(b"HTTP/1.1 101 ")
        assert len(live.gateway.sessions) == 1


async def test_nothing_of_a_request_lives_on_in_a_session():
    async with serving() as live, connected(live):
        (session,) = live.gateway.sessions
        assert not [name for name in vars(session) if "request" in name and name != "_bad_requests"]
        assert session._outbox is not None
        assert not session._outbox._replay


@pytest.mark.parametrize(
    ("trusted", "sent", "address"),
    [
        ((), b"", "127.0.0.1"),
        (("127.0.0.1",), b"PROXY TCP4 198.51.100.7 127.0.0.1 5000 80\r\n", "198.51.100.7"),
        (("127.0.0.0/8",), b"", "203.0.113.5"),
        (("10.0.0.0/8",), b"", "127.0.0.1"),
    ],
)
async def test_a_session_is_listed_with_its_clients_address(trusted, sent, address):
    async with serving(trusted=trusted) as live:
        stream = await live.connect()
        await stream.send_all(
            sent + live.handshake(headers="X-Forwarded-For: 203.0.113.5\r\n" if not sent else "")
        )
        assert b" 101 " in await stream.receive_some()
        (session,) = live.gateway.sessions
        assert session.address == address


@pytest.mark.parametrize(
    ("header", "instead", "status"),
    [
        (b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 99", 426),
        (b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 13, 8", 426),
        (b"Sec-WebSocket-Version: 13\r\n", b"", 426),
        (b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==", b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg", 400),
        (b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==", b"Sec-WebSocket-Key: c2hvcnQ=", 400),
        (b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n", b"", 400),
    ],
)
async def test_a_handshake_of_another_protocol_is_answered_and_is_no_session(header, instead, status):
    async with serving() as live:
        stream = await live.connect()
        request = live.handshake()
        assert header in request
        await stream.send_all(request.replace(header, instead))
        head, _, body = (await stream.receive_some()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert (b"\r\nSec-WebSocket-Version: 13\r\n" in head + b"\r\n") == (status == 426)
        assert json.loads(body)["error"]["msg"].startswith("Sec-WebSocket-")
        assert not live.gateway.sessions
        assert live.counters.refused == {}
        await stream.send_all(GET)  # the connection may go on
        assert await status_of(stream) == 404


async def test_limits_of_an_address_follow_the_client_behind_a_proxy():
    limits = dataclasses.replace(LIMITS, sessions_per_ip=1)
    async with serving(limits, trusted=("127.0.0.1",)) as live:
        for client, status in (("192.0.2.1", b" 101 "), ("192.0.2.2", b" 101 "), ("192.0.2.1", b" 503 ")):
            stream = await live.raw(headers=f"X-Forwarded-For: {client}\r\n")
            assert status in await stream.receive_some()


async def test_a_stranger_cannot_speak_the_proxy_protocol():
    async with serving() as live:
        stream = await live.connect()
        await stream.send_all(b"PROXY TCP4 198.51.100.7 127.0.0.1 5000 80\r\n" + GET)
        assert await status_of(stream) == 400


async def test_a_broken_proxy_header_ends_the_connection_and_is_counted():
    async with serving(trusted=("127.0.0.1",)) as live:
        stream = await live.connect()
        await stream.send_all(b"PROXY TCP4 nonsense\r\n")
        assert await stream.receive_some() == b""
        assert live.counters.refused == {"broken PROXY header": 1}


async def test_a_storm_of_requests_from_one_address_is_429_and_sessions_go_on():
    limits = dataclasses.replace(LIMITS, requests_per_s=3)
    async with serving(limits) as live, connected(live) as client:
        stream = await live.connect()
        answers = []
        for _ in range(5):
            await stream.send_all(GET)
            answers.append(await status_of(stream))
        assert answers == [404, 404, 404, 429, 429]
        other = await live.raw()  # handshakes are not counted
        assert b" 101 " in await other.receive_some()
        await client.send(action="ping")
        assert (await client.next())["T"] == "pong"


async def test_tls_on_the_plain_port_is_answered_and_costs_nobody_anything():
    async with serving() as live, connected(live) as client:
        stream = await live.connect()
        await stream.send_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500))
        got = await stream.receive_some()
        assert got.startswith(b"HTTP/1.1 400 ")
        assert json.loads(got.partition(b"\r\n\r\n")[2])["error"]["msg"].startswith(
            "this port speaks plain HTTP"
        )
        await client.send(action="ping")
        assert (await client.next())["T"] == "pong"


@pytest.mark.slow
async def test_more_connections_than_an_address_may_have_are_closed():
    async with serving(dataclasses.replace(LIMITS, handshake_s=60.0)) as live:
        await open_strangers(live, 1024)
        stream = await live.connect()
        assert await stream.receive_some() == b""
        assert live.counters.refused == {"too many connections: limits.sessions": 1}


async def open_strangers(live: Live, count: int) -> None:
    for _ in range(count):
        await live.connect()
