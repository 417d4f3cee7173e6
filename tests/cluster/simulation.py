"""Five nodes with leases, tees and mirrors in a virtual world that fails, and three clients.

    origin ──► tee ──► network ──► mirrors ──► clients that move, with their cursor
      └─ lease ──► bucket ◄── lease ─┘

Raises AssertionError, with the seed and the trace, if

- one (epoch, g) is given to two ticks, or a mirror or a client has another tick there than the origin;
- a client's ``n`` of a symbol has a hole, or begins again, and it is not told (gap or reset);
- a node goes back to a lower term, or follows two epochs of one term (not after the bucket was restored);
- two nodes hold the lease at one moment (likewise);
- after the world has healed, there is not one origin in time, or a mirror or client differs from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from marketfeed.cluster.lease import Lease
from marketfeed.cluster.mirror import Mirror
from marketfeed.core.units import S
from tests.cluster.virtual_client import VirtualClient
from tests.cluster.virtual_engine import VirtualEngine
from tests.cluster.virtual_faults import Faults
from tests.cluster.virtual_machine import Machine
from tests.cluster.virtual_rings import CheckedWriter, Ledger, Life
from tests.cluster.virtual_world import Bucket, Network, World

if TYPE_CHECKING:
    from collections.abc import Callable

LEASE_NS: Final = 4 * S
FAULTS_NS: Final = 25 * S
HEALED_NS: Final = 12 * S  # lease, ranks, a state, and what was on its way
QUIET_NS: Final = 3 * S  # without new ticks, for mirrors and clients to reach the head


@dataclass
class Outcome:
    """What happened in a run, to show that a simulation does something."""

    terms: int  # of the origin at the end
    ticks: int  # that clients received
    resumed: int  # times that a client continued after its cursor
    resets: int
    lost: int  # ticks that clients were told of
    adopted: int  # states, after ticks were lost
    continued: int  # epochs, by another node after a planned handover
    repaired: int  # ticks, of the mirrors at the end


class Simulation:
    """One world of one seed."""

    def __init__(
        self,
        seed: int,
        *,
        restores: bool = False,
        lease: type[Lease] = Lease,
        mirror: type[Mirror] = Mirror,
        writer: type[CheckedWriter] = CheckedWriter,
    ) -> None:
        """``restores``: the bucket goes back to an older state now and then."""
        self.seed, self._restores = seed, restores
        self.world = World(seed)
        self.ledger = Ledger()
        network = Network(self.world)
        bucket = Bucket(self.world, network)
        self.engines: dict[str, VirtualEngine] = {}
        self.machines = Machine.five(
            self.world, network, bucket, self._maker(mirror, writer), lease_ns=LEASE_NS, lease=lease
        )
        self.clients = [
            VirtualClient(self.world, self.ledger, self.engines, self.machines, f"client {number}")
            for number in range(3)
        ]
        self._faults = Faults(self.world, network, bucket, self.machines, restores=restores)

    def _maker(self, mirror: type[Mirror], writer: type[CheckedWriter]) -> Callable[[Machine], VirtualEngine]:
        def make(machine: Machine) -> VirtualEngine:
            engine = VirtualEngine(
                machine, self.ledger, restores=self._restores, mirror=mirror, writer=writer
            )
            self.engines[machine.name] = engine
            return engine

        return make

    def run(self) -> Outcome:
        """Run the world; raises AssertionError."""
        try:
            self._run_until(FAULTS_NS)
            self._faults.heal()
            self._run_until(FAULTS_NS + HEALED_NS)
            for engine in self.engines.values():
                engine.quiet = True
            self._run_until(FAULTS_NS + HEALED_NS + QUIET_NS)
            self._check_end()
        except AssertionError as error:
            trace = "\n".join(self.world.trace)
            raise AssertionError(f"{error}\nseed {self.seed}, restores {self._restores}\n{trace}") from error
        return self._outcome()

    def _run_until(self, until_ns: int) -> None:
        while self.world.now_ns < until_ns:
            self.world.run(min(self.world.now_ns + S // 10, until_ns))
            holders = [machine.name for machine in self.machines if machine.holds()]
            assert self._restores or len(holders) <= 1, f"two holders: {holders}"

    def _check_end(self) -> None:
        holders = [machine.name for machine in self.machines if machine.holds()]
        assert len(holders) == 1, f"{len(holders)} holders after healing: {holders}"
        origin = self.engines[holders[0]].life
        assert origin is not None
        assert origin.rings.head(), "no ticks"
        for name, engine in self.engines.items():
            life = engine.life
            assert life is not None, f"{name} has no rings"
            same = (life.term, life.epoch) == (origin.term, origin.epoch)
            assert same, f"{name} follows {life.term} {life.epoch}"
            assert life.ready, f"{name} is not ready"
            _check_equal(name, life, origin)
        for client in self.clients:
            client.check(origin)

    def _outcome(self) -> Outcome:
        engines, clients = self.engines.values(), self.clients
        mirrors = [engine.life.mirror for engine in engines if engine.life and engine.life.mirror]
        return Outcome(
            terms=max(engine.term for engine in engines),
            ticks=sum(client.ticks for client in clients),
            resumed=sum(client.resumed for client in clients),
            resets=sum(client.resets for client in clients),
            lost=sum(client.lost for client in clients),
            adopted=self.ledger.adopted,
            continued=self.ledger.continued,
            repaired=sum(mirror.counts.repaired for mirror in mirrors),
        )


def _check_equal(name: str, life: Life, origin: Life) -> None:
    """Raise AssertionError unless the rings have the same head, counters and ticks, where both have any."""
    ours, theirs = life.rings, origin.rings
    assert ours.head() == theirs.head(), f"{name} is at {ours.head()}, the origin at {theirs.head()}"
    assert life.symbols.names() == origin.symbols.names()
    ids = np.arange(len(origin.symbols))
    for channel in range(2):
        upto = theirs.published(channel, len(ids))
        assert (ours.published(channel, len(ids)) == upto).all()
        after = np.maximum(ours.oldest(channel, ids), theirs.oldest(channel, ids)) - 1
        a, b = (rings.read(channel, ids, after, upto, theirs.head()).records for rings in (ours, theirs))
        assert a.tobytes() == b.tobytes(), f"the ticks of {name} differ"
