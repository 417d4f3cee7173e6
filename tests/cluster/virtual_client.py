"""A client that moves between nodes with its cursor, and checks that it is told of every hole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tests.cluster.virtual_engine import VirtualEngine
    from tests.cluster.virtual_machine import Machine
    from tests.cluster.virtual_rings import Ledger, Life
    from tests.cluster.virtual_world import World

READ_NS = 200_000_000
WAIT_NS = 1_000_000_000  # for a node that is behind the cursor


class VirtualClient:
    """Reads every tick of every symbol, as a session of a tier that takes every tick."""

    def __init__(
        self,
        world: World,
        ledger: Ledger,
        engines: dict[str, VirtualEngine],
        machines: list[Machine],
        name: str,
    ) -> None:
        self._world, self._ledger, self._machines, self._name = world, ledger, machines, name
        self._engines = engines
        self._machine = world.rng.choice(machines)
        self._life: Life | None = None  # of the node, while connected
        self._epoch, self._g = "", 0  # the cursor
        self._waited = 0  # reads at a node that is behind it
        self.ns = np.zeros((2, 0), np.int64)  # highest n that was received, told lost or reset
        self.ticks = self.lost = self.resets = self.resumed = 0
        self._later()

    def read(self) -> None:
        """Connect if that is needed and possible, and read what is new."""
        rng, machine = self._world.rng, self._machine
        life = self._engines[machine.name].life if machine.process else None
        if life is None or not life.ready or rng.random() < 0.05:
            self._machine, self._life = rng.choice(self._machines), None
        elif machine.stopped:
            self._life = None if rng.random() < 0.2 else self._life
            self._machine = self._machine if self._life else rng.choice(self._machines)
        else:
            if life is not self._life and self._waits(life):
                return
            if life is not self._life:
                self._connect(life)
            self._take(life)

    def check(self, origin: Life) -> None:
        """Raise AssertionError unless everything that the origin published was received, or told as lost."""
        assert self._epoch == origin.epoch, f"{self._name} is in {self._epoch}, after {self._g}"
        for channel in range(2):
            upto = origin.rings.published(channel, len(origin.symbols))
            assert self.ns[channel].tolist() == upto.tolist(), f"{self._name} lacks ticks"

    def _later(self) -> None:
        self._world.after(READ_NS, self._later)
        self.read()

    def _waits(self, life: Life) -> bool:
        """Return whether the node has to wait for the ticks up to the cursor, a second at most."""
        ahead = self._epoch == life.epoch and self._g > life.rings.head()
        self._waited = self._waited + 1 if ahead else 0
        return ahead and self._waited * READ_NS <= WAIT_NS

    def _connect(self, life: Life) -> None:
        """Resume after the cursor, as fanout/resume.py does, or start with a snapshot."""
        self._life = life
        rings, ids = life.rings, np.arange(len(life.symbols))
        head = rings.head()
        before = self.ns
        self.ns = np.zeros((2, len(ids)), np.int64)
        resumes = (self._epoch, True) == (rings.epoch, self._g <= head)
        self.resumed += resumes
        self.resets += not resumes
        for channel in range(2):
            newest, found = rings.latest(channel, ids, head)
            self._ledger.check(rings.epoch, newest)
            self.ns[channel] = found
            if resumes:
                at = rings.position(channel, ids, self._g)
                floor = rings.oldest(channel, ids) - 1
                kept = (at > floor) | (floor == 0)
                self.ns[channel][kept] = at[kept]
                # The node before may have known names whose ticks were still to come.
                known = np.zeros(max(len(ids), before.shape[1]), np.int64)
                known[: before.shape[1]] = before[channel]
                assert not known[len(ids) :].any(), f"{self._machine.name} has no name of a tick"
                known = known[: len(ids)]
                silent = kept & (at != known)
                assert not silent.any(), (
                    f"{self._name} on {self._machine.name}: after g={self._g} of {rings.epoch} it has"
                    f" n={known[silent]} of {ids[silent]}, and is resumed after n={at[silent]}"
                )
        self._epoch, self._g = rings.epoch, head if not resumes else self._g

    def _take(self, life: Life) -> None:
        rings = life.rings
        head = rings.head()
        ids = np.arange(len(life.symbols))
        grown = np.zeros((2, len(ids)), np.int64)
        grown[:, : self.ns.shape[1]] = self.ns
        self.ns = grown
        for channel in range(2):
            after = self.ns[channel]
            ticks = rings.read(channel, ids, after, rings.published(channel, len(ids)), head)
            self._ledger.check(rings.epoch, ticks.records)
            starts = after + ticks.lost
            expected = [
                start + number + 1
                for start, count in zip(starts.tolist(), ticks.counts.tolist(), strict=True)
                for number in range(count)
            ]
            assert ticks.records["n"].tolist() == expected, f"{self._name}: a hole that it is not told of"
            self.ns[channel] = ticks.seen
            self.ticks += len(ticks.records)
            self.lost += int(ticks.lost.sum())
        self._g = head
