"""Bells wake a shard, from its own process or from that of the ring writer."""

from __future__ import annotations

import os

import trio


class Bell:
    """Wakes one waiting task in this process."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        """Wake the waiting task, or let the next wait return at once. Idempotent; repeated calls coalesce."""
        self._rung.set()

    async def wait(self) -> None:
        """Return once the bell has rung since the last call. Always a checkpoint."""
        await self._rung.wait()
        self._rung = trio.Event()


class DoorBell:
    """Like :class:`Bell`, over an eventfd, which another process can ring too.

    The shard waits for the eventfd itself: a task in between would add a pass of the event loop to each wake.
    """

    def __init__(self, descriptor: int) -> None:
        """``descriptor`` is a non-blocking eventfd. The caller closes it."""
        self._descriptor = descriptor

    def ring(self) -> None:
        """Wake the waiting task, or let the next wait return at once. Idempotent; repeated calls coalesce."""
        os.eventfd_write(self._descriptor, 1)

    async def wait(self) -> None:
        """Return once the bell has rung since the last call. Always a checkpoint."""
        await trio.lowlevel.wait_readable(self._descriptor)
        os.eventfd_read(self._descriptor)
