"""Pings over real sockets: round trips of clients, forged pongs, silent peers, and the kernel's own limit."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest
import trio

from marketfeed.errors import CloseCode
from marketfeed.gateway.events import GONE_S
from marketfeed.gateway.outbox import Outbox
from tests.support.gateway_tls import Files
from tests.support.live import connected, serving
from tests.support.ws_frames import masked, split_frame

if TYPE_CHECKING:
    from tests.support.live import Live

PING, PONG, TEXT, CLOSE = 0x89, 0x8A, 0x81, 0x88


class Frames:
    """Reads the frames that follow the answer to the handshake."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._data = b""
        self._open = False

    async def next(self) -> tuple[int, bytes] | None:
        """Return the first byte and the payload of the next frame, None at the end."""
        while not self._open:
            self._data += await self._stream.receive_some()
            _, end, rest = self._data.partition(b"\r\n\r\n")
            if end:
                self._data, self._open = rest, True
        while (whole := split_frame(self._data)) is None:
            more = await self._stream.receive_some()
            if not more:
                return None
            self._data += more
        first, payload, self._data = whole
        return first, payload


def trips(live: Live) -> int:
    """Return how many round trips were counted."""
    return sum(map(sum, live.shard.keepalive.round_trips.counts.values()))


async def test_a_client_that_answers_is_measured():
    async with serving(ping_s=0.05) as live, connected(live) as client:
        while trips(live) < 3:
            await trio.sleep(0.001)
        await client.send(action="ping", t=1)
        assert (await client.next("pong"))["t"] == 1
        assert live.shard.keepalive.round_trips.counts.keys() == {"vip"}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_only_the_pong_of_a_ping_is_a_round_trip(tls, tmp_path):
    files = Files(tmp_path) if tls else None
    async with serving(ping_s=0.05, certificate=files.certificate() if files else None) as live:
        stream = await (files.connect(live) if files else live.connect())
        await stream.send_all(live.handshake())
        reader, forged, answered = Frames(stream), 0, 0
        while trips(live) == 0:
            frame = await reader.next()
            assert frame is not None
            if frame[0] == PING and forged < 5:  # more than may go unanswered
                forged += 1
                await stream.send_all(masked(PONG, b"a forged") + masked(PONG, b""))
                assert trips(live) == 0
            elif frame[0] == PING:
                answered += 1
                request = masked(TEXT, b'{"action":"ping"}')  # in one segment with the answers
                await stream.send_all(masked(PONG, frame[1]) + request + masked(PONG, frame[1]))
        assert trips(live) <= answered


async def test_a_peer_that_answers_no_ping_is_closed_with_the_reason():
    async with serving(ping_s=0.05) as live:
        stream = await live.raw()
        reader, seen = Frames(stream), list[tuple[int, bytes]]()
        while (frame := await reader.next()) is not None:
            seen.append(frame)
            if frame[0] == CLOSE:
                await stream.send_all(masked(CLOSE, frame[1]))
        assert [first for first, _ in seen].count(PING) == 3
        (closing,) = (
            json.loads(payload)[0] for first, payload in seen if first == TEXT and b"closing" in payload
        )
        assert (closing["code"], closing["msg"]) == (4002, "three pings unanswered")
        assert seen[-1] == (CLOSE, b"\x0f\xa2three pings unanswered")
        await live.until_empty()
        assert live.counters.closes[CloseCode.IDLE] == 1
        assert trips(live) == 0


@pytest.mark.parametrize(
    ("path", "upgrade", "gone_s"),
    [("/v1/stream", True, 180), ("/v1/events?quotes=A", False, GONE_S)],
    ids=["WebSocket", "events"],
)
async def test_the_kernel_gives_up_on_a_peer_that_acknowledges_nothing(path, upgrade, gone_s):
    async with serving() as live:
        stream = await live.raw(path, upgrade)
        assert await stream.receive_some()
        while not live.shard.members:
            await trio.sleep(0.001)
        (member,) = live.shard.members
        assert isinstance(member.sink, Outbox)
        timeout_ms = member.sink._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert timeout_ms == gone_s * 1000
