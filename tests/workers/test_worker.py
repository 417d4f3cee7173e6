"""A worker in the test's process: its side of the control channel, with real sockets to clients."""

from __future__ import annotations

import os
import socket
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import trio
import trio_websocket

from marketfeed import __version__
from marketfeed.access.desk import Holder
from marketfeed.access.material import Material
from marketfeed.access.revocations import Revocation
from marketfeed.config.schema import DEFAULT_TIERS, Config, GatewayConfig, LatencyConfig, TierConfig
from marketfeed.core.records import QUOTE, Batch
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter
from marketfeed.workers.channel import Channel
from marketfeed.workers.messages import (
    Accepted,
    AccessChanged,
    AccessTaken,
    Admit,
    Alive,
    AskDesk,
    AskListing,
    AskOverview,
    AskReached,
    AskReport,
    CheckAlive,
    Connection,
    DeskAnswered,
    Down,
    Drain,
    Ended,
    EndSession,
    Failed,
    LeaveDesk,
    Listed,
    Overview,
    Reached,
    Ready,
    Release,
    Reported,
    Retire,
    Returned,
    Start,
    Synced,
    Up,
    Verdict,
)
from marketfeed.workers.worker import work
from tests.support.access import SECRET, Control
from tests.support.live import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ADDRESS = "127.0.0.1"
CONFIG = Config(
    gateway=GatewayConfig(port=0),
    tiers={name: msgspec.convert(tier, TierConfig) for name, tier in DEFAULT_TIERS.items()},
    latency=LatencyConfig(probe=False, interval_s=0.1),
)
UNSERVABLE = msgspec.structs.replace(CONFIG, gateway=GatewayConfig(tls_cert="no.pem", tls_key="no.key"))


class Engine:
    """The engine's end of one worker: rings with one symbol, listener and channel."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._rings = Rings.shared(8, 64, epoch="e1")
        self._symbols = SymbolTable(8, self._rings.names)
        self._writer = RingWriter(self._rings, time.time_ns)
        self._doorbell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._listener = socket.create_server((ADDRESS, 0))
        self.port: int = self._listener.getsockname()[1]
        ours, theirs = socket.socketpair()
        self.channel: Channel[Up] = Channel(ours, Up)  # type: ignore[arg-type]
        self._theirs: Channel[Down] = Channel(theirs, Down)  # type: ignore[arg-type]
        self.status: int | None = None
        self.ended = trio.Event()
        self._streams: list[trio.SocketStream] = []

    def publish(self, name: str) -> None:
        quotes = np.zeros(1, QUOTE)
        quotes["symbol"], quotes["bid_sz"], quotes["bid_px"] = self._symbols.intern(name), 1, 10**9
        quotes["ts_recv"] = time.time_ns()
        self._writer.write(Batch(quotes))
        os.eventfd_write(self._doorbell, 1)

    async def work(self) -> None:
        self.status = await work(self._theirs, self._rings.fd, self._doorbell)
        self.ended.set()

    async def start(self, config: Config = CONFIG, material: Material | None = None) -> None:
        """Start the worker, and wait until it is ready."""
        self.channel.send(Start(3, config, "/", self.port, material))
        ready = await self.next(Ready)
        assert ready.release == __version__
        assert ready.files > 0

    async def next(self, kind: type[Any]) -> Any:
        """Return the next message of ``kind``; others are dropped."""
        while (received := await self.channel.receive()) is not None:
            if isinstance(received[0], kind):
                return received[0]
        raise AssertionError(f"the channel ended before {kind.__name__}")

    async def connection(self, number: int) -> trio.SocketStream:
        """Return a TCP connection that the worker has accepted."""
        stream = await trio.open_tcp_stream(ADDRESS, self.port)
        self._streams.append(stream)
        accepted, _ = self._listener.accept()
        with accepted:
            self.channel.send(Connection(number, ADDRESS), accepted.fileno())
        assert (await self.next(Accepted)).number == number
        return stream

    async def session(self, number: int) -> Client:
        """Return a session that has been admitted, and has received `connected`."""
        stream = await self.connection(number)
        self._nursery.start_soon(self._admit)
        host = f"{ADDRESS}:{self.port}"
        client = Client(await trio_websocket.wrap_client_stream(self._nursery, stream, host, "/v1/stream"))
        assert (await client.next())["msg"] == "connected"
        return client

    async def authenticated(self, number: int, token: str) -> tuple[Client, str]:
        """Return a session that has entered the desk, and its id."""
        client = await self.session(number)
        await client.send(action="auth", token=token)
        asked = await self.next(AskDesk)
        assert asked.call.holder == Holder("ann", "")
        self.channel.send(DeskAnswered(asked.number))
        assert (await client.next("success"))["msg"] == "authenticated"
        return client, asked.call.session

    async def _admit(self) -> None:
        admit = await self.next(Admit)
        assert admit.address == ADDRESS
        self.channel.send(Verdict(admit.number, None))

    async def aclose(self) -> None:
        for stream in self._streams:
            await trio.aclose_forcefully(stream)
        self.channel.close()
        self._theirs.close()
        self._listener.close()
        os.close(self._doorbell)


@asynccontextmanager
async def engine() -> AsyncIterator[Engine]:
    """Run a worker, which waits for its first message."""
    async with trio.open_nursery() as nursery:
        end = Engine(nursery)
        nursery.start_soon(end.work)
        try:
            with trio.fail_after(20):
                yield end
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await end.aclose()


async def test_a_session_is_admitted_served_and_accounted_for():
    async with engine() as end:
        await end.start()
        end.publish("A")
        client = await end.session(7)
        await client.send(action="subscribe", quotes=["A"])
        snapshot = await client.next("q")
        assert (snapshot["S"], snapshot["snap"]) == ("A", 1)
        assert (await end.next(Synced)).count == 1

        end.publish("A")
        assert (await client.next("q"))["n"] == 2
        end.channel.send(AskReached(1, 2))
        assert (await end.next(Reached)).number == 1
        end.channel.send(AskReport(2))
        while (reported := await end.next(Reported)).number != 2:
            pass
        assert reported.report.sessions["websocket", "vip"] == 1
        assert reported.report.ledgers["vip"].delivered == 1
        end.channel.send(AskListing(3, 10, only_slow=False))
        listed = await end.next(Listed)
        assert (listed.number, listed.listing.sessions, listed.listing.slow) == (3, 1, 0)
        (row,) = listed.listing.shown
        assert (row.tier, row.state, row.symbols.quotes, row.slow) == ("vip", "live", 1, None)
        end.channel.send(AskListing(4, 10, only_slow=True))
        assert (await end.next(Listed)).listing.shown == []

        await client.ws.aclose()
        assert (await end.next(Release)).address == ADDRESS
        assert (await end.next(Ended)).number == 7


async def test_a_session_that_the_engine_does_not_admit_is_refused():
    async with engine() as end:
        await end.start()
        stream = await end.connection(1)
        await stream.send_all(
            f"GET /v1/events?quotes=A HTTP/1.1\r\nHost: {ADDRESS}:{end.port}\r\n\r\n".encode()
        )
        admit = await end.next(Admit)
        end.channel.send(Verdict(admit.number, "sessions"))
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 503")
        await stream.aclose()
        assert (await end.next(Ended)).number == 1


async def test_latencies_that_a_client_asks_for_are_the_engines():
    async with engine() as end:
        await end.start()
        stream = await end.connection(1)
        await stream.send_all(f"GET /v1/latency HTTP/1.1\r\nHost: {ADDRESS}:{end.port}\r\n\r\n".encode())
        asked = await end.next(AskOverview)
        end.channel.send(Overview(asked.number, {"tiers": {}}))
        assert (await stream.receive_some()).endswith(b'{"tiers":{}}')
        await stream.aclose()


async def test_it_answers_that_it_is_alive():
    async with engine() as end:
        await end.start()
        end.channel.send(CheckAlive())
        assert await end.next(Alive) == Alive()


async def test_a_connection_whose_descriptor_was_lost_is_returned():
    async with engine() as end:
        await end.start()
        end.channel.send(Connection(9, ADDRESS))
        assert (await end.next(Returned)).number == 9


@pytest.mark.parametrize("how", [Drain(5.0), Retire(5.0, 0.0)], ids=["drain", "retire"])
async def test_it_closes_its_sessions_and_ends_with_a_last_report(how):
    async with engine() as end:
        await end.start()
        client = await end.session(1)
        end.channel.send(how)
        closed, messages = await client.closed()
        assert (closed, messages[-1]["T"]) == (1001, "closing")
        while (reported := await end.next(Reported)).report.closes != {1001: 1}:
            pass
        assert reported.number == 0
        await end.ended.wait()
        assert end.status == 0


async def test_a_drain_ends_a_retirement_in_progress():
    async with engine() as end:
        await end.start()
        client = await end.session(1)
        end.channel.send(Retire(3600.0, 3600.0))
        end.channel.send(Drain(5.0))
        assert (await client.closed())[0] == 1001
        await end.ended.wait()
        assert end.status == 0


async def test_it_ends_when_the_engine_has_ended():
    async with engine() as end:
        await end.start()
        end.channel.close()
        await end.ended.wait()
        assert end.status == 0


async def test_it_ends_if_the_engine_ends_before_the_first_message():
    async with engine() as end:
        end.channel.close()
        await end.ended.wait()
        assert end.status == 1


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (CheckAlive(), "CheckAlive before Start"),
        (Start(0, UNSERVABLE, "/", 1), "no.pem"),
    ],
    ids=["another first message", "a missing certificate"],
)  # fmt: skip
async def test_what_keeps_it_from_starting_is_reported(first, reason):
    async with engine() as end:
        end.channel.send(first)
        assert reason in (await end.next(Failed)).reason
        await end.ended.wait()
        assert end.status == 2


def controlled() -> tuple[Config, Material, str]:
    """Return a configuration with access control, its keys, and a token of ann."""
    auth = Control().config.auth
    return msgspec.structs.replace(CONFIG, auth=auth), Material(key=SECRET.encode()), Control().token(["*"])


async def test_sessions_enter_and_leave_the_desk_of_the_engine():
    config, material, token = controlled()
    async with engine() as end:
        await end.start(config, material)
        client, session = await end.authenticated(1, token)
        await client.ws.aclose()
        assert await end.next(LeaveDesk) == LeaveDesk(session)


async def test_a_revocation_ends_sessions_and_their_number_is_told():
    config, material, token = controlled()
    async with engine() as end:
        await end.start(config, material)
        client, _ = await end.authenticated(1, token)
        other = Revocation("sub", "bob", time.time())
        more = msgspec.structs.replace(material, revocations=(other,))
        end.channel.send(AccessChanged(4, config.auth, more, other))
        assert await end.next(AccessTaken) == AccessTaken(4, 0)
        revocation = Revocation("sub", "ann", time.time())
        more = msgspec.structs.replace(material, revocations=(other, revocation))
        end.channel.send(AccessChanged(5, config.auth, more, revocation))
        assert await end.next(AccessTaken) == AccessTaken(5, 1)
        assert (await client.closed())[0] == 4502


async def test_a_token_is_verified_by_the_keys_that_came_last():
    config, material, token = controlled()
    async with engine() as end:
        await end.start(config, Material(key=b"another secret of 32 bytes or more"))
        end.channel.send(AccessChanged(0, config.auth, material))
        assert await end.next(AccessTaken) == AccessTaken(0, 0)
        await end.authenticated(1, token)


async def test_a_session_ends_when_its_ticket_has_opened_another():
    config, material, token = controlled()
    async with engine() as end:
        await end.start(config, material)
        client, session = await end.authenticated(1, token)
        end.channel.send(EndSession("0" * 16, 4501))
        end.channel.send(EndSession(session, 4501))
        assert (await client.closed())[0] == 4501
        assert await end.next(LeaveDesk) == LeaveDesk(session)
