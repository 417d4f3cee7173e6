"""Random faults in a virtual world, until everything heals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cluster.virtual_world import BUCKET, MS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.virtual_machine import Machine
    from tests.cluster.virtual_world import Bucket, Network, World


class Faults:
    """Begins a fault every second or so; each ends by itself, the last of them by ``heal``."""

    def __init__(
        self, world: World, network: Network, bucket: Bucket, machines: list[Machine], *, restores: bool
    ) -> None:
        """``restores``: the bucket goes back to an older state now and then."""
        self._world, self._network, self._bucket, self._machines = world, network, bucket, machines
        self._healed = False
        self._faults: list[tuple[int, Callable[[], None]]] = [
            (3, self._partition),
            (2, self._cut_one_way),
            (3, self._stop),
            (3, self._kill),
            (2, self._bucket_down),
            (3, self._bad_network),
            (2, self._hand_over),
            (2 if restores else 0, self._restore),
        ]
        self._next()

    def heal(self) -> None:
        """End all faults."""
        self._healed = True
        self._world.note("healed")
        self._network.heal()
        self._bucket.down, self._bucket.behind = False, 0.0
        for machine in self._machines:
            self._revive(machine)

    def _next(self) -> None:
        if self._healed:
            return
        weights, faults = zip(*self._faults, strict=True)
        (fault,) = self._world.rng.choices(faults, weights)
        fault()
        self._world.after(self._world.rng.randint(100, 2500) * MS, self._next)

    def _later(self, most_s: float, end: Callable[[], None]) -> None:
        """Call ``end`` after a random time, unless the world has healed by then."""
        delay_ns = int(self._world.rng.uniform(0.05, most_s) * 1e9)
        self._world.after(delay_ns, lambda: None if self._healed else end())

    def _revive(self, machine: Machine) -> None:
        if not machine.process:
            machine.start()
        elif machine.stopped:
            machine.go_on()

    def _origin_or_some(self) -> Machine:
        """Return a holder of the lease as often as not."""
        holders = [machine for machine in self._machines if machine.holds()]
        some = holders if holders and self._world.rng.random() < 0.5 else self._machines
        return self._world.rng.choice(some)

    def _partition(self) -> None:
        names = [machine.name for machine in self._machines] + [BUCKET]
        some = set(self._world.rng.sample(names, self._world.rng.randint(1, len(names) - 1)))
        self._world.note(f"network: {sorted(some)} separated")
        self._network.separate(some, set(names) - some)
        self._later(9, self._join)

    def _cut_one_way(self) -> None:
        names = [machine.name for machine in self._machines] + [BUCKET]
        source, target = self._world.rng.sample(names, 2)
        self._world.note(f"network: nothing goes from {source} to {target}")
        self._network.cut.add((source, target))
        self._later(9, self._join)

    def _join(self) -> None:
        self._world.note("network: joined")
        self._network.cut.clear()

    def _stop(self) -> None:
        machine = self._origin_or_some()
        if machine.runs:
            machine.stop()
            self._later(12, lambda: self._revive(machine))

    def _kill(self) -> None:
        machine = self._origin_or_some()
        if machine.process:
            machine.kill()
            self._later(8, lambda: self._revive(machine))

    def _bucket_down(self) -> None:
        self._world.note("bucket: down")
        self._bucket.down = True
        self._later(6, self._bucket_up)

    def _bucket_up(self) -> None:
        self._world.note("bucket: up")
        self._bucket.down = False

    def _bad_network(self) -> None:
        rng = self._world.rng
        self._network.lost = rng.choice((0.0, 0.02, 0.3))
        self._network.doubled = rng.choice((0.0, 0.3))
        self._network.slow = rng.choice((0.0, 0.05, 0.3))
        self._bucket.behind = rng.choice((0.0, 0.3))
        self._world.note(f"network: loses {self._network.lost}, slow {self._network.slow}")

    def _hand_over(self) -> None:
        for machine in self._machines:
            if machine.runs and machine.holds():
                machine.carry_out(machine.lease.hand_over(self._world.rng.choice(machine.others).name))

    def _restore(self) -> None:
        self._bucket.restore(self._world.rng.randint(1, 20))
