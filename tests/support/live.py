"""A gateway over real sockets in the test's event loop, with a writer driven by the test."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import trio
import trio_websocket

from marketfeed.alerts.delivery import DeliveryLimits
from marketfeed.alerts.dispatch import Dispatch
from marketfeed.alerts.sqlite_log import open_log
from marketfeed.core.binary import FrameParser, Kind
from marketfeed.core.compressed import inflated, is_compressed
from marketfeed.core.records import QUOTE, Batch
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.units import MS
from marketfeed.core.writer import RingWriter
from marketfeed.fanout.keepalive import Timing
from marketfeed.fanout.shard import Shard
from marketfeed.fanout.tiers import Tier
from marketfeed.fanout.wire import JSON, Encoding
from marketfeed.gateway.connections import Gateway
from marketfeed.gateway.expiries import Expiries
from marketfeed.gateway.limits import Admission, Counters, Limits
from marketfeed.gateway.listener import accept_from, open_listener
from marketfeed.gateway.live_alerts import LiveViews
from marketfeed.gateway.proxies import Proxies
from marketfeed.gateway.session import Service
from tests.support.conformance import check_messages

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator
    from pathlib import Path

    from marketfeed.access.access import Access
    from marketfeed.gateway.hosts import Hosts
    from marketfeed.gateway.overview import Overview
    from marketfeed.gateway.tls import Certificate

S = 1_000_000_000
Headers = Sequence[tuple[bytes, bytes]]
LIMITS = Limits(
    request_bytes=4096,
    symbols_per_session=5,
    sessions=4,
    sessions_per_ip=4,
    requests_per_s=50,
    handshake_s=10.0,
)
DELIVERY = DeliveryLimits(max_tries=10, in_flight=1000)
HASTY = replace(LIMITS, handshake_s=0.3)  # only for tests of the deadline: busy machines miss it
PATIENT = replace(
    LIMITS, handshake_s=1.5
)  # likewise, with a handshake in time: trio-websocket hangs if it is not


class Live:
    """A running gateway with its writer and connections."""

    def __init__(self, service: Service, gateway: Gateway, port: int, writer: RingWriter) -> None:
        self.service = service
        self.shard = service.shard
        self.counters = service.counters
        self.gateway = gateway
        self.port = port
        self._writer = writer
        self._streams: list[trio.SocketStream] = []

    @property
    def admitted(self) -> int:
        """Return how many sessions count towards the limits."""
        assert isinstance(self.service.admission, Admission)
        return self.service.admission.total

    def publish(self, *names: str) -> None:
        quotes = np.zeros(len(names), QUOTE)
        quotes["symbol"] = [self.shard.symbols.intern(name) for name in names]
        quotes["bid_px"], quotes["ask_px"], quotes["bid_sz"], quotes["ask_sz"] = 10**9, 2 * 10**9, 1, 2
        quotes["ts_recv"] = time.time_ns()
        self.write(Batch(quotes))

    def write(self, batch: Batch) -> None:
        """Publish ticks of known symbols."""
        self._writer.write(batch)
        self.shard.wake()

    @staticmethod
    async def read_to_end(stream: trio.SocketStream) -> None:
        """Discard input until the end; raises BrokenResourceError on a reset."""
        while await stream.receive_some():
            pass

    async def until_empty(self) -> None:
        """Wait until no session is left."""
        while self.gateway.sessions or self.shard.members:
            await trio.sleep(0.001)

    async def connect(self) -> trio.SocketStream:
        """Return a TCP connection."""
        self._streams.append(await trio.open_tcp_stream("127.0.0.1", self.port))
        return self._streams[-1]

    async def aclose(self) -> None:
        for stream in self._streams:
            await trio.aclose_forcefully(stream)

    async def raw(
        self, path: str = "/v1/stream", upgrade: bool = True, headers: str = ""
    ) -> trio.SocketStream:
        """Return a connection with a sent, unanswered handshake request."""
        stream = await self.connect()
        await stream.send_all(self.handshake(path, upgrade, headers))
        return stream

    def handshake(self, path: str = "/v1/stream", upgrade: bool = True, headers: str = "") -> bytes:
        """Return a client's handshake request."""
        key = base64.b64encode(b"0123456789abcdef").decode()
        lines = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{headers}"
        if upgrade:
            lines += (
                "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            )
        return f"{lines}\r\n".encode()


async def http(
    live: Live, method: str, target: str, body: Any = None, headers: Headers = ()
) -> tuple[int, Any]:
    """Return status and body of one request, with JSON or bytes, on a connection of its own."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    stream = await live.connect()
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(data)}\r\n"
    await stream.send_all(head.encode() + lines + b"\r\n" + data)
    answer = b""
    while more := await stream.receive_some():
        answer += more
    first, _, rest = answer.partition(b"\r\n\r\n")
    return int(first.split()[1]), json.loads(rest) if rest else None


@asynccontextmanager
async def serving_alerts(
    folder: Path, delivery: DeliveryLimits = DELIVERY, **settings: Any
) -> AsyncIterator[tuple[Live, Dispatch]]:
    """Run a gateway with the alerts of a log in ``folder``; ``settings`` are those of :func:`serving`."""
    async with open_log(folder / "alerts.db") as log, trio.open_nursery() as nursery:
        dispatch = await Dispatch.started(log, delivery, time.time_ns)
        nursery.start_soon(dispatch.run)
        async with serving(alerts=dispatch, **settings) as live:
            yield live, dispatch
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def serving(
    limits: Limits = LIMITS,
    stall_s: float = 10.0,
    ping_s: float = 60.0,
    encoding: Encoding = JSON,
    trusted: tuple[str, ...] = (),
    certificate: Certificate | None = None,
    symbols: int = 256,
    alerts: Dispatch | None = None,
    access: Access | None = None,
    overview: Overview | None = None,
    hosts: Hosts | None = None,
    seconds: float = 20,
) -> AsyncIterator[Live]:
    """Run a gateway on a free port for at most so many ``seconds``; ``alerts`` runs already."""
    rings = Rings.private(symbols, 64, epoch="e1")
    timing = Timing(int(20 * S), int(ping_s * S), int(stall_s * S))
    shard = Shard(rings, SymbolTable(symbols), timing, 1000, time.time_ns)
    tiers = {
        "vip": Tier("vip", 0, True, 65536),
        "premium": Tier("premium", 20 * MS, False, 65536),
    }
    expiries = None if access is None else Expiries(access.now_s)
    service = Service(
        shard=shard,
        tiers=tiers,
        default_tier=tiers["vip"],
        limits=limits,
        allowed_origins=frozenset({"http://good.example"}),
        admission=Admission(limits),
        counters=Counters(),
        encoding=encoding,
        proxies=Proxies(trusted),
        certificate=certificate,
        alerts=alerts,
        views=None if alerts is None else LiveViews(alerts, shard),
        access=access,
        expiries=expiries,
        overview=overview,
        hosts=hosts,
    )
    listener = await open_listener("127.0.0.1", 0)
    gateway = Gateway(service)
    with listener:
        async with trio.open_nursery() as nursery:

            async def take(sock: socket.socket, address: str) -> None:
                nursery.start_soon(gateway.serve, sock, address, nursery)

            nursery.start_soon(shard.run)
            if service.views is not None:
                nursery.start_soon(service.views.run)
            if access is not None and expiries is not None:
                access.on_change.append(lambda: nursery.start_soon(gateway.recheck))
                nursery.start_soon(expiries.run)
            nursery.start_soon(accept_from, listener, service.counters, take)
            live = Live(service, gateway, listener.getsockname()[1], RingWriter(rings))
            try:
                with trio.fail_after(seconds):
                    yield live
            finally:
                await live.aclose()
                nursery.cancel_scope.cancel()


def messages_of(frame: str | bytes) -> list[dict[str, Any]]:
    """Return the messages of a frame in any encoding; a binary tick is a record under ``R``."""
    if isinstance(frame, bytes) and is_compressed(frame):
        return [{**message, "compressed": True} for message in messages_of(inflated(frame))]
    if isinstance(frame, str):
        messages: list[dict[str, Any]] = json.loads(frame)
        check_messages(messages)
        return messages
    parser = FrameParser()
    parser.feed(frame)
    found: list[dict[str, Any]] = []
    for part in parser:
        match part.kind:
            case Kind.SYMBOLS:
                found.append({"T": "symbols", "ids": part.symbols(), "binary": True})
            case Kind.MESSAGES:
                found += [{**message, "binary": True} for message in part.messages()]
            case Kind.QUOTES | Kind.TRADES:
                found += [{"T": "tick", "R": record, "binary": True} for record in part.records()]
            case Kind.HEARTBEAT:
                found.append({"T": "heartbeat", "binary": True})
    return found


class Client:
    """A WebSocket client that reads messages one by one."""

    def __init__(self, ws: trio_websocket.WebSocketConnection) -> None:
        self.ws = ws
        self._messages: list[dict[str, Any]] = []

    async def send(self, **request: Any) -> None:
        await self.ws.send_message(json.dumps(request))

    async def next(self, kind: str | None = None) -> dict[str, Any]:
        """Return the next message, or the next of ``kind``."""
        while True:
            while not self._messages:
                self._messages = messages_of(await self.ws.get_message())
            message = self._messages.pop(0)
            if kind is None or message["T"] == kind:
                return message

    async def closed(self) -> tuple[int, list[dict[str, Any]]]:
        """Read to the end; return the close code and the messages before it."""
        messages = list(self._messages)
        while True:
            try:
                messages += messages_of(await self.ws.get_message())
            except trio_websocket.ConnectionClosed as closed:
                return closed.reason.code if closed.reason else 1006, messages


@asynccontextmanager
async def connected(live: Live, path: str = "/v1/stream", headers: Headers = ()) -> AsyncIterator[Client]:
    """Open a session and read its first message."""
    async with trio.open_nursery() as nursery:
        # On our own stream: trio-websocket's client leaves its stream open if the
        # server closes first.
        stream = await live.connect()
        ws = await trio_websocket.wrap_client_stream(
            nursery, stream, "127.0.0.1", path, extra_headers=list(headers)
        )
        client = Client(ws)
        first = await client.next()
        assert first["T"] == "success"
        assert (first["msg"], first["protocol"], first["epoch"]) == ("connected", 1, "e1")
        try:
            yield client
        finally:
            await ws.aclose()
            await trio.aclose_forcefully(stream)
