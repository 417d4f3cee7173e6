"""Leases of five machines in a virtual world: never two holders, one of them once the world has healed."""

from __future__ import annotations

import os

import pytest

from marketfeed.cluster.lease import Lease
from marketfeed.core.units import S
from tests.cluster.broken import EagerLease, HastyLease
from tests.cluster.virtual_faults import Faults
from tests.cluster.virtual_machine import Machine
from tests.cluster.virtual_world import Bucket, Network, World

LEASE_NS = 4 * S
FAULTS_NS = 40 * S
HEALED_NS = 10 * S  # lease, ranks, and requests that were on their way
SEEDS = 2000 if os.environ.get("MARKETFEED_PROVE") else 80


class Announcer:
    """Publishes the highest term that it knows, and checks that nobody else holds the lease with it."""

    def __init__(self, machine: Machine, *, restores: bool) -> None:
        self._machine, self._restores = machine, restores
        self.highest = (0, "")

    def tick(self, now_ns: int) -> None:
        machine = self._machine
        # A restored bucket may name an earlier holder again; the terms fence it.
        if machine.lease.holds(now_ns) and not self._restores:
            assert not [other.name for other in machine.others if other.holds()], "two holders"
        machine.publish(self.highest)

    def receive(self, source: str, message: object, now_ns: int) -> None:
        assert isinstance(message, tuple)
        term, epoch = message
        self.highest = max(self.highest, (term, epoch))
        self._machine.carry_out(self._machine.lease.saw(term, epoch, now_ns))

    def become(self, term: int, epoch: str, now_ns: int) -> None:
        assert term >= self.highest[0], "a term below one seen before"
        self.highest = (term, epoch)

    def lose(self, now_ns: int) -> None:
        pass

    def late(self) -> None:
        self._machine.publish(self.highest)

    def stop_feeds(self, successor: str, now_ns: int) -> None:
        self._machine.carry_out(self._machine.lease.sealed(0, now_ns))


def simulate(seed: int, *, restores: bool, lease: type[Lease] = Lease) -> World:
    """Run one world; raises AssertionError with the seed and the trace."""
    world = World(seed)
    network = Network(world)
    bucket = Bucket(world, network)
    announcers: dict[str, Announcer] = {}

    def announcer(machine: Machine) -> Announcer:
        announcers[machine.name] = Announcer(machine, restores=restores)
        return announcers[machine.name]

    machines = Machine.five(world, network, bucket, announcer, lease_ns=LEASE_NS, lease=lease)
    faults = Faults(world, network, bucket, machines, restores=restores)
    try:
        world.run(FAULTS_NS)
        faults.heal()
        world.run(FAULTS_NS + HEALED_NS)
        holders = [machine for machine in machines if machine.holds()]
        assert len(holders) == 1, f"{len(holders)} holders after healing"
        (holder,) = holders
        term = holder.lease.statistics().term
        terms = {announcer.highest[0] for announcer in announcers.values()}
        assert terms == {term}, "another term than the holder's"
        known = {machine.lease.holder for machine in machines}
        assert len(known) == 1
    except AssertionError as error:
        trace = "\n".join(world.trace)
        raise AssertionError(f"{error}\nseed {seed}, restores {restores}\n{trace}") from error
    return world


def simulate_many(seeds: range, *, restores: bool, lease: type[Lease] = Lease) -> None:
    """Run a world of each seed."""
    for seed in seeds:
        simulate(seed, restores=restores, lease=lease)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("restores", [False, True])
def test_there_is_never_more_than_one_holder_and_one_after_healing(restores):
    simulate_many(range(SEEDS // 2), restores=restores)


@pytest.mark.slow
@pytest.mark.parametrize("broken", [EagerLease, HastyLease])
def test_the_simulation_finds_a_broken_lease(broken):
    with pytest.raises(AssertionError, match="two holders"):
        simulate_many(range(300), restores=False, lease=broken)
