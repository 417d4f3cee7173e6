"""The engine: the tree of all long-lived tasks.

    serve
    └── watch             ends last: admin listener, garbage collector, the second signal
        └── sessions      the shard, and a task per session
            └── sources   ends first: the gateway's listener, a supervisor per feed

A drain cancels the sources, ends every session, and waits at most drain_s.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

import structlog
import trio

from marketfeed.admin.health import Health, Phase
from marketfeed.admin.listener import Admin
from marketfeed.admin.metrics import Sources
from marketfeed.admin.token import AdminToken
from marketfeed.checks import addresses, admin_token, check_log_path, idle, tap_path
from marketfeed.core.addresses import host_port
from marketfeed.core.layout import block_bytes
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter
from marketfeed.errors import StartError, gathered
from marketfeed.fanout.catchup import most_missing
from marketfeed.gateway.hosts import Hosts, own_names
from marketfeed.gateway.limits import Admission
from marketfeed.gateway.listener import accept_from, accept_http, open_listener, raise_file_limit
from marketfeed.ingest.pump import Pump
from marketfeed.ingest.room import Room
from marketfeed.ingest.roster import Roster
from marketfeed.latency.aggregator import Aggregator
from marketfeed.latency.log import IntervalLog
from marketfeed.reloads import Reloads
from marketfeed.server.access_control import AccessControl
from marketfeed.server.alerting import Alerting
from marketfeed.server.local import LocalServer, validate
from marketfeed.server.metering import Metering
from marketfeed.server.overview import EngineOverview
from marketfeed.server.settings import limits_of
from marketfeed.server.tap_listener import Taps
from marketfeed.workers.pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.socket import SocketType

    from marketfeed.config.schema import Loaded
    from marketfeed.server.api import SessionServer

log = structlog.get_logger()


class Engine:
    """All parts of one engine process, built from its configuration."""

    def __init__(
        self, loaded: Loaded, log_level: str = "info", load: Callable[[], Loaded] | None = None
    ) -> None:
        """Build everything that needs no socket; raises ConfigError.

        ``load`` reads the configuration again.
        """
        self.config = config = loaded.config
        engine = config.engine
        try:
            self.rings = Rings.shared(engine.max_symbols, engine.ring_depth)
        except (OSError, OverflowError, MemoryError) as error:
            size = block_bytes(engine.max_symbols, engine.ring_depth)
            what = f"engine.max_symbols × engine.ring_depth take {size / 1e9:.1f} GB of address space"
            raise StartError(f"{what}: {error}") from None
        self.symbols = SymbolTable(engine.max_symbols, self.rings.names)
        self.admission = Admission(limits_of(config.limits))
        self._synced = trio.Event()
        latency = config.latency
        self.aggregator = Aggregator(
            IntervalLog(loaded.base / latency.path, latency.max_bytes, latency.keep_files),
            {name: tier.interval_ms for name, tier in config.tiers.items()},
        )
        self.overview = EngineOverview(self.aggregator)
        self.metering = Metering(loaded, self.symbols.names)
        found: list[str] = []
        self.access: AccessControl | None = None  # None: auth.mode is none
        with gathered(found):
            if config.auth.mode != "none":
                self.access = AccessControl(loaded)
        with gathered(found):
            validate(config)
            self.server = self.overview.server = self._session_server(loaded, log_level)
        with gathered(found):
            self.taps = Taps(self.rings, tap_path(loaded), config.limits.taps)
        with gathered(found):
            check_log_path(loaded)
        with gathered(found):
            self.admin_token = AdminToken(admin_token(loaded))
        room = Room(self.rings.head, most_missing(engine.ring_depth), self._wait_reached)
        writer = RingWriter(self.rings, time.time_ns)
        self.pump = Pump(writer, self.symbols, self._wake, wait_room=room.wait)
        self.roster = self.overview.roster = Roster(self.pump, loaded.base, self._wait_sessions)
        with gathered(found):
            self.roster.plan(config.feeds, addresses(config))
        with gathered(found):
            self.alerting = Alerting(loaded, self.rings, self.symbols, self.roster)
        if found:
            raise loaded.refusal(found)
        if self.access is not None:
            self.access.server = self.server
            self.access.desk.on_sessions = self.metering.count_sessions
        self.metering.on_change = self.server.limit
        self.health = Health(
            self.server, self.roster, self.aggregator, self.taps, self.symbols,
            self.alerting, self.metering, self.access,
        )  # fmt: skip
        self.parts = Sources(
            self.server, self.rings, self.symbols, self.roster, self.taps, self.aggregator, self.admission,
            self.health, self.alerting, self.metering, self.overview, self.access,
        )  # fmt: skip
        self.reloads = Reloads(self.parts, self.admin_token, config, load or (lambda: loaded))

    def _session_server(self, loaded: Loaded, log_level: str) -> SessionServer:
        config = loaded.config
        if config.engine.workers:
            return WorkerPool(
                config,
                loaded.base,
                self.rings,
                self.admission,
                log_level,
                on_synced=self._on_synced,
                on_latencies=self.aggregator.take,
                overview=self.overview,
                desk=None if self.access is None else self.access.desk,
                on_usage=self.metering.take,
            )
        return LocalServer(
            config,
            self.rings,
            self.symbols,
            self.admission,
            on_synced=self._on_synced,
            on_latencies=self.aggregator.take,
            overview=self.overview,
            access=None if self.access is None else self.access.access(),
            on_usage=self.metering.take,
        )

    def _wake(self) -> None:
        self.server.wake()
        self.taps.ring()
        self.alerting.ring()

    def _on_synced(self) -> None:
        self._synced.set()
        self._synced = trio.Event()

    async def _wait_sessions(self, count: int) -> None:
        while self.server.synced_sessions < count:
            await self._synced.wait()

    async def _wait_reached(self, g: int) -> None:
        await self.server.wait_reached(g)

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit status. Raises StartError."""
        config = self.config
        listener = await open_listener(config.gateway.host, config.gateway.port)
        with (
            listener,
            await open_listener(config.admin.host, config.admin.port, "admin") as admin_listener,
            self.taps.open(),
            nullcontext() if self.access is None else self.access.open(),
            trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals,
        ):
            async with self.alerting.open(), self.metering.open():
                self.server.alerts = self.alerting.dispatch
                error = await self._serve(listener, admin_listener, signals)
        if error is not None:
            raise error
        log.info("stopped")
        return 0

    async def _serve(
        self, listener: SocketType, admin_listener: SocketType, signals: AsyncIterator[int]
    ) -> StartError | None:
        """Serve until SIGTERM or SIGINT; return the error that prevented the start, if any."""
        host, port = self.config.gateway.host, listener.getsockname()[1]
        server = self.server
        failed: StartError | None = None
        admin = Admin(
            self.parts,
            Hosts(own_names(self.config.admin.hosts, self.config.admin.host)),
            self.admin_token,
        )
        admin_port = admin_listener.getsockname()[1]
        self.overview.serve_admin(self.config.admin.host, admin_port, lambda: self.admin_token.needed)
        async with trio.open_nursery() as watch:
            watch.start_soon(server.collector.run)
            watch.start_soon(accept_http, admin_listener, admin.server, watch)
            watch.start_soon(self.taps.accept, watch)
            watch.start_soon(self.alerting.run)
            if self.access is not None:
                watch.start_soon(self.access.run)
            watch.start_soon(self.metering.run)
            if self.config.latency.enabled:
                watch.start_soon(self.aggregator.run)
            async with trio.open_nursery() as sessions:
                try:
                    await server.start(port, sessions)
                except StartError as error:
                    failed = error  # raised outside: here it would become part of an exception group
                    watch.cancel_scope.cancel()
                    await trio.lowlevel.checkpoint()
                async with trio.open_nursery() as sources:
                    sources.start_soon(accept_from, listener, server.counters, server.take)
                    await self.roster.apply(sources)
                    sources.start_soon(self.reloads.run, sources)
                    self.health.phase = Phase.SERVING
                    log.info("admin listening", port=admin_port)
                    self._print_ready(host, port)
                    async for number in signals:
                        if number != signal.SIGHUP:
                            break
                        self.reloads.ask()
                    self.health.phase = Phase.DRAINING
                    drain_s = self.reloads.config.engine.drain_s
                    log.info("draining", sessions=len(server), drain_s=drain_s)
                    watch.start_soon(_stop_on_second, signals)
                    sources.cancel_scope.cancel()
                # No new ticks, no new sessions; sessions have drain_s to end.
                listener.close()
                await server.drain(drain_s)
                sessions.cancel_scope.cancel()
            await self.aggregator.finish()
            watch.cancel_scope.cancel()
        return failed

    def _print_ready(self, host: str, port: int) -> None:
        scheme = "https" if self.config.gateway.tls_cert else "http"
        print(f"marketfeed ready {scheme}://{host_port(host, port)} epoch={self.rings.epoch}", flush=True)


async def _stop_on_second(signals: AsyncIterator[int]) -> None:
    while await anext(signals) == signal.SIGHUP:
        log.warning("not reloaded: draining")
    log.warning("stopped at once by a second signal")
    sys.stdout.flush()
    os._exit(130)


def check(loaded: Loaded) -> None:
    """Build an engine as ``serve`` does, without opening a socket; raises ConfigError."""
    Engine(loaded)


async def serve(loaded: Loaded, log_level: str = "info", load: Callable[[], Loaded] | None = None) -> int:
    """Run the engine until a signal; return the exit status. Raises ConfigError and StartError.

    ``load`` reads the configuration again, on SIGHUP.
    """
    files = raise_file_limit()
    engine = Engine(loaded, log_level, load)
    for warning in idle(loaded):
        log.warning(warning)
    log.info("starting", feeds=engine.roster.planned, file_limit=files)
    return await engine.run()
