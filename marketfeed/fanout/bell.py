"""What wakes a shard: somebody in its own process, or the writer of the rings in another."""

from __future__ import annotations

import os

import trio


class Bell:
    """Rung in this process, any number of times before it is heard."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        """Wake who waits, or have the next wait return at once."""
        self._rung.set()

    async def wait(self) -> None:
        """Return once it has rung since the last time; a checkpoint in any case."""
        await self._rung.wait()
        self._rung = trio.Event()


class DoorBell:
    """As :class:`Bell`, but an eventfd, so that another process can ring it too.

    The shard waits for it itself: a task on the way would be a turn of the loop more for each wake.
    """

    def __init__(self, descriptor: int) -> None:
        """``descriptor`` is a non-blocking eventfd, and stays its owner's."""
        self._descriptor = descriptor

    def ring(self) -> None:
        """Wake who waits, or have the next wait return at once."""
        os.eventfd_write(self._descriptor, 1)

    async def wait(self) -> None:
        """Return once it has rung since the last time; a checkpoint in any case."""
        await trio.lowlevel.wait_readable(self._descriptor)
        os.eventfd_read(self._descriptor)
