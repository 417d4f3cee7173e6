"""Doorbells of the workers: rung at every batch, less often if there are more workers than cores."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REST_S: Final = 0.004  # between rings of one doorbell, for each further worker that shares a core
STEP_S: Final = 0.002  # between rings of workers that share cores: about the CPU time of one wake-up


class Doorbells:
    """Eventfds, one per worker.

    Each ring wakes a worker. If there are no more workers than cores, all are rung at every batch.
    Otherwise waking all of them at every batch would cost more CPU time than sending, so a doorbell
    is not rung again for REST_S per further worker on its core, and rings in between are
    coalesced. Then, too, only as many doorbells are rung at a time as there are cores, the longest
    rested first: if all were rung at once, the last worker would wait for the work of the others.
    """

    def __init__(self, workers: int, descriptors: Callable[[], Sequence[int]]) -> None:
        """``descriptors`` returns the eventfds of the workers that run now."""
        self._descriptors = descriptors
        self._cores = len(os.sched_getaffinity(0))
        self._rest_s = REST_S * max(0.0, workers / self._cores - 1)
        self._rung_s: dict[int, float] = {}  # when each was last rung
        self._owed: set[int] = set()  # to be rung
        self._next_s = 0.0  # the earliest time of the next ring
        self._waiting = trio.Event()

    def ring(self) -> None:
        """Wake all workers, now or when they have rested. Never waits."""
        if not self._rest_s:
            for descriptor in self._descriptors():
                os.eventfd_write(descriptor, 1)
            return
        self._owed.update(self._descriptors())
        self._ring_some()

    def _ring_some(self) -> None:
        """Ring at most one owed doorbell per core, if they have rested."""
        now_s = trio.current_time()
        there = self._descriptors()
        self._rung_s = {descriptor: self._rung_s.get(descriptor, 0.0) for descriptor in there}
        self._owed.intersection_update(there)
        if now_s >= self._next_s:
            rested = [d for d in there if d in self._owed and now_s >= self._rung_s[d] + self._rest_s]
            for descriptor in sorted(rested, key=self._rung_s.__getitem__)[: self._cores]:
                os.eventfd_write(descriptor, 1)
                self._rung_s[descriptor] = now_s
                self._owed.remove(descriptor)
                self._next_s = now_s + STEP_S
        if self._owed:
            self._waiting.set()

    async def run(self) -> None:
        """Ring the owed doorbells when they have rested. Runs for ever."""
        while True:
            await self._waiting.wait()
            soonest_s = min((self._rung_s.get(d, 0.0) for d in self._owed), default=0.0) + self._rest_s
            await trio.sleep_until(max(soonest_s, self._next_s))
            self._waiting = trio.Event()
            self._ring_some()
