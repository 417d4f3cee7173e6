"""What the pool does with messages and ends of workers: admission, statistics, connections. No processes."""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from marketfeed.access.desk import Holder, LocalDesk
from marketfeed.access.material import Material
from marketfeed.access.quotas import Over
from marketfeed.access.revocations import Revocation
from marketfeed.access.usage import Interval, Report
from marketfeed.api.messages import Source
from marketfeed.config.schema import AuthConfig, Config, EngineConfig
from marketfeed.core.rings import Rings
from marketfeed.errors import CloseCode
from marketfeed.gateway.limits import Admission, Limits
from marketfeed.gateway.overview import EngineNow, FeedNow
from marketfeed.server.stats import ServerStats
from marketfeed.workers import pool as pools
from marketfeed.workers.alert_messages import Head, Take, encode_call
from marketfeed.workers.desk_messages import Enter
from marketfeed.workers.messages import (
    AccessChanged,
    Admit,
    AlertsAnswered,
    AskAlerts,
    AskDesk,
    AskOverview,
    CancelAlerts,
    DeskAnswered,
    Elsewhere,
    EndSession,
    LeaveAlerts,
    LeaveDesk,
    Limit,
    Measured,
    Metered,
    Overview,
    Ready,
    Release,
    Reported,
    Returned,
    SourceChanged,
    Synced,
    Verdict,
)
from marketfeed.workers.requests import Requests

if TYPE_CHECKING:
    from marketfeed.access.desk import Desk

LIMITS = Limits(4096, 100, sessions=10, sessions_per_ip=2, requests_per_s=10.0, handshake_s=5.0)
ADDRESS = "10.0.0.1"
ENGINE = EngineNow((FeedNow(0, "demo", "down", 1, "it failed"),), ("127.0.0.1", 8766))


class FakeSupervisor:
    """Has the children that a test adds, and starts no process."""

    def __init__(self, *_: object, on_message: Any, on_end: Any) -> None:
        self.children: dict[Any, None] = {}
        self.restarts = 0
        self.stopping = False
        self.on_message = on_message
        self.on_end = on_end
        self.renewed: list[Any] = []

    def renew_access(self, auth: object, material: object, asked: Any = ()) -> None:
        self.renewed.append((auth, material, list(asked)))


class FakeChild:
    """A worker that keeps what it is sent."""

    generation = 0
    ready = True
    full = False
    has_room = True

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self.channel = self
        self.sent: list[Any] = []
        self.admitted: Counter[str] = Counter()
        self.unconfirmed: dict[int, Any] = {}
        self.report = ServerStats()
        self.synced = 0
        self.connections = 0
        self.updates: list[Any] = []
        self.requests: Requests[int] = Requests()

    def request(self) -> Any:
        return self.requests.open()

    def send(self, message: object) -> None:
        self.sent.append(message)

    def update(self, message: object) -> None:
        self.updates.append(message)

    def hand_over(self, number: int, handover: Any) -> None:
        handover.tries += 1
        self.connections += 1
        self.unconfirmed[number] = handover

    def returned(self, number: int) -> object:
        self.connections -= 1
        return self.unconfirmed.pop(number)

    def released(self, address: str) -> None:
        self.admitted[address] -= 1


class FakeOverview:
    """Views that tell themselves apart."""

    async def latency(self) -> dict[str, Any]:
        return {"hops": 1}

    async def engine(self) -> EngineNow:
        return ENGINE


class PoolBench:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, alerts: Any = None, desk: Desk | None = None) -> None:
        monkeypatch.setattr(pools, "Supervisor", FakeSupervisor)
        self.admission = Admission(LIMITS)
        self.synced = 0
        self.measured: list[Any] = []
        self.usage: list[Any] = []
        self.pool = pools.WorkerPool(
            Config(engine=EngineConfig(workers=2)),
            Path(),
            Rings.private(1, 4),
            self.admission,
            "info",
            on_synced=self._on_synced,
            on_latencies=self.measured.append,
            overview=FakeOverview(),
            desk=desk,
            on_usage=lambda *told: self.usage.append(told),
        )
        self.pool.alerts = alerts
        self.supervisor: Any = self.pool._supervisor
        self.placement: Any = self.pool._placement

    def _on_synced(self) -> None:
        self.synced += 1

    def add(self, worker: int) -> FakeChild:
        child = FakeChild(worker)
        self.supervisor.children[child] = None
        self.placement.put(child)
        return child

    def receive(self, child: FakeChild, *messages: object) -> None:
        for message in messages:
            self.supervisor.on_message(child, message)

    def end(self, child: FakeChild) -> None:
        del self.supervisor.children[child]
        self.placement.drop(child)
        self.supervisor.on_end(child)


@pytest.fixture
def bench(monkeypatch):
    return PoolBench(monkeypatch)


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


async def test_sessions_of_all_workers_count_towards_one_limit(bench):
    one, other = bench.add(0), bench.add(1)
    bench.receive(one, Admit(1, ADDRESS))
    bench.receive(other, Admit(1, ADDRESS), Admit(2, ADDRESS))
    assert one.sent == [Verdict(1, None)]
    assert other.sent == [Verdict(1, None), Verdict(2, "sessions_per_ip")]
    bench.receive(one, Release(ADDRESS))
    bench.receive(other, Admit(3, ADDRESS))
    assert other.sent[-1] == Verdict(3, None)


async def test_the_sessions_of_a_worker_that_ends_are_released(bench):
    one, other = bench.add(0), bench.add(1)
    bench.receive(one, Admit(1, ADDRESS), Admit(2, ADDRESS))
    bench.receive(other, Admit(1, "10.0.0.2"))
    assert bench.admission.total == 3
    bench.end(one)
    assert bench.admission.total == 1
    bench.receive(other, Admit(2, ADDRESS))
    assert other.sent[-1] == Verdict(2, None)


async def test_the_statistics_of_a_worker_that_ended_are_kept(bench):
    child = bench.add(0)
    child.ready = False  # so that it is not asked for new ones
    child.report = ServerStats(accepted=3, frames=7, sessions={("websocket", "vip"): 2})
    assert (await bench.pool.statistics()).sessions == {("websocket", "vip"): 2}
    bench.end(child)
    total = await bench.pool.statistics()
    assert (total.accepted, total.frames, total.sessions) == (3, 7, {})
    assert total.closes == {1006: 2}


def test_only_more_synced_sessions_are_reported(bench):
    child = bench.add(0)
    bench.receive(child, Synced(2), Synced(2), Synced(1), Synced(3))
    assert bench.synced == 2
    assert bench.pool.synced_sessions == 3


async def test_latencies_and_overviews_are_passed_on(bench, nursery):
    bench.pool._nursery = nursery
    child = bench.add(0)
    bench.receive(child, Measured([]), AskOverview(4), AskOverview(5, "engine"))
    assert bench.measured == [[]]
    await trio.testing.wait_all_tasks_blocked()
    told = sorted(child.sent, key=lambda one: one.number)
    assert told == [Overview(4, {"hops": 1}), Overview(5, ENGINE)]


def test_other_messages_concern_the_child_only(bench):
    child = bench.add(0)
    bench.receive(child, report := Reported(0, ServerStats()))
    assert child.updates == [report]


class Waiting:
    """Alerts of which none is ever due."""

    def __init__(self) -> None:
        self.left: list[str] = []

    async def head(self) -> int:
        return 3

    async def take(self, session: str, limit: int) -> None:
        await trio.sleep_forever()

    def leave(self, session: str) -> None:
        self.left.append(session)


async def test_calls_for_alerts_are_answered_until_their_worker_ends(monkeypatch, nursery, autojump_clock):
    alerts = Waiting()
    bench = PoolBench(monkeypatch, alerts)
    bench.pool._nursery = nursery
    one, other = bench.add(0), bench.add(1)
    for child in (one, other):
        bench.receive(child, AskAlerts(1, encode_call(Take("s1", 1))), AskAlerts(2, encode_call(Head())))
    await trio.testing.wait_all_tasks_blocked()
    assert one.sent == other.sent == [AlertsAnswered(2, "done", b"3")]
    bench.receive(other, CancelAlerts(1), LeaveAlerts("s1"))
    await trio.testing.wait_all_tasks_blocked()
    assert other.sent[-1] == AlertsAnswered(1, "cancelled")
    (key,) = set(alerts.left)
    bench.end(other)
    assert set(alerts.left) == {key}  # it has left already
    bench.end(one)
    assert len(set(alerts.left)) == 2
    assert not bench.pool._alert_calls


async def test_without_a_log_alerts_are_off(bench, nursery):
    bench.pool._nursery = nursery
    child = bench.add(0)
    bench.receive(child, AskAlerts(1, encode_call(Head())))
    assert (child.sent[0].number, child.sent[0].outcome) == (1, "off")


async def test_a_connection_that_a_worker_returns_goes_to_another(bench, nursery, pair, autojump_clock):
    bench.pool._nursery = nursery
    one, other = bench.add(0), bench.add(1)
    other.connections = 5
    await bench.pool.take(pair[0], ADDRESS)
    (number,) = one.unconfirmed
    one.has_room = False
    bench.receive(one, Returned(number))
    await trio.testing.wait_all_tasks_blocked()
    (handover,) = other.unconfirmed.values()
    assert (handover.sock, handover.address, handover.tries) == (pair[0], ADDRESS, 2)


async def test_unconfirmed_connections_of_a_worker_that_ends_go_to_its_successor(
    bench, nursery, pair, autojump_clock
):
    bench.pool._nursery = nursery
    child = bench.add(0)
    await bench.pool.take(pair[0], ADDRESS)
    bench.end(child)
    await trio.testing.wait_all_tasks_blocked()
    successor = bench.add(0)
    await trio.testing.wait_all_tasks_blocked()
    assert [handover.sock for handover in successor.unconfirmed.values()] == [pair[0]]


async def test_a_connection_that_fails_with_three_workers_is_refused(bench, nursery, pair, autojump_clock):
    bench.pool._nursery = nursery
    child = bench.add(0)
    await bench.pool.take(pair[0], ADDRESS)
    for _ in range(pools.MAX_TRIES):
        (number,) = child.unconfirmed
        bench.receive(child, Returned(number))
        await trio.testing.wait_all_tasks_blocked()
    assert not child.unconfirmed
    assert pair[0].fileno() == -1
    assert bench.pool.counters.refused == {"workers full": 1}


async def test_while_the_engine_ends_unconfirmed_connections_are_closed(bench, nursery, pair):
    bench.pool._nursery = nursery
    child = bench.add(0)
    await bench.pool.take(pair[0], ADDRESS)
    bench.supervisor.stopping = True
    bench.end(child)
    assert pair[0].fileno() == -1


async def test_a_revocation_is_in_force_when_all_workers_that_serve_have_taken_it(bench, nursery):
    one, other, starting = (bench.add(worker) for worker in range(3))
    starting.ready = False
    auth, revocation = AuthConfig(mode="keys"), Revocation("sub", "ann", 1.0)
    material = Material(revocations=(revocation,))
    counts: list[int] = []

    async def revoke() -> None:
        counts.append(await bench.pool.revoke(auth, material, revocation))

    nursery.start_soon(revoke)
    await trio.testing.wait_all_tasks_blocked()
    # The supervisor tells those that start, and passes it to later ones.
    assert bench.supervisor.renewed == [(auth, material, [one, other])]
    assert one.sent == other.sent == [AccessChanged(1, auth, material, revocation)]
    assert not starting.sent
    one.requests.respond(1, 2)
    await trio.testing.wait_all_tasks_blocked()
    assert not counts
    other.requests.respond(1, 3)
    await trio.testing.wait_all_tasks_blocked()
    assert counts == [5]


async def test_a_worker_that_ends_is_not_waited_for(bench, nursery):
    one = bench.add(0)
    with trio.fail_after(10):
        async with trio.open_nursery() as asking:
            revocation = Revocation("sub", "ann", 1.0)
            asking.start_soon(bench.pool.revoke, AuthConfig(), Material(), revocation)
            await trio.testing.wait_all_tasks_blocked()
            one.requests.end()


def test_the_end_of_a_session_reaches_the_worker_that_serves_it(bench):
    children = [bench.add(worker) for worker in range(2)]
    bench.pool.end_session("s1", CloseCode.AUTHENTICATION)
    assert all(child.sent == [EndSession("s1", 4501)] for child in children)


async def test_sessions_of_a_worker_that_ends_leave_the_desk(monkeypatch, nursery):
    async def nothing() -> bool:
        raise AssertionError("not asked for")

    desk = LocalDesk({}, None, lambda: 1.0, nothing)
    bench = PoolBench(monkeypatch, desk=desk)
    bench.pool._nursery = nursery
    one, other = bench.add(0), bench.add(1)
    for child, sessions in ((one, ("a", "b")), (other, ("c", "d"))):
        for number, session in enumerate(sessions):
            bench.receive(child, AskDesk(number, Enter(session, Holder("ann", ""))))
    await trio.testing.wait_all_tasks_blocked()
    assert sorted(message.number for message in one.sent) == [0, 1]
    assert all(message == DeskAnswered(message.number) for message in (*one.sent, *other.sent))
    bench.receive(other, LeaveDesk("c"))
    assert len(desk) == 3
    bench.end(one)
    assert len(desk) == 1
    calls: Any = bench.pool._desk_calls
    assert list(calls) == [other]


def test_usage_goes_to_the_engine_with_its_worker(bench):
    report = Report(Interval(0.0, 20.0), [], [])
    bench.receive(bench.add(3), Metered(report))
    assert bench.usage == [(report, 3)]


def test_quotas_are_told_to_all_workers_and_to_new_ones(bench):
    child, late = bench.add(0), bench.add(1)
    late.ready = False
    over = [Over("acme", "max_ticks_per_day of the tenant: 5", "stop")]
    bench.receive(child, Ready("0", 100))
    assert child.sent == []
    bench.pool.limit(over)
    bench.receive(late, Ready("0", 100))
    assert child.sent == late.sent == [Limit(over)]


def test_what_a_cluster_tells_reaches_all_workers_and_those_that_start_later(bench):
    first = bench.add(0)
    source = Source("s0", "stale", 1)
    bench.pool.source_state(source)
    bench.pool.elsewhere(["http://b:1"])
    assert first.sent == [SourceChanged(source), Elsewhere(["http://b:1"])]
    second = bench.add(1)
    bench.receive(second, Ready("1", 100))
    assert second.sent == first.sent
