"""The workers' doorbells: rung at every batch, unless workers would only wait for each other's cores."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REST_S: Final = 0.004  # between rings of one bell, for each further worker that shares a core
STEP_S: Final = 0.002  # between rings of bells whose workers share cores: what one is about to need


class Doorbells:
    """Eventfds, one a worker.

    Each ring wakes a worker. Where workers have to wait for each other's
    cores, as many wakes as ticks would take more of these than what there is
    to send; so a ring is followed by a rest, and what came meanwhile by
    another ring. And there as many are rung at a time as there are cores,
    those first that have rested longest: all at once, the last would wait for
    the others' work. No more workers than cores: all at once, and no rest.
    """

    def __init__(self, workers: int, descriptors: Callable[[], Sequence[int]]) -> None:
        """``descriptors`` returns the eventfds of the workers there are at that moment."""
        self._descriptors = descriptors
        self._cores = len(os.sched_getaffinity(0))
        self._rest_s = REST_S * max(0.0, workers / self._cores - 1)
        self._rung_s: dict[int, float] = {}  # when each was rung last
        self._owed: set[int] = set()  # those to be rung, and not yet
        self._next_s = 0.0  # none before then
        self._waiting = trio.Event()

    def ring(self) -> None:
        """Wake all workers, now or each in its turn. Never waits."""
        if not self._rest_s:
            for descriptor in self._descriptors():
                os.eventfd_write(descriptor, 1)
            return
        self._owed.update(self._descriptors())
        self._ring_some()

    def _ring_some(self) -> None:
        """Ring as many of those that are owed as there are cores, if their time has come."""
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
        """Ring those whose turn comes later, for ever."""
        while True:
            await self._waiting.wait()
            soonest_s = min((self._rung_s.get(d, 0.0) for d in self._owed), default=0.0) + self._rest_s
            await trio.sleep_until(max(soonest_s, self._next_s))
            self._waiting = trio.Event()
            self._ring_some()
