"""A life of the engine: what belongs to one epoch, from its first tick to the end of its last session."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from marketfeed.core.rings import Rings
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.ingest.pump import TickWriter
    from marketfeed.ingest.roster import Roster
    from marketfeed.server.api import SessionServer


class Life:
    """Rings of one epoch, their names, the feeds that fill them, and the server of the sessions on them.

    ``writer`` is None in the life of a mirror: its rings are written from outside, its feeds do not run and
    its names come with the ticks. ``roster`` and ``server`` refer to the life, and are set after it.
    """

    roster: Roster
    server: SessionServer

    def __init__(self, rings: Rings, symbols: SymbolTable) -> None:
        """Take ownership of ``rings``, which are in a memfd."""
        self.rings = rings
        self.symbols = symbols
        self.writer: TickWriter | None = None
        self.superseded = trio.Event()
        self._synced = trio.Event()

    @property
    def epoch(self) -> str:
        """Return the epoch of the rings."""
        epoch: str = self.rings.epoch
        return epoch

    def on_synced(self) -> None:
        """Wake :meth:`wait_sessions`: one more session was sent its first `synced`."""
        self._synced.set()
        self._synced = trio.Event()

    async def wait_sessions(self, count: int) -> None:
        """Return once ``count`` sessions are synced."""
        while self.server.synced_sessions < count:
            await self._synced.wait()

    async def wait_reached(self, g: int) -> None:
        """Return once every session on an ``every`` tier has read its ticks up to ``g`` from the rings."""
        await self.server.wait_reached(g)

    def end(self) -> None:
        """Close the memfd. Its memory is freed with the last mapping, which may be a tap's. Idempotent."""
        if self.rings.fd >= 0:
            os.close(self.rings.fd)
            self.rings.fd = -1
