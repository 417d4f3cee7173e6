"""Builder of lives: rings under an epoch, their names, feeds and session server, from a configuration."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from marketfeed.core.layout import block_bytes
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter
from marketfeed.errors import StartError
from marketfeed.fanout.catchup import most_missing
from marketfeed.ingest.pump import Pump
from marketfeed.ingest.room import Room
from marketfeed.ingest.roster import Roster
from marketfeed.server.life import Life
from marketfeed.server.local import LocalServer
from marketfeed.workers.pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from marketfeed.config.schema import Config, EngineConfig
    from marketfeed.gateway.limits import Admission
    from marketfeed.ingest.pump import TickWriter
    from marketfeed.latency.aggregator import Aggregator
    from marketfeed.server.access_control import AccessControl
    from marketfeed.server.api import SessionServer
    from marketfeed.server.metering import Metering
    from marketfeed.server.overview import EngineOverview


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a life begins. An epoch is used once; ``names`` have the ids 0, 1, 2 …

    In the life of an ``origin`` the engine's feeds run. Otherwise the rings mirror those of another engine:
    they are written from outside, and :meth:`marketfeed.engine.Engine.wake` is called after each write.
    ``fill`` writes the first ticks, such as the newest of each symbol: with the life's ``writer`` or, in that
    of a mirror, with one of its own. It is called after the ticks of the former life have ended, and before
    the first session.
    """

    epoch: str | None = None  # None: random
    names: Sequence[str] = ()
    origin: bool = True
    fill: Callable[[Life], None] | None = None
    # The feeds of an origin write to its result.
    through: Callable[[Life, RingWriter], TickWriter] | None = None


class Builder:
    """Builds the lives of one engine, from what these share. ``wake`` is called after each batch of feeds."""

    def __init__(
        self,
        base: Path,
        log_level: str,
        admission: Admission,
        aggregator: Aggregator,
        overview: EngineOverview,
        metering: Metering,
        wake: Callable[[], None],
    ) -> None:
        self._base = base
        self._log_level = log_level
        self._admission = admission
        self._aggregator = aggregator
        self._overview = overview
        self._metering = metering
        self._wake = wake

    def begin(self, config: Config, beginning: Beginning) -> Life:
        """Return a life without a server and without planned feeds.

        Raises StartError if the machine has too little memory, ValueError for an invalid epoch, and
        InvalidSymbolError and SymbolsFullError for invalid names.
        """
        engine = config.engine
        rings = _rings(engine, beginning.epoch)
        symbols = SymbolTable(engine.max_symbols, rings.names)
        life = Life(rings, symbols)
        try:
            for name in beginning.names:
                symbols.intern(name)
            writer: TickWriter | None = None
            if beginning.origin:
                writer = plain = RingWriter(rings, time.time_ns)
                if beginning.through is not None:
                    writer = beginning.through(life, plain)
            self.equip(life, writer)
        except BaseException:
            life.end()
            raise
        return life

    def equip(self, life: Life, writer: TickWriter | None) -> None:
        """Give ``life`` a roster whose feeds write with ``writer``; None: its feeds do not run."""
        life.writer, rings, symbols = writer, life.rings, life.symbols
        runs = writer is not None
        if writer is None:  # a plan of feeds, which is a check, names symbols that are nobody's
            symbols, writer = SymbolTable(rings.max_symbols), RingWriter(Rings.private(1, 4))
        room = Room(rings.head, most_missing(rings.depth), life.wait_reached)
        pump = Pump(writer, symbols, self._wake, wait_room=room.wait)
        life.roster = Roster(pump, self._base, life.wait_sessions, runs)

    def server(self, config: Config, life: Life, access: AccessControl | None) -> SessionServer:
        """Return the session server of ``life``; raises ConfigError."""
        on_usage = self._metering.taker(life.symbols.names)
        if config.engine.workers:
            pool = WorkerPool(
                config,
                self._base,
                life.rings,
                self._admission,
                self._log_level,
                on_synced=life.on_synced,
                on_latencies=self._aggregator.take,
                overview=self._overview,
                desk=None if access is None else access.desk,
                on_usage=on_usage,
            )
            if access is not None:
                access.equip(pool)
            return pool
        return LocalServer(
            config,
            life.rings,
            life.symbols,
            self._admission,
            on_synced=life.on_synced,
            on_latencies=self._aggregator.take,
            overview=self._overview,
            access=None if access is None else access.access(),
            on_usage=on_usage,
        )


def _rings(engine: EngineConfig, epoch: str | None) -> Rings:
    """Return new rings; raises StartError and ValueError."""
    try:
        return Rings.shared(engine.max_symbols, engine.ring_depth, epoch)
    except (OSError, OverflowError, MemoryError) as error:
        size = block_bytes(engine.max_symbols, engine.ring_depth)
        what = f"engine.max_symbols × engine.ring_depth take {size / 1e9:.1f} GB of address space"
        raise StartError(f"{what}: {error}") from None
