"""Clients that ask and ask and do not read: what waits for them is bounded, over plain TCP and TLS."""

from __future__ import annotations

import json
import socket
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from marketfeed.errors import CloseCode
from marketfeed.gateway import connections, unread
from marketfeed.gateway.exchange import SEND_BYTES
from marketfeed.gateway.outbox import Outbox
from marketfeed.gateway.tls import TlsOutbox
from tests.support.gateway_tls import Files
from tests.support.live import LIMITS, Live, serving
from tests.support.ws_frames import masked

if TYPE_CHECKING:
    from marketfeed.gateway.session import Session

MOST_BYTES = 16 << 20  # that a client may get rid of before it has to wait; kernels buffer a lot on loopback
WAITING_BYTES = 256 << 10
MANY = 6000  # symbols
FAST = replace(LIMITS, requests_per_s=1e6, handshake_s=20.0)


def asking(**request: object) -> bytes:
    return masked(0x81, json.dumps(request).encode())


NAMES = [f"N{i:03}" for i in range(5)]
FLOODS = {
    "requests": asking(action="ping", t=1, id="x" * 100),
    "subscriptions": asking(action="subscribe", quotes=NAMES, id="x" * 100),
    "bad requests": asking(action="ping", t=1) + asking(action="nope"),
    "big pings of the protocol": masked(0x89, b"x" * 125),
}


@pytest.fixture(params=["plain", "tls"])
def certificate(request, tmp_path):
    return Files(tmp_path) if request.param == "tls" else None


@pytest.fixture
def outboxes(monkeypatch):
    """Every outbox that the gateway makes."""
    made = []
    for kind in (Outbox, TlsOutbox):

        def make(*arguments, kind=kind):
            made.append(kind(*arguments))
            return made[-1]

        monkeypatch.setattr(connections, kind.__name__, make)
    # The gateway asks whether an outbox is a TlsOutbox.
    monkeypatch.setattr(
        connections, "isinstance", lambda value, _: isinstance(value, TlsOutbox), raising=False
    )
    return made


async def open_stream(live: Live, files: Files | None) -> trio.abc.Stream:
    stream = await live.connect() if files is None else await files.connect(live)
    take_at_once(stream, 4096)
    return stream


def hold_little(outbox: Outbox) -> None:
    """Have the kernel accept little, or it takes all that a flood is answered.

    A client whose receive window is 0 may also fail to send: its kernel then takes no acknowledgement.
    """
    outbox._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


def take_at_once(stream: Any, size: int) -> None:
    getattr(stream, "transport_stream", stream).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


async def flood(stream: trio.abc.Stream, piece: bytes) -> int:
    """Send ``piece`` again and again without reading, until the engine reads no more; return the bytes."""
    sent, many = 0, piece * (16384 // len(piece) + 1)
    try:
        while sent < MOST_BYTES:
            with trio.move_on_after(0.5) as sending:
                await stream.send_all(many)
            if sending.cancelled_caught:
                return sent
            sent += len(many)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # cut, which bounds it as well
    return sent


async def begun(live: Live, stream: trio.abc.Stream) -> Session:
    """Return the session that begins on ``stream``."""
    await stream.send_all(live.handshake())
    while not any(session.member for session in live.gateway.sessions):
        await trio.sleep(0.001)
    (session,) = live.gateway.sessions
    return session


@pytest.mark.parametrize("piece", FLOODS.values(), ids=FLOODS)
async def test_a_session_that_asks_and_does_not_read_is_not_read(certificate, piece):
    async with serving(FAST, certificate=certificate and certificate.certificate()) as live:
        stream = await open_stream(live, certificate)
        session = await begun(live, stream)
        # Pings may be too many as well: then it is cut, and what comes until it is gone is thrown away.
        assert await flood(stream, piece) < MOST_BYTES or live.counters.closes == {CloseCode.ABUSE: 1}
        assert session.unsent_bytes < WAITING_BYTES + 3 * 65536  # what waits here, and what the tier paces


async def test_a_session_that_asks_and_does_not_read_is_cut(certificate, outboxes):
    issued = certificate and certificate.certificate()
    async with serving(FAST, stall_s=0.3, certificate=issued) as live:
        stream = await open_stream(live, certificate)
        await begun(live, stream)
        hold_little(outboxes[0])
        while live.gateway.sessions:  # an engine that was busy for half a second may read on
            await flood(stream, FLOODS["requests"])
            await trio.lowlevel.checkpoint()
        await live.until_empty()
        assert live.counters.closes == {CloseCode.SLOW: 1}


async def test_answers_to_pipelined_requests_that_are_not_read_are_bounded(certificate, outboxes):
    async with serving(FAST, certificate=certificate and certificate.certificate()) as live:
        live.publish(*[f"S{i:03}" for i in range(200)])
        stream = await open_stream(live, certificate)
        assert await flood(stream, b"GET /v1/symbols HTTP/1.1\r\nHost: localhost\r\n\r\n") < MOST_BYTES
        assert sum(outbox.waiting_bytes for outbox in outboxes) < WAITING_BYTES


@pytest.mark.slow
async def test_of_a_large_answer_that_is_not_read_a_piece_waits_for_the_socket(certificate, outboxes):
    async with serving(FAST, symbols=MANY, certificate=certificate and certificate.certificate()) as live:
        live.publish(*[f"S{i:06}" for i in range(MANY)])
        stream = await open_stream(live, certificate)
        hold_little(outboxes[0])
        await stream.send_all(b"GET /v1/symbols HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        while not outboxes[0].waiting_bytes:  # how much of a piece waits, the kernel decides
            await trio.sleep(0.01)
        body, most = b"", outboxes[0].waiting_bytes
        take_at_once(stream, 65536)  # or reading takes seconds
        while (data := await stream.receive_some(65536)) and len(body) < MOST_BYTES:
            body += data
            most = max(most, outboxes[0].waiting_bytes)
        assert most < SEND_BYTES + 4096
        _, _, body = body.partition(b"\r\n\r\n")
        assert len(body) > 4 * SEND_BYTES
        assert [row["S"] for row in json.loads(body)["symbols"]] == [f"S{i:06}" for i in range(MANY)]


async def test_large_answers_that_are_not_read_take_bounded_memory_together(
    certificate, outboxes, monkeypatch
):
    monkeypatch.setattr(unread, "MOST_BYTES", 4 << 20)
    monkeypatch.setattr(unread, "GRACE_S", 0.0)
    async with serving(FAST, symbols=MANY, certificate=certificate and certificate.certificate()) as live:
        live.publish(*[f"S{i:06}" for i in range(MANY)])
        waiting = live.gateway.routes.server._unread
        held, most = [], 0
        for _ in range(40):
            stream = await open_stream(live, certificate)
            held.append(stream)
            while len(outboxes) < len(held):
                await trio.sleep(0.001)
            hold_little(outboxes[-1])
            await stream.send_all(b"GET /v1/symbols HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await trio.sleep(0.01)
            most = max(most, waiting.waiting_bytes)
        while not live.counters.refused["answer not read"]:
            await trio.sleep(0.01)
            most = max(most, waiting.waiting_bytes)
        assert unread.LARGE_BYTES < most <= unread.MOST_BYTES
        for stream in held:
            await trio.aclose_forcefully(stream)
        while waiting.waiting_bytes:
            await trio.sleep(0.01)
        # Who reads is served as before.
        stream = await open_stream(live, certificate)
        take_at_once(stream, 1 << 20)
        await stream.send_all(b"GET /v1/symbols HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := await stream.receive_some(65536):
            answer += data
        assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["symbols"]) == MANY


async def test_no_answer_is_given_up_before_its_client_had_time_to_read_it(autojump_clock):
    refused: Counter[str] = Counter()
    answers = unread.Unread(refused)
    size, ended = unread.MOST_BYTES // 4, list[tuple[int, float]]()

    async def send(number: int) -> None:
        with answers.sending(size, 30.0):
            await trio.sleep_forever()
        ended.append((number, trio.current_time()))

    async with trio.open_nursery() as nursery:
        began_s = trio.current_time()
        for number in range(6):
            nursery.start_soon(send, number)
            await trio.testing.wait_all_tasks_blocked()
        assert answers.waiting_bytes == 6 * size
        await trio.sleep(2 * unread.GRACE_S)
        assert not ended
        nursery.start_soon(send, 6)
        await trio.sleep(0.1)
        assert sorted(number for number, _ in ended) == [0, 1, 2]
        assert answers.waiting_bytes == 4 * size
        assert refused == {"answer not read": 3}
        await trio.sleep(40)
        assert sorted(number for number, at_s in ended if at_s - began_s == 30.0) == [3, 4, 5]
        assert not answers.waiting_bytes
