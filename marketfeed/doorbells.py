"""The workers' doorbells: rung at every batch, unless workers would only wait for each other's cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Final

import trio

REST_S: Final = 0.004  # between rings, for each further worker that shares a core


class Doorbells:
    """Eventfds, one a worker, that are rung together.

    Each ring wakes every worker. Where they have to wait for each other's
    cores, as many wakes as ticks would take more of these than what there is
    to send; so a ring is followed by a rest, and what came meanwhile by
    another ring. No more workers than cores: no rest.
    """

    def __init__(self, workers: int, descriptors: Callable[[], Iterable[int]]) -> None:
        """``descriptors`` returns the eventfds of the workers there are at that moment."""
        self._descriptors = descriptors
        self._rest_s = REST_S * max(0.0, workers / len(os.sched_getaffinity(0)) - 1)
        self._next_s = 0.0  # not before then
        self._owed = trio.Event()  # something came during a rest

    def ring(self) -> None:
        """Wake all workers, now or after the rest. Never waits."""
        if self._rest_s:
            now_s = trio.current_time()
            if now_s < self._next_s:
                self._owed.set()
                return
            self._next_s = now_s + self._rest_s
        for descriptor in self._descriptors():
            os.eventfd_write(descriptor, 1)

    async def run(self) -> None:
        """Ring for what came during rests, for ever."""
        while True:
            await self._owed.wait()
            await trio.sleep_until(self._next_s)
            self._owed = trio.Event()
            self.ring()
