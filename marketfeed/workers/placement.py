"""Which worker gets the next connection.

While workers are replaced one after the other, a connection goes to one that
has been replaced already. Its predecessor's sessions reconnect as they are sent
away, and a worker that is about to be replaced would send them away again.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from marketfeed.server.conditions import Condition

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class WorkerSlot(Protocol):
    """A worker process, as far as its connections are concerned (process.py)."""

    worker: int
    generation: int
    connections: int

    @property
    def full(self) -> bool:
        """Tell whether it has as many files open as it may."""
        ...

    @property
    def has_room(self) -> bool:
        """Tell whether it may be given a connection now."""
        ...


P = TypeVar("P", bound=WorkerSlot)


class Placement(Generic[P]):
    """The workers that take connections, at most one for each of ``count`` numbers."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._at: dict[int, P] = {}
        self._replacing = False
        self.generation = 0  # of workers that are started now; rises with each rolling restart

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
        """Return who gets the next connection: with the fewest, None if nobody has room."""
        free = [child for child in self._preferred() if child.has_room]
        return min(free, key=lambda child: child.connections, default=None)

    def _preferred(self) -> Sequence[P]:
        everyone = list(self._at.values())
        if self._replacing:
            fresh = [child for child in everyone if child.generation == self.generation]
            # A connection that is moved twice is better than one that is refused.
            if not all(child.full for child in fresh):
                return fresh
        return everyone

    def put(self, child: P) -> P | None:
        """Let ``child`` take connections; return the one with its number that did so before."""
        former = self._at.get(child.worker)
        self._at[child.worker] = child
        return former

    def drop(self, child: P) -> bool:
        """Give ``child``, which is gone, no more connections; tell whether it would have had some."""
        found = self._at.get(child.worker) is child
        if found:
            del self._at[child.worker]
        return found

    def is_fresh(self, worker: int) -> bool:
        """Tell whether ``worker`` is there, and of the newest generation."""
        return worker in self._at and self._at[worker].generation == self.generation

    @property
    def full(self) -> bool:
        """Whether there are workers, and each has as many files open as it may."""
        return bool(self._at) and all(child.full for child in self._at.values())

    @property
    def connections(self) -> dict[int, int]:
        """How many connections each worker has."""
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
