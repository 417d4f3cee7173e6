"""The driver of a feed on trio, at an engine that a test writes by hand, over streams in memory."""

from __future__ import annotations

import json
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage

from marketfeed.client import Alert, Quote
from marketfeed.client.address import endpoint
from marketfeed.client.batch import Batch
from marketfeed.client.core import Core, Settings
from marketfeed.client.driver import MOST_NEWS, Driver
from marketfeed.client.feed import Feed
from marketfeed.client.newest import Newest
from marketfeed.client.nodes import Nodes
from marketfeed.client.trio_backend import TrioBackend, TrioStream
from marketfeed.errors import RequestRefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BUFFER_BYTES = 4000


ALERT: dict[str, Any] = {
    "T": "a",
    "key": "k",
    "rule": "notice",
    "S": "",
    "sev": "info",
    "state": "notice",
    "v": None,
    "th": None,
    "t": 0,
    "r": 0,
    "msg": "x" * 100,
    "try": 1,
    "ack": True,
    "suppressed": 0,
}
QUOTE: dict[str, Any] = {"T": "q", "S": "A", "bp": 1.5, "bs": 1.0, "ap": None, "as": 0.0, "t": 0, "r": 1}


class Engine(TrioBackend):
    """An event loop in which all connections lead to this engine."""

    def __init__(self) -> None:
        super().__init__()
        self.reachable = trio.Event()
        self.reachable.set()
        self.asked: list[dict[str, Any]] = []
        self.hosts: list[str] = []  # to which it was connected, and that of the handshake
        self.received_bytes = 0
        self.closed: int | None = None
        self.acks = True  # whether it answers acknowledgements
        self._connected = trio.Event()

    async def open(self, host: str, port: int, tls: Any, timeout_s: float) -> Any:
        await self.reachable.wait()
        self.hosts.append(host)
        ours, self._stream = memory_stream_pair()
        self._ws = WSConnection(ConnectionType.SERVER)
        self._connected.set()
        return TrioStream(ours)  # type: ignore[arg-type]

    async def serve(self) -> None:
        """Answer what comes over the connection."""
        await self._connected.wait()
        while data := await self._stream.receive_some():
            self.received_bytes += len(data)
            self._ws.receive_data(bytes(data))
            for event in self._ws.events():
                match event:
                    case Request():
                        self.hosts.append(event.host)
                        await self._stream.send_all(self._ws.send(AcceptConnection()))
                        hello = {
                            "T": "success",
                            "msg": "connected",
                            "protocol": 1,
                            "epoch": "e",
                            "session": "s",
                        }
                        await self.say(hello | {"tiers": {"vip": "every"}})
                    case TextMessage():
                        await self._answer(json.loads(event.data))
                    case CloseConnection():
                        self.closed = int(event.code)
                        if self._ws.state is ConnectionState.REMOTE_CLOSING:
                            await self._stream.send_all(self._ws.send(event.response()))
                        await self._stream.send_eof()

    async def _answer(self, asked: dict[str, Any]) -> None:
        self.asked.append(asked)
        number = asked["id"]
        if asked["action"] == "subscribe":
            names = {name: asked.get(name, []) for name in ("quotes", "trades", "alerts")}
            answer = {"T": "subscription", "tier": "vip", "encoding": "json", "id": number} | names
            await self.say(answer, {"T": "synced", "cursor": "e:1", "id": number})
            if names["alerts"]:
                await self.alert("a")
        elif asked["action"] == "ack" and self.acks:
            await self.say({"T": "acked", "alerts": asked["alerts"], "id": number})

    async def say(self, *messages: dict[str, Any]) -> None:
        await self._stream.send_all(self._ws.send(TextMessage(json.dumps(messages))))

    async def alert(self, *ids: str) -> None:
        """Deliver alerts of about 250 bytes, each in a message."""
        for id_ in ids:
            await self.say(ALERT | {"id": id_})

    async def quotes(self, begin: int, end: int) -> None:
        for n in range(begin, end):
            await self.say(QUOTE | {"n": n, "g": n + 1})


def driver_of(engine: Engine) -> Driver:
    where = endpoint("ws://engine:1/v1/stream")
    return Driver(Core(Settings("engine", "/v1/stream")), Nodes([where]), engine, None, BUFFER_BYTES, 10.0)


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[Feed]:
    """Run a feed and the engine within the block."""
    driver = driver_of(engine)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.serve)
        nursery.start_soon(driver.run)
        await wait_all_tasks_blocked()
        yield Feed(driver)
        driver.close()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_feed_goes_where_closing_sends_it(autojump_clock):
    engine = Engine()
    async with running(engine) as feed, trio.open_nursery() as nursery:
        engine._connected = trio.Event()
        await engine.say({"T": "closing", "code": 1001, "msg": "x", "retry_ms": 5, "url": "http://b:2"})
        await engine._stream.send_all(engine._ws.send(CloseConnection(1001)))
        nursery.start_soon(engine.serve)
        while "b:2" not in engine.hosts:
            await trio.sleep(0.01)
        assert engine.hosts == ["engine", "engine:1", "b", "b:2"]
        feed.close()
        nursery.cancel_scope.cancel()


async def alerts_of(feed: Feed) -> list[str]:
    """Return the ids of the alerts among the messages until now."""
    await wait_all_tasks_blocked()
    feed.close()
    return [message.id async for message in feed if isinstance(message, Alert)]


async def test_an_alert_acknowledges_itself():
    engine = Engine()
    async with running(engine) as feed:
        await feed.subscribe(alerts=["*"], consumer="risk")
        async for message in feed:
            if isinstance(message, Alert):
                await message.acknowledge()
                break
    assert engine.asked[-1]["alerts"] == ["a"]


async def test_a_feed_that_is_closed_while_it_connects_begins_no_session():
    engine = Engine()
    engine.reachable = trio.Event()
    async with running(engine) as feed:
        feed.close()
        engine.reachable.set()
        await wait_all_tasks_blocked()
        assert feed.state.name == "disconnected"
    assert engine.received_bytes == 0


async def test_after_a_loop_over_alerts_they_are_messages_again():
    engine = Engine()
    async with running(engine) as feed:
        async for alert in feed.alerts(consumer="risk"):
            assert alert.id == "a"
            break
        await engine.alert("b")
        assert await alerts_of(feed) == ["b"]


async def test_a_slow_loop_over_alerts_stops_the_reading_and_misses_none():
    engine = Engine()
    many = ["a", *map(str, range(100))]
    async with running(engine) as feed:
        found = []
        async for alert in feed.alerts(consumer="risk"):
            found.append(alert.id)
            if len(found) == 1:
                await engine.alert(*many[1:])
                await wait_all_tasks_blocked()
                assert feed.statistics().alerts < 30
            if alert.id == many[-1]:
                break
        assert found == many


async def test_a_full_queue_of_alerts_whose_loop_has_ended_does_not_stop_the_reading():
    engine = Engine()
    async with running(engine) as feed:
        async for _ in feed.alerts(consumer="risk"):
            await engine.alert(*map(str, range(100)))
            await wait_all_tasks_blocked()
            break
        async with trio.open_nursery() as nursery:
            nursery.start_soon(alerts_of, feed)
        assert feed.statistics().alerts > 30


async def test_an_alert_that_comes_again_while_it_waits_is_queued_once():
    engine = Engine()
    async with running(engine) as feed:
        found = []
        async for alert in feed.alerts(consumer="risk"):
            found.append(alert.id)
            if alert.id == "a":
                await engine.alert("b", "b", "b", "c")
                await wait_all_tasks_blocked()
            if alert.id == "c":
                break
        assert found == ["a", "b", "c"]


async def test_what_the_engine_tells_about_the_session_does_not_fill_the_buffer_of_a_loop_over_alerts():
    engine = Engine()
    error = {"T": "error", "code": 429, "msg": "x" * 200}
    async with running(engine) as feed:
        async with trio.open_nursery() as nursery:
            alerts = feed.alerts(consumer="risk")
            await anext(alerts)
            nursery.start_soon(alerts.__anext__)
            await wait_all_tasks_blocked()
            for _ in range(MOST_NEWS + 100):
                await engine.say(error)
                await wait_all_tasks_blocked()
            await engine.alert("b")
        assert len(await feed.driver.take_all()) == MOST_NEWS


async def test_a_refused_acknowledgement_fails_only_the_call_that_asked_for_it():
    engine = Engine()
    engine.acks = False
    settled = []

    async def acknowledge(feed: Feed, alert: str) -> None:
        await feed.acknowledge([alert])
        settled.append(alert)

    async with running(engine) as feed, trio.open_nursery() as nursery:
        nursery.start_soon(acknowledge_refused, feed)
        await wait_all_tasks_blocked()
        nursery.start_soon(acknowledge, feed, "b")
        await wait_all_tasks_blocked()
        engine.acks = True
        await engine.say({"T": "error", "code": 410, "msg": "no consumer", "id": engine.asked[-1]["id"]})
        await wait_all_tasks_blocked()
    assert settled == ["b"]


async def acknowledge_refused(feed: Feed) -> None:
    with pytest.raises(RequestRefusedError):
        await feed.acknowledge(["a"])


async def test_a_slow_caller_stops_the_reading_and_loses_nothing():
    engine = Engine()
    async with running(engine) as feed:
        await feed.subscribe(quotes=["A"])
        await engine.quotes(1, 200)
        await wait_all_tasks_blocked()
        assert feed.statistics().quotes < 100
        found = []
        async for message in feed:
            if isinstance(message, Quote):
                found.append(message.n)
                if message.n == 199:
                    break
        assert found == list(range(1, 200))
        assert feed.statistics().lost + feed.statistics().silently_lost == 0


async def test_ticks_do_not_wake_the_sender():
    engine = Engine()
    async with running(engine) as feed:
        await feed.subscribe(quotes=["A"])
        await wait_all_tasks_blocked()
        wake = feed.driver._wake
        await engine.quotes(1, 5)
        await wait_all_tasks_blocked()
        assert feed.statistics().quotes == 4
        assert feed.driver._wake is wake


async def test_a_cancelled_caller_closes_with_1000():
    engine = Engine()
    engine_ended = trio.Event()

    async def serve() -> None:
        await engine.serve()
        engine_ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with trio.CancelScope() as scope:
            driver = driver_of(engine)
            async with engine.background(driver.run):
                await wait_all_tasks_blocked()
                scope.cancel()
                await trio.sleep_forever()
        await engine_ended.wait()
    assert engine.closed == 1000


@pytest.mark.parametrize(("off_s", "age_s"), [(3600, 0.0), (-3600, 3600.0)])
def test_the_age_of_a_tick_is_never_negative_though_a_clock_is_off_by_an_hour(monkeypatch, off_s, age_s):
    now_s = 1_700_000_000
    monkeypatch.setattr(time, "time_ns", lambda: now_s * 10**9)
    quote = msgspec.convert(QUOTE | {"n": 1, "g": 1, "r": (now_s + off_s) * 10**6}, Quote)
    assert Feed.age_s(quote) == age_s


def test_without_pandas_a_frame_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"^pandas is not installed: pip install pandas$"):
        Batch([], 0).to_pandas()
    with pytest.raises(ImportError, match=r"^pandas is not installed: pip install pandas$"):
        Newest().frame("trades")
