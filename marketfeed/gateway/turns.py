"""Expensive requests: one at a time per client, so that many of one client do not delay those of others."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from marketfeed.access.grant import Grant
    from marketfeed.gateway.http import Request


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
            # A lock that is released goes to the next at once. Whoever gave up may find it removed, and
            # another one in its place.
            if not lock.locked() and self._locks.get(client) is lock:
                del self._locks[client]


def client_of(request: Request, grant: Grant | None) -> str:
    """Return whose turn it is: that of the holder of ``grant``, without one of the address."""
    return request.address if grant is None else grant.holder
