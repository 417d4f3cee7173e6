"""Members over a bus in memory, on a virtual clock: origin, mirrors, takeover, handover, and their edges."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import trio

from marketfeed.admin.cluster_metrics import cluster_metrics
from marketfeed.cluster.frames import Kind, header_of
from marketfeed.cluster.nodes import MAX_NODES
from marketfeed.clustering.member import Member
from marketfeed.core.units import S
from tests.support.bus import Bus
from tests.support.member_engine import MemoryEngine, cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

TICK_S = 0.01


def now_ns() -> int:
    return int(trio.current_time() * S)


class Node:
    """A member with its engine, in a task that a test can end."""

    def __init__(self, bus: Bus, name: str, depth: int = 64, **keys: Any) -> None:
        self.engine = MemoryEngine(depth)
        engine: Any = self.engine
        self.member = Member(engine, cluster(name, **keys), bus.connect(), now_ns)
        self.feeds = True

    async def run(self, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.member.run, nursery)
            nursery.start_soon(self._feed)
            task_status.started(nursery.cancel_scope)

    async def _feed(self) -> None:
        while True:
            if self.feeds:
                self.engine.tick("A" if int(trio.current_time()) % 2 else "B")
            await trio.sleep(TICK_S)

    @property
    def epoch(self) -> str:
        return self.engine.lives.now.epoch

    @property
    def rings(self) -> Any:
        return self.engine.lives.now.rings

    @property
    def link(self) -> Any:
        return self.member.link


async def until(condition: Callable[[], bool], most_s: float = 60.0) -> float:
    """Wait until ``condition`` holds; return the seconds that it took."""
    began = trio.current_time()
    with trio.fail_after(most_s):
        while not condition():
            await trio.sleep(TICK_S)
    return trio.current_time() - began


@asynccontextmanager
async def pair(**keys: Any) -> AsyncIterator[tuple[Bus, Node, Node, dict[Node, trio.CancelScope]]]:
    """Run the nodes a, the origin, and b, its mirror."""
    bus = Bus()
    a, b = Node(bus, "a", **keys), Node(bus, "b", **keys)
    async with trio.open_nursery() as nursery:
        scopes = {a: await nursery.start(a.run)}
        await until(a.member.course.joined.is_set)
        scopes[b] = await nursery.start(b.run)
        await until(b.member.course.joined.is_set)
        yield bus, a, b, scopes
        nursery.cancel_scope.cancel()


async def equal(a: Node, b: Node) -> None:
    """Stop the feeds, and assert that both have the same rings."""
    a.feeds = b.feeds = False
    await trio.sleep(2)
    assert a.epoch == b.epoch
    assert a.rings.head() == b.rings.head() > 0
    ids = np.arange(2)
    for channel in range(2):
        assert (a.rings.published(channel, 2) == b.rings.published(channel, 2)).all()
        one, other = (rings.latest(channel, ids, rings.head())[0] for rings in (a.rings, b.rings))
        assert one.tobytes() == other.tobytes()


async def test_the_first_node_becomes_the_origin_and_the_second_its_mirror(autojump_clock):
    async with pair() as (_, a, b, _scopes):
        assert a.engine.served == [(a.epoch, True)]
        assert b.engine.served == [(a.epoch, False)]
        assert (a.member.holds, b.member.holds) == (True, False)
        await trio.sleep(2)
        rows = b.member.view.clients()
        assert [(row.url, row.state) for row in rows] == [("http://a:1", "ready"), ("http://b:1", "ready")]
        assert b.engine.lives.urls == ("http://a:1",)
        await equal(a, b)
        assert a.engine.told == b.engine.told == []
        answer = b.member.view.answer()
        assert (answer.holder, [node.origin for node in answer.nodes]) == ("a", [True, False])
        assert answer.problems == []
        assert answer.warnings == ["cluster: replicas = 1: the loss of one NATS server stops it"]
        samples = {
            (sample.name, *sample.labels.values()): sample.value
            for family in cluster_metrics(b.member.view.figures())
            for sample in family.samples
        }
        assert samples["marketfeed_cluster_frames_total",] > 10
        assert samples["marketfeed_cluster_nodes", "live"] == 2


async def test_a_new_epoch_begins_with_the_newest_ticks_when_the_origin_dies(autojump_clock):
    async with pair() as (_, a, b, scopes):
        await trio.sleep(3)
        first, newest = a.epoch, b.engine.lives.now
        scopes[a].cancel()
        assert 0.9 < await until(lambda: b.engine.told == ["stale"]) < 1.2
        b.feeds = False
        assert 1.5 < await until(lambda: b.member.holds and b.epoch != first) < 3.5
        await trio.sleep(0.1)
        ids = np.arange(2)
        old, new = (
            life.rings.latest(0, ids, life.rings.head())[0]["bid_px"] for life in (newest, b.engine.lives.now)
        )
        assert b.engine.lives.now.symbols.names() == newest.symbols.names() == ["A", "B"]
        assert (old == new).all()
        assert b.engine.told == ["stale", "live"]
        assert b.engine.served[-1] == (b.epoch, True)


async def test_a_source_stays_stale_until_the_rings_of_the_new_origin_are_served(autojump_clock):
    async with pair() as (bus, a, b, scopes), trio.open_nursery() as nursery:
        c = Node(bus, "c", role="gateway")
        await nursery.start(c.run)
        await until(c.member.course.joined.is_set)
        bus.lost = lambda subject: ".a.c.sync." in subject  # states for c
        scopes[a].cancel()
        await until(lambda: b.member.holds)
        await trio.sleep(3)
        assert c.engine.told == ["stale"]
        bus.lost = lambda subject: False
        await until(lambda: c.epoch == b.epoch)
        await trio.sleep(0.1)
        assert c.engine.told == ["stale", "live"]
        nursery.cancel_scope.cancel()


async def test_an_origin_hands_over_and_the_epoch_goes_on(autojump_clock):
    async with pair() as (bus, a, b, _):
        await trio.sleep(2)
        first = a.epoch
        await a.member.leave()
        await until(lambda: b.member.holds)
        (final,) = [header_of(data) for subject, data in bus.sent if _is(subject, data, Kind.HANDOVER)]
        assert final.last_g < b.rings.head() + 1
        await trio.sleep(2)
        assert b.engine.served == [(first, False), (first, True)]
        assert a.engine.served == [(first, True), (first, False)]
        assert b.rings.head() > final.last_g
        await equal(a, b)
        assert a.member.counts.adopted == b.member.counts.adopted == 0
        assert a.member.pulse.state().value == "draining"
        await a.member.leave()  # nothing to hand over any more


def _is(subject: str, data: bytes, kind: Kind) -> bool:
    return subject.endswith(".t") and header_of(data).kind is kind


async def test_without_a_successor_the_next_process_of_the_node_takes_over_at_once(autojump_clock):
    bus = Bus()
    first, second = Node(bus, "a"), Node(bus, "a")
    async with trio.open_nursery() as nursery:
        scope = await nursery.start(first.run)
        await until(first.member.course.joined.is_set)
        await first.member.leave()
        assert not first.member.holds
        assert first.engine.lives.now.writer is None
        await trio.sleep(0.5)
        assert not first.member.holds
        scope.cancel()
        await nursery.start(second.run)
        # Not before it could have a state; the lease alone would take 3 s from its start.
        assert await until(lambda: second.member.holds, 10) < 3.2
        assert second.epoch != first.epoch
        nursery.cancel_scope.cancel()


async def test_an_origin_that_is_cut_off_stops_and_goes_on_with_its_epoch(autojump_clock):
    """Nobody takes the lease, because the mirror is a gateway."""
    bus = Bus()
    a, b = Node(bus, "a"), Node(bus, "b", role="gateway")
    async with trio.open_nursery() as nursery:
        await nursery.start(a.run)
        await nursery.start(b.run)
        await until(b.member.course.joined.is_set)
        a.link.up = False
        await until(lambda: not a.member.holds)
        await until(lambda: a.engine.lives.now.writer is None)
        assert a.engine.told == ["stale"]
        assert a.member.view.warnings()[1].text == "cluster: no connection to NATS: cut"
        sent = len([1 for subject, _ in bus.sent if subject.endswith(".t")])
        await trio.sleep(5)
        assert len([1 for subject, _ in bus.sent if subject.endswith(".t")]) == sent
        a.link.up = True
        await until(lambda: a.engine.told == ["stale", "live"])
        await until(lambda: b.engine.told == ["stale", "live"])
        await equal(a, b)
        assert [epoch for epoch, _ in a.engine.served] == [a.epoch] * 3
        assert b.member.counts.repaired > 0
        assert b.member.counts.adopted == 0
        nursery.cancel_scope.cancel()


async def test_lost_frames_are_repaired(autojump_clock):
    async with pair() as (bus, a, b, _):
        count = 0

        def lost(subject: str) -> bool:
            nonlocal count
            count += subject.endswith(".t")
            return subject.endswith(".t") and count % 3 == 0

        bus.lost = lost
        await trio.sleep(5)
        bus.lost = lambda subject: False
        await equal(a, b)
        assert b.member.counts.repaired > 0
        assert b.member.counts.adopted == 0
        assert a.member.receiver.answered > 1


async def test_a_node_with_other_sizes_is_refused_and_never_claims(autojump_clock):
    bus = Bus()
    a, b = Node(bus, "a"), Node(bus, "b", depth=32)
    async with trio.open_nursery() as nursery:
        scope = await nursery.start(a.run)
        await until(a.member.course.joined.is_set)
        await nursery.start(b.run)
        await until(lambda: bool(b.member.refused))
        (problem,) = b.member.view.problems()
        assert problem.text.startswith("cluster: refused: the origin's rings have 8 symbols × 64 ticks")
        scope.cancel()
        await trio.sleep(20)
        assert not b.member.lease.statistics().holding
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("up", "text"),
    [
        (False, "cluster: joining: no connection to NATS: cut"),
        (True, "cluster: joining: no other node is known to hold the lease"),
    ],
)
async def test_a_gateway_alone_says_what_it_waits_for(autojump_clock, up, text):
    bus = Bus()
    b = Node(bus, "b", role="gateway")
    assert b.member.view.problems()[0].text == "cluster: joining: no connection to NATS: not opened yet"
    async with trio.open_nursery() as nursery:
        await nursery.start(b.run)
        await until(lambda: b.link is not None)
        b.link.up = up
        await trio.sleep(20)
        (problem,) = b.member.view.problems()
        assert problem.text == text
        assert not bus.entries
        assert b.member.view.clients()[0].state == "starting"
        nursery.cancel_scope.cancel()


async def test_messages_that_cannot_be_read_are_counted(autojump_clock):
    async with pair() as (bus, a, b, _):
        outside: Any = bus.connect()
        async with outside() as link:
            for subject in ("mf.main.s0.r.a.x.1", "mf.main.n.x", "mf.main.s0.r.a.x"):
                link.publish(subject, b"?")
            link.publish("mf.main.s0.t", b"?")
            link.publish("mf.main.s0.a.b.r.a.0", b"?")
            link.publish("mf.main.s0.a.b.sync.a.99", b"?")
            await trio.sleep(0.5)
        assert a.member.receiver.bad == 4  # its own subject, a status, a request, and a frame
        assert b.member.receiver.bad == 1
        assert b.member.counts.bad == 1
        await equal(a, b)


async def test_requests_for_a_state_wait_until_there_is_one_and_are_bounded(autojump_clock):
    bus = Bus()
    a = Node(bus, "a")
    outside: Any = bus.connect()
    async with outside() as link, trio.open_nursery() as nursery:
        link.subscribe("mf.main.s0.a.>")
        await nursery.start(a.run)
        await until(lambda: a.link is not None)
        for number in range(2 * MAX_NODES):
            link.publish(f"mf.main.s0.sync.a.n{number}.7", b"")
        await until(a.member.course.joined.is_set)
        await trio.sleep(0.2)
        answered = {message.subject for message in await link.receive(10_000)}
        assert answered == {f"mf.main.s0.a.n{number}.sync.a.7" for number in range(MAX_NODES)}
        nursery.cancel_scope.cancel()


async def test_an_exchange_of_a_mirror_that_fails_is_tried_again(autojump_clock):
    bus = Bus()
    a, b = Node(bus, "a"), Node(bus, "b")
    b.engine.fails = 2
    async with trio.open_nursery() as nursery:
        await nursery.start(a.run)
        await until(a.member.course.joined.is_set)
        await nursery.start(b.run)
        await until(lambda: bool(b.member.course.problem))
        assert "cluster: the role could not change: no memory" in [
            warning.text for warning in b.member.view.warnings()
        ]
        await until(b.member.course.joined.is_set)
        await equal(a, b)
        nursery.cancel_scope.cancel()


async def test_a_node_that_cannot_be_the_origin_ends(autojump_clock):
    bus = Bus()
    a = Node(bus, "a")
    a.engine.fails = 1
    with pytest.raises(ExceptionGroup) as raised:
        await a.run()
    assert raised.group_contains(ValueError, match="no memory")
