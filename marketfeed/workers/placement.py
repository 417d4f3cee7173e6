"""Placement of connections: each new one goes to the worker with the fewest.

While workers are replaced one after the other, new connections go to workers that
have been replaced already. The sessions of a retiring worker reconnect, and a worker
that is yet to be replaced would close them a second time.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import trio

from marketfeed.server.conditions import Condition

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class WorkerSlot(Protocol):
    """The part of a worker process (process.py) that placement uses."""

    worker: int
    generation: int
    connections: int

    @property
    def full(self) -> bool:
        """Return whether the worker has as many files open as it may."""
        ...

    @property
    def has_room(self) -> bool:
        """Return whether the worker may be passed a connection now."""
        ...


P = TypeVar("P", bound=WorkerSlot)


class Placement(Generic[P]):
    """The workers that accept connections, at most one for each of ``count`` worker numbers."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._at: dict[int, P] = {}
        self._replacing = False
        self._room = trio.lowlevel.ParkingLot()  # many connections wait at once when a worker has ended
        self.generation = 0  # of workers that are started now; incremented by each rolling restart

    @contextmanager
    def replacing(self) -> Iterator[None]:
        """Begin a generation; until the block ends, prefer its workers."""
        self.generation += 1
        self._replacing = True
        try:
            yield
        finally:
            self._replacing = False

    def choose(self) -> P | None:
        """Return the worker with room that has the fewest connections; None if none has room."""
        free = [child for child in self._preferred() if child.has_room]
        return min(free, key=lambda child: child.connections, default=None)

    async def place(self) -> P | None:
        """Return the worker for a connection; None if all are full. Waits while none has room."""
        while True:
            child = self.choose()
            if child is not None or self.full:
                return child
            await self._room.park()

    def room_freed(self) -> None:
        """Wake the connections that wait in :meth:`place`: a worker has room again, or was added."""
        self._room.unpark_all()

    def _preferred(self) -> Sequence[P]:
        everyone = list(self._at.values())
        if self._replacing:
            fresh = [child for child in everyone if child.generation == self.generation]
            # Moving a connection twice is better than refusing it.
            if not all(child.full for child in fresh):
                return fresh
        return everyone

    def put(self, child: P) -> P | None:
        """Place connections with ``child``; return the worker that it supersedes."""
        former = self._at.get(child.worker)
        self._at[child.worker] = child
        self.room_freed()
        return former

    def drop(self, child: P) -> bool:
        """Place no more connections with ``child``, which has ended; return whether any would have been."""
        found = self._at.get(child.worker) is child
        if found:
            del self._at[child.worker]
        self.room_freed()  # without it, all others may be full: connections that wait are refused then
        return found

    def is_fresh(self, worker: int) -> bool:
        """Return whether ``worker`` accepts connections and is of the newest generation."""
        return worker in self._at and self._at[worker].generation == self.generation

    @property
    def full(self) -> bool:
        """Return whether there are workers, and each has as many files open as it may."""
        return bool(self._at) and all(child.full for child in self._at.values())

    @property
    def connections(self) -> dict[int, int]:
        """Return how many connections each worker has."""
        return {worker: child.connections for worker, child in self._at.items()}

    def problems(self) -> list[Condition]:
        """Return why no subscriber can be served: there is no worker."""
        return [] if self._at else [Condition("no_worker", "", "no worker takes connections")]

    def warnings(self) -> list[Condition]:
        """Return which workers are missing, and whether all others are full."""
        missing = [n for n in range(self._count) if n not in self._at]
        found = [Condition("worker_down", str(n), f"worker {n} is down") for n in missing]
        if self.full:
            what = "every worker has as many files open as it may: new connections are refused"
            found.append(Condition("workers_full", "", what))
        return found
