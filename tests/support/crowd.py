"""Many sessions in one event loop, each checking its ticks; process and metrics checks."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
import trio_websocket

from tests.support.admin_client import get, samples
from tests.support.bench import Follower
from tests.support.conformance import check_messages, check_request

if TYPE_CHECKING:
    from tests.support.process import Engine


class Session:
    """Subscribes and checks every tick until closed; holes must be announced."""

    def __init__(self, port: int, request: dict[str, Any]) -> None:
        self.follower = Follower(every=True)
        self.synced = trio.Event()
        self.closing: dict[str, Any] | None = None
        self.ended = trio.Event()
        self.grown = trio.Event()
        self._port = port
        self._request = request

    async def run(self) -> None:
        """Read until the connection closes; raises the Follower's AssertionError."""
        try:
            async with trio.open_nursery() as nursery:
                stream = await trio.open_tcp_stream("127.0.0.1", self._port)
                try:
                    ws = await trio_websocket.wrap_client_stream(nursery, stream, "127.0.0.1", "/v1/stream")
                    request = json.dumps(self._request)
                    check_request(request)
                    await ws.send_message(request)
                    with suppress(trio_websocket.ConnectionClosed):
                        while True:
                            self._take(json.loads(await ws.get_message()))
                finally:
                    await trio.aclose_forcefully(stream)
                    nursery.cancel_scope.cancel()
        finally:
            self.ended.set()
            self.grown.set()

    def _take(self, messages: list[dict[str, Any]]) -> None:
        check_messages(messages)
        self.follower.follow(messages)
        for message in messages:
            if message["T"] == "synced":
                self.synced.set()
            elif message["T"] == "closing":
                self.closing = message
        self.grown.set()

    async def until(self, ticks: int) -> None:
        """Wait for ``ticks`` live ticks, or the end of the session."""
        while self.follower.count < ticks and not self.ended.is_set():
            self.grown = trio.Event()
            await self.grown.wait()

    async def begun(self) -> None:
        """Wait until the session is synced or has ended."""
        while not self.synced.is_set() and not self.ended.is_set():
            self.grown = trio.Event()
            await self.grown.wait()

    async def go_on(self, ticks: int) -> None:
        """Assert that ``ticks`` more live ticks arrive."""
        wanted = self.follower.count + ticks
        await self.until(wanted)
        assert self.follower.count >= wanted


class Roamer:
    """Reconnects by cursor on `closing`, and checks that no tick is missing."""

    def __init__(self, port: int, names: dict[str, Any]) -> None:
        self.follower = Follower(every=True)
        self.synced = trio.Event()
        self.returns = 0
        self.resets = 0
        self.interruptions_s: list[float] = []
        self._port = port
        self._names = names
        self._cursor: str | None = None
        self._heard_s = 0.0
        self._away = False

    async def run(self) -> None:
        """Read without end; raises for an unannounced hole and for a refused connection."""
        while True:
            request = {"action": "subscribe", **self._names}
            if self._cursor is not None:
                request["after"] = self._cursor
            session = _Stay(self, self._port, request)
            await session.run()
            assert session.closing is not None, "cut without a word"
            assert session.closing["code"] == 1001
            self.returns += 1
            self._away = True
            await trio.sleep(session.closing["retry_ms"] / 1000)

    def take(self, messages: list[dict[str, Any]]) -> None:
        """Record the cursor, and the time without ticks after a reconnect."""
        for message in messages:
            kind = message["T"]
            if kind == "subscription":
                self.resets += len(message.get("reset", ()))
            elif kind == "synced":
                self._cursor = message["cursor"]
                self.synced.set()
            elif kind in ("q", "t"):
                if self._away:
                    self._away = False
                    self.interruptions_s.append(trio.current_time() - self._heard_s)
                self._heard_s = trio.current_time()
                if self._cursor is not None and "snap" not in message:
                    self._cursor = f"{self._cursor.partition(':')[0]}:{message['g']}"


class _Stay(Session):
    def __init__(self, roamer: Roamer, port: int, request: dict[str, Any]) -> None:
        super().__init__(port, request)
        self.follower = roamer.follower
        self._roamer = roamer

    def _take(self, messages: list[dict[str, Any]]) -> None:
        super()._take(messages)
        self._roamer.take(messages)


async def join(nursery: trio.Nursery, running: Engine, count: int, request: dict[str, Any]) -> list[Session]:
    """Start ``count`` sessions in ``nursery``; return them once all are synced."""
    sessions = [Session(running.port, request) for _ in range(count)]
    for session in sessions:
        nursery.start_soon(session.run)
    for session in sessions:
        await session.synced.wait()
    return sessions


def workers(running: Engine) -> list[int]:
    """Return the PIDs of the engine's children."""
    return children(running.process.pid)


def children(pid: int) -> list[int]:
    """Return the PIDs of the children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def lives(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def metrics(running: Engine) -> dict[tuple[str, ...], float]:
    """Scrape the metrics; assert that every ledger adds up."""
    found = samples(get(running.admin_port, "/metrics")[2])
    for tier in [key[1] for key in found if key[0] == "marketfeed_matched_total"]:
        names = ("delivered_total", "conflated_total", "lost_total", "pending", "abandoned_total")
        assert found["marketfeed_matched_total", tier] == sum(found[f"marketfeed_{n}", tier] for n in names)
    return found
