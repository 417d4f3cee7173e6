"""Any loss, order and doubling of frames: the mirror equals the origin, or its readers are told."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.cluster.actions import Adopted, BadFrame, Ready
from marketfeed.cluster.follower import Limits
from marketfeed.core.records import QUOTES, TRADES
from tests.support.cluster import MS, Node, Origin, same_rings
from tests.support.rings import TICKS, Ledger, Reader

LONG = bool(os.environ.get("MARKETFEED_PROVE"))
WRITES = st.tuples(st.just("write"), st.lists(TICKS, min_size=1, max_size=20))
NETWORK = st.tuples(
    st.sampled_from(["deliver"] * 4 + ["drop", "double", "seal", "beat", "tick", "link"]), st.integers(0, 30)
)
STEPS = st.lists(WRITES | NETWORK, max_size=60)
PATIENT = Limits(repair_ns=2**60)
IMPATIENT = Limits(repair_ns=5 * MS, retry_ns=2 * MS, sync_ns=3 * MS, held_bytes=4000)


class Run:
    """One origin, one mirror, frames on the way between them, and readers of the mirror's rings."""

    def __init__(self, limits, log_bytes):
        self.origin = Origin(log_bytes=log_bytes)
        self.ledger = Ledger()
        self.now_ns = 0
        self.node = Node({None: self.origin}, limits=limits).start()
        self.readers = [Reader(self.node.rings, channel) for channel in (QUOTES, TRADES)]
        self.on_the_way: list[bytes] = []

    def step(self, what, argument):
        if what == "write":
            self.ledger.add(argument)
            self.origin.write(*argument)
        elif what == "seal":
            self.origin.seal()
        elif what == "beat":
            self.origin.tee.beat(self.origin.now_ns)
        elif what == "tick":
            self.now_ns += argument * MS // 10
            self.node.tick(self.now_ns)
        elif what == "link":
            self.node.reachable = not self.node.reachable
        elif self.on_the_way:
            at = argument % len(self.on_the_way)
            if what == "double":
                self.on_the_way.append(self.on_the_way[at])
            else:
                frame = self.on_the_way.pop(at)
                if what == "deliver":
                    self.node.feed(frame, now_ns=self.now_ns)
        self.on_the_way += self.origin.take()
        for reader in self.readers:
            reader.poll()

    def heal(self):
        """Lose what is on the way, and let the mirror catch up."""
        self.node.reachable = True
        self.origin.seal()
        self.origin.tee.beat(self.origin.now_ns)
        self.on_the_way = self.origin.take()[-1:]
        self.step("deliver", 0)
        for _ in range(40):
            self.now_ns += 400 * MS
            self.node.tick(self.now_ns)
            self.node.feed(self.beat(), now_ns=self.now_ns)
        for reader in self.readers:
            reader.poll()
        assert not self.node.mirror.behind
        assert self.node.rings.head() == self.origin.rings.head() == self.ledger.g
        assert not self.node.of(BadFrame)

    def beat(self):
        self.origin.tee.beat(self.origin.now_ns)
        return self.origin.take()[-1]


@pytest.mark.slow
@settings(max_examples=5000 if LONG else 150, deadline=None)
@given(STEPS)
def test_a_mirror_that_can_repair_equals_its_origin(steps):
    run = Run(PATIENT, log_bytes=1 << 20)
    for step in steps:
        run.step(*step)
    run.heal()
    assert not run.node.of(Adopted)
    assert len(run.node.of(Ready)) == 1
    assert same_rings(run.origin.rings, run.node.rings)


@pytest.mark.slow
@settings(max_examples=5000 if LONG else 150, deadline=None)
@given(STEPS, st.integers(0, 4000))
def test_no_reader_sees_a_hole_that_it_is_not_told_of(steps, log_bytes):
    run = Run(IMPATIENT, log_bytes)
    for step in steps:
        run.step(*step)
    run.heal()
    origin, mirror = run.origin.rings, run.node.rings
    every = np.arange(mirror.max_symbols)
    for channel, reader in enumerate(run.readers):
        assert (mirror.published(channel) == origin.published(channel)).all()
        newest = [rings.latest(channel, every, rings.head())[0] for rings in (mirror, origin)]
        assert newest[0].tobytes() == newest[1].tobytes()
        for symbol, got in reader.got.items():
            written = run.ledger.ticks[channel, symbol]
            assert reader.seen[symbol] == len(written)
            assert len(got) + reader.lost[symbol] == len(written)
            assert all(written[n - 1] == g for n, g in got)
            assert got == sorted(set(got))


@settings(max_examples=2000 if LONG else 60, deadline=None)
@given(STEPS)
def test_a_mirror_repairs_from_another_mirror(steps):
    """The origin's log holds nothing; another mirror has seen every frame."""
    run = Run(PATIENT, log_bytes=0)
    peer = Node({None: run.origin}).start()
    run.node.peers["peer"] = peer
    run.node.mirror.sources = ("peer",)
    for step in steps:
        run.step(*step)
        peer.feed(*run.origin.log_of_sent())
    run.origin.seal()
    peer.feed(*run.origin.log_of_sent())
    run.heal()
    assert not run.node.of(Adopted)
    assert same_rings(run.origin.rings, run.node.rings)
    assert same_rings(run.origin.rings, peer.rings)
