"""The servers of all lives as one: whom connections, keys, quotas and statistics go to. No sockets."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from marketfeed.access.quotas import Over
from marketfeed.api.messages import Source
from marketfeed.api.operations import SessionList
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.errors import CloseCode, StartError
from marketfeed.fanout.ledger import Ledger
from marketfeed.server.life import Life
from marketfeed.server.lives import Lives
from marketfeed.server.stats import ServerStats

OVER = [Over("acme", "max_ticks_per_day", "stop")]
STALE = Source("s0", "stale", 1)


class Server:
    """A server that records its calls. It has room if ``room`` is set, and retires when ``left`` is."""

    def __init__(self, name: str, failure: StartError | None = None) -> None:
        self.name, self.failure = name, failure
        self.calls: list[tuple[str, Any]] = []
        self.taken: list[str] = []
        self.room, self.left = trio.Event(), trio.Event()
        self.alerts: Any = None
        self.sessions = self.synced_sessions = 1
        self.wake = lambda: None

    def __len__(self) -> int:
        return self.sessions

    async def start(self, port: int, nursery: trio.Nursery) -> None:
        self.calls.append(("start", port))
        if self.failure is not None:
            raise self.failure

    async def take(self, sock: socket.socket, address: str) -> None:
        await self.room.wait()
        self.taken.append(address)

    async def retire(self, drain_s: float, spread_s: float | None) -> None:
        self.calls.append(("retire", spread_s))
        await self.left.wait()
        self.sessions = 0

    async def drain(self, drain_s: float) -> None:
        self.calls.append(("drain", drain_s))

    async def revoke(self, auth: Any, material: Any, revocation: Any) -> int:
        return self.sessions

    async def statistics(self) -> ServerStats:
        counts = {("websocket", "vip"): self.sessions} if self.sessions else {}
        ledger = Ledger(matched=10, delivered=9, pending=1)
        return ServerStats(sessions=counts, accepted=1, ledgers={"vip": ledger}, cpu_s={"engine": 1e9})

    async def ledgers(self) -> dict[str, Ledger]:
        return (await self.statistics()).ledgers

    async def listing(self, limit: int, only_slow: bool) -> SessionList:
        return SessionList(self.sessions, 0, [])

    def problems(self) -> list[str]:
        return [self.name]

    warnings = problems

    def __getattr__(self, call: str) -> Any:
        if call not in ("limit", "renew_access", "end_session", "source_state", "elsewhere"):
            raise AttributeError(call)
        return lambda *arguments: self.calls.append((call, arguments))


def life_of(server: Any) -> Life:
    rings = Rings.shared(1, 4, server.name)
    life = Life(rings, SymbolTable(1, rings.names))
    life.server = server
    return life


@pytest.fixture
async def bench(nursery):
    """Two servers, of which the first serves, and the lives."""
    first, second = Server("first"), Server("second")
    lives = Lives(life_of(first))
    await lives.start(7, nursery)
    return lives, first, second


async def test_what_holds_for_all_reaches_lives_that_retire_and_those_that_begin(bench):
    lives, first, second = bench
    lives.alerts = dispatch = object()
    lives.limit(OVER)
    lives.source_state(STALE)
    lives.elsewhere(["http://b:1"])
    await lives.exchange(life_of(second))
    assert lives.alerts is second.alerts is dispatch
    assert second.calls == [
        ("elsewhere", (["http://b:1"],)), ("source_state", (STALE,)), ("start", 7), ("limit", (OVER,)),
    ]  # fmt: skip
    assert lives.rings.epoch == "second"
    await wait_all_tasks_blocked()
    assert first.calls[-1] == ("retire", None)
    lives.end_session("x", CloseCode.REVOKED)
    lives.renew_access(None, None)
    assert first.calls[-2:] == second.calls[-2:]
    assert await lives.revoke(None, None, None) == 2
    assert (lives.problems(), lives.warnings()) == (["second"], ["second"])
    first.left.set()
    await wait_all_tasks_blocked()
    lives.limit([])
    assert first.calls[-1] != ("limit", ([],))


async def test_statistics_add_up_over_lives(bench):
    lives, first, second = bench
    await lives.exchange(life_of(second))
    for retired in (False, True):
        if retired:
            first.left.set()
            await wait_all_tasks_blocked()
        found = await lives.statistics()
        assert found.accepted == 2
        assert found.sessions["websocket", "vip"] == len(lives) == lives.synced_sessions == 2 - retired
        ledger = found.ledgers["vip"]
        assert (ledger.matched, ledger.delivered) == (20, 18)
        assert (ledger.pending, ledger.abandoned) == (2 - retired, retired)
        assert (await lives.ledgers())["vip"] == ledger
        assert found.cpu_s["engine"] < 1e8  # of the process, once
        assert (await lives.listing(5, only_slow=False)).sessions == 2 - retired
    assert lives.exchanges == 1


async def test_a_connection_that_waits_for_room_goes_to_the_next_life(bench, nursery):
    lives, first, second = bench
    second.room.set()
    with socket.socket() as sock:
        nursery.start_soon(lives.take, sock, "10.0.0.1")
        await wait_all_tasks_blocked()
        await lives.exchange(life_of(second))
        await wait_all_tasks_blocked()
        assert (first.taken, second.taken) == ([], ["10.0.0.1"])


async def test_a_life_that_cannot_start_changes_nothing(bench):
    lives, first, _ = bench
    life = life_of(Server("second", StartError("no worker")))
    with pytest.raises(StartError, match="no worker"):
        await lives.exchange(life)
    await wait_all_tasks_blocked()
    assert lives.rings.epoch == "first"
    assert (len(lives), life.rings.fd) == (1, -1)
    assert first.calls == [("start", 7)]


async def test_a_drain_ends_all_lives(bench):
    lives, first, second = bench
    await lives.exchange(life_of(second))
    await wait_all_tasks_blocked()
    await lives.drain(2.0)
    assert first.calls[-1] == second.calls[-1] == ("drain", 2.0)


async def test_a_life_waits_for_its_own_sessions():
    server = Server("first")
    life = life_of(server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(life.wait_sessions, 2)
        await wait_all_tasks_blocked()
        server.synced_sessions = 2
        life.on_synced()
    life.end()
    life.end()
    assert life.rings.fd == -1
