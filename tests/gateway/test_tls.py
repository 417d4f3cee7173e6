"""TLS on the gateway's port: all transports over it, certificates read again, peers that get it wrong."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.lowlevel
import trio_websocket
import trustme

from marketfeed.errors import CLOSE_TEXT, CloseCode, ConfigError
from tests.support.gateway_tls import Files
from tests.support.live import HASTY, Client, Live, connected, serving
from tests.support.ws_frames import masked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
def files(tmp_path) -> Files:
    return Files(tmp_path)


async def read_until(stream: trio.abc.ReceiveStream, end: bytes) -> bytes:
    got = b""
    while end not in got:
        more = await stream.receive_some()
        assert more, got
        got += more
    return got


@asynccontextmanager
async def websocket(live: Live, files: Files) -> AsyncIterator[Client]:
    async with trio.open_nursery() as nursery:
        stream = await files.connect(live)
        ws = await trio_websocket.wrap_client_stream(nursery, stream, "localhost", "/v1/stream")
        client = Client(ws)
        await client.next("success")
        yield client
        with trio.move_on_after(1):
            await ws.aclose()
        nursery.cancel_scope.cancel()


async def test_websocket_events_and_http_over_tls(files):
    async with serving(certificate=files.certificate()) as live:
        live.publish("A")
        async with websocket(live, files) as client:
            await client.send(action="subscribe", quotes=["A"])
            assert (await client.next("synced"))["cursor"] == "e1:1"
            events = await files.connect(live)
            await events.send_all(b"GET /v1/events?quotes=A HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b'"snap":1' in await read_until(events, b"synced")
            plain = await files.connect(live)
            for _ in range(2):  # kept alive
                await plain.send_all(b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n")
                assert b" 404 " in await read_until(plain, b"}}")
            live.publish("A", "A")
            assert [(await client.next("q"))["n"] for _ in range(2)] == [2, 3]
            assert b'"n":3' in await read_until(events, b"\n\n")
            (ledger, _) = (
                live.shard.figures.ledgers(s.member)["vip"] for s in live.gateway.sessions if s.member
            )
            assert (ledger.matched, ledger.delivered) == (2, 2)
        await events.aclose()
        await live.until_empty()


async def test_a_handshake_with_bare_line_ends_leaves_the_count_of_fragments_on(files):
    async with serving(certificate=files.certificate()) as live:
        stream = await files.connect(live)
        await stream.send_all(live.handshake().replace(b"\r\n", b"\n") + masked(0x01, b"{"))
        await read_until(stream, b"\r\n\r\n")
        await stream.send_all(masked(0x00, b"") * 5000)
        assert b'"code":4503' in await read_until(stream, b"limits violated")


@pytest.mark.slow
async def test_a_peer_that_reads_slowly_gets_everything_in_order(files):
    async with serving(certificate=files.certificate()) as live:
        live.publish(*[f"S{i}" for i in range(200)])
        stream = await files.connect(live)
        stream.transport_stream.setsockopt(1, 8, 4096)  # SOL_SOCKET, SO_RCVBUF
        await stream.send_all(b"GET /v1/events?quotes=* HTTP/1.1\r\nHost: x\r\n\r\n")
        await read_until(stream, b"synced")
        while not any(member.blocked for member in live.shard.members):
            live.publish(*[f"S{i}" for i in range(200)])
            await trio.lowlevel.checkpoint()
        live.publish("LAST")
        got = await read_until(stream, b'"S":"LAST"')
        (session,) = live.gateway.sessions
        assert session.member is not None
        ledger = live.shard.figures.ledgers(session.member)["vip"]
        assert ledger.difference == 0
        assert got.count(b'"T":"q"') <= ledger.matched
        gs = [
            m["g"]
            for line in got.split(b"\n")
            if line.startswith(b"data: ")
            for m in json.loads(line[6:])
            if "g" in m
        ]
        assert gs == sorted(gs)


async def test_who_never_reads_is_cut_after_stall_s(files):
    async with serving(stall_s=0.3, certificate=files.certificate()) as live:
        stream = await files.connect(live)
        await stream.send_all(b"GET /v1/events?quotes=* HTTP/1.1\r\nHost: x\r\n\r\n")
        names = [f"S{i}" for i in range(200)]
        while not live.counters.closes:
            live.publish(*names)
            await trio.sleep(0.001)
        assert live.counters.closes == {CloseCode.SLOW: 1}
        await live.until_empty()


async def test_the_end_of_a_body_is_told_from_a_cut(files):
    async with serving(certificate=files.certificate()) as live, trio.open_nursery() as nursery:
        stream = await files.connect(live, strict=True)
        await stream.send_all(b"GET /v1/events?quotes=A HTTP/1.1\r\nHost: x\r\n\r\n")
        await read_until(stream, b"synced")
        nursery.start_soon(live.gateway.drain)
        got = b""
        while more := await stream.receive_some():
            got += more
        assert b'"code":1001' in got


async def test_a_broken_protocol_is_told_before_tls_ends(files):
    async with serving(certificate=files.certificate()) as live:
        stream = await files.connect(live, strict=True)
        await stream.send_all(live.handshake())
        await read_until(stream, b" 101 ")
        await stream.send_all(b"\x81\x02{}")  # unmasked
        got = b""
        while more := await stream.receive_some():
            got += more
        assert got.endswith((1002).to_bytes(2, "big") + CLOSE_TEXT[CloseCode.PROTOCOL].encode())
        await live.until_empty()


async def test_plain_http_on_the_tls_port_is_told_so_and_costs_nobody_anything(files):
    async with serving(certificate=files.certificate()) as live, websocket(live, files) as client:
        stream = await live.connect()
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        got = await read_until(stream, b"}}")
        assert got.startswith(b"HTTP/1.1 400 ")
        assert b"this port speaks TLS" in got
        assert live.counters.refused == {"no TLS on the TLS port": 1}
        await client.send(action="ping")
        assert (await client.next())["T"] == "pong"


async def test_handshakes_that_break_or_stop_are_counted(files):
    async with serving(HASTY, certificate=files.certificate()) as live:
        broken = await live.connect()
        await broken.send_all(b"\x16\x03\x01\x00\x05junk!")
        assert (await broken.receive_some()).startswith(b"\x15")  # a TLS alert
        half = await live.connect()
        await half.send_all(b"\x16\x03\x01")
        silent = await live.connect()
        for stream in (half, silent):
            assert await stream.receive_some() == b""
        assert live.counters.refused == {"TLS handshake failed": 1, "handshake timeout": 2}


async def test_a_client_address_from_the_proxy_protocol_comes_before_the_tls_handshake(files):
    async with serving(trusted=("127.0.0.1",), certificate=files.certificate()) as live:
        plain = await live.connect()
        await plain.send_all(b"PROXY TCP4 198.51.100.7 127.0.0.1 5000 443\r\n")
        stream = trio.SSLStream(plain, files.client, server_hostname="localhost", https_compatible=True)
        await stream.send_all(b"GET /v1/events?quotes=A HTTP/1.1\r\nHost: x\r\n\r\n")
        await read_until(stream, b"synced")
        (session,) = live.gateway.sessions
        assert session.address == "198.51.100.7"


async def test_certificates_are_read_again_for_connections_to_come(files):
    async with serving(certificate=files.certificate()) as live, websocket(live, files) as client:
        other = trustme.CA()
        files.write(other)
        await files.connect(live)  # still the old one
        live.gateway.reload_certificates()
        with pytest.raises(trio.BrokenResourceError):
            await files.connect(live)
        other.configure_trust(files.client)
        await files.connect(live)
        await client.send(action="ping")
        assert (await client.next())["T"] == "pong"


async def test_files_that_are_no_certificate_leave_the_old_one(files):
    async with serving(certificate=files.certificate()) as live:
        good = files.cert.read_bytes()
        files.cert.write_text("no certificate")
        with pytest.raises(ConfigError, match=r"gateway\.tls_cert"):
            live.gateway.reload_certificates()
        await files.connect(live)
        files.cert.write_bytes(good)
        files.key.unlink()
        with pytest.raises(ConfigError, match=r"gateway\.tls_key: .*No such file"):
            live.gateway.reload_certificates()
        await files.connect(live)


async def test_without_tls_there_is_nothing_to_read_again():
    async with serving() as live, connected(live):
        live.gateway.reload_certificates()
