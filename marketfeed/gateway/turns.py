"""Expensive requests: one at a time per client, so that many of one client do not delay those of others."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Turns:
    """A lock per client that has a request."""

    def __init__(self) -> None:
        self._locks: dict[str, trio.Lock] = {}

    def __len__(self) -> int:
        """Return how many clients have a request."""
        return len(self._locks)

    @asynccontextmanager
    async def of(self, client: str) -> AsyncIterator[None]:
        """Wait for the earlier requests of ``client``, and let the later ones wait for the block."""
        lock = self._locks.setdefault(client, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():  # nobody waits: a lock that is released goes to the next at once
                del self._locks[client]
