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
from functools import partial
from typing import TYPE_CHECKING, Literal

import structlog
import trio

from marketfeed.admin.health import Health, Phase
from marketfeed.admin.listener import Admin
from marketfeed.admin.metrics import Sources
from marketfeed.admin.token import AdminToken
from marketfeed.api.messages import Source
from marketfeed.builder import Beginning, Builder
from marketfeed.checks import addresses, admin_token, check_log_path, idle, tap_path
from marketfeed.cluster.link_settings import link_settings
from marketfeed.core.addresses import host_port
from marketfeed.core.units import US
from marketfeed.errors import StartError, gathered
from marketfeed.gateway.hosts import Hosts, own_names
from marketfeed.gateway.limits import Admission
from marketfeed.gateway.listener import accept_from, accept_http, open_listener, raise_file_limit
from marketfeed.gateway.overview import NodeNow
from marketfeed.latency.aggregator import Aggregator
from marketfeed.latency.log import IntervalLog
from marketfeed.reloads import Reloads
from marketfeed.server.access_control import AccessControl
from marketfeed.server.alerting import Alerting
from marketfeed.server.lives import Lives
from marketfeed.server.local import validate
from marketfeed.server.metering import Metering
from marketfeed.server.overview import EngineOverview
from marketfeed.server.settings import limits_of
from marketfeed.server.tap_listener import Taps
from marketfeed.succession import Succession

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable

    from trio.socket import SocketType

    from marketfeed.cluster.link_settings import LinkSettings
    from marketfeed.clustering.member import Member
    from marketfeed.config.schema import Loaded

log = structlog.get_logger()


class Engine:
    """All parts of one engine process, built from its configuration."""

    def __init__(
        self,
        loaded: Loaded,
        log_level: str = "info",
        load: Callable[[], Loaded] | None = None,
        origin: bool = True,
    ) -> None:
        """Build everything that needs no socket; raises ConfigError and StartError.

        ``load`` reads the configuration again. ``origin``: the first life is one, see :class:`Beginning`.
        """
        self.config = config = loaded.config
        self.port = config.gateway.port  # that of the listener, once the engine serves
        self.serving = trio.Event()
        self.sources: trio.Nursery  # of the feeds of all lives, while the engine serves
        self.admission = Admission(limits_of(config.limits))
        latency = config.latency
        self.aggregator = Aggregator(
            IntervalLog(loaded.base / latency.path, latency.max_bytes, latency.keep_files),
            {name: tier.interval_ms for name, tier in config.tiers.items()},
        )
        self.overview = EngineOverview(self.aggregator)
        self.metering = Metering(loaded)
        builder = Builder(
            loaded.base, log_level, self.admission, self.aggregator, self.overview, self.metering, self.wake
        )
        origin = origin and config.cluster is None
        life = builder.begin(config, Beginning(origin=origin))
        found: list[str] = []
        self.access: AccessControl | None = None  # None: auth.mode is none
        with gathered(found):
            if config.auth.mode != "none":
                self.access = AccessControl(loaded)
        with gathered(found):
            validate(config)
            life.server = builder.server(config, life, self.access)
        with gathered(found):
            self.taps = Taps(life.rings, tap_path(loaded), config.limits.taps)
        with gathered(found):
            check_log_path(loaded)
        with gathered(found):
            self.admin_token = AdminToken(admin_token(loaded))
        with gathered(found):
            life.roster.plan(config.feeds, addresses(config))
        with gathered(found):
            self.alerting = Alerting(loaded, life.rings, life.symbols, life.roster, origin)
        self.member: Member | None = None  # None: without a cluster
        link: LinkSettings | None = None
        with gathered(found):
            if config.cluster is not None:
                link = link_settings(config.cluster, os.environ)
        if found:
            life.end()
            raise loaded.refusal(found)
        self.lives = self.overview.server = Lives(life)
        self.overview.roster = life.roster
        if self.access is not None:
            self.access.server = self.lives
            self.access.desk.on_sessions = self.metering.count_sessions
        self.metering.on_change = self.lives.limit
        if config.cluster is not None and link is not None:
            from marketfeed.cluster.link import open_link  # nats-py is needed by nodes of a cluster alone
            from marketfeed.clustering.member import Member

            folder = (loaded.base / config.alerts.path).parent
            self.member = Member(self, config.cluster, partial(open_link, link), folder=folder)
        cluster = None if self.member is None else self.member.view
        self.health = Health(
            self.lives, self.aggregator, self.taps, self.alerting, self.metering, self.access, cluster
        )
        self.parts = Sources(
            self.lives, self.taps, self.aggregator, self.admission, self.health, self.alerting,
            self.metering, self.overview, self.access, cluster,
        )  # fmt: skip
        self.overview.nodes = (lambda: (self.node(),)) if self.member is None else self.member.view.clients
        self.succession = Succession(self, builder)
        self.reloads = Reloads(self.parts, self.admin_token, config, load or (lambda: loaded))

    def node(self) -> NodeNow:
        """Return this engine as ``/v1/nodes`` lists it without a cluster."""
        source, state = self.lives.source, self.health.status()
        if state == "ready" and source is not None and source.state == "stale":
            state = "stale"
        return NodeNow("", "", len(self.lives), self.admission.limits.sessions, state)

    def source_state(self, shard: str, state: Literal["stale", "live"]) -> None:
        """Tell all sessions that the source of the ticks of ``shard`` is not heard, or is again."""
        self.lives.source_state(Source(shard, state, time.time_ns() // US))

    def wake(self) -> None:
        """Wake all readers of the rings, after ticks were written. Idempotent; repeated calls coalesce."""
        self.lives.wake()
        self.taps.ring()
        self.alerting.ring()

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit status. Raises StartError."""
        config = self.config
        listener: SocketType | None = None
        if self.member is None or self.member.config.role != "ingest":
            listener = await open_listener(config.gateway.host, config.gateway.port)
        with (
            nullcontext() if listener is None else listener,
            await open_listener(config.admin.host, config.admin.port, "admin") as admin_listener,
            self.taps.open(),
            nullcontext() if self.access is None else self.access.open(),
            trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals,
        ):
            async with self.alerting.open(), self.metering.open():
                self.lives.alerts = self.alerting.dispatch
                error = await self._serve(listener, admin_listener, signals)
        if error is not None:
            raise error
        log.info("stopped")
        return 0

    async def _take(self, sock: socket.socket, address: str) -> None:
        """Pass a connection on; a node of a cluster closes it while it has no ticks to serve."""
        if self.member is None or self.member.course.joined.is_set():
            await self.lives.take(sock, address)
        else:
            self.lives.counters.refused["joining"] += 1
            sock.close()

    async def _announce(self, member: Member, host: str, port: int) -> None:
        """Print that sessions are served, once a node of a cluster does so."""
        await member.course.joined.wait()
        self._print_ready(host, port)

    async def _serve(
        self, listener: SocketType | None, admin_listener: SocketType, signals: AsyncIterator[int]
    ) -> StartError | None:
        """Serve until SIGTERM or SIGINT; return the error that prevented the start, if any.

        Without a ``listener``, there are no sessions.
        """
        host, port = self.config.gateway.host, 0 if listener is None else listener.getsockname()[1]
        self.port = port
        server = self.lives
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
                    if listener is not None:
                        sources.start_soon(accept_from, listener, server.counters, self._take)
                    self.sources = sources
                    await server.roster.apply(sources)
                    sources.start_soon(self.reloads.run, sources)
                    self.health.phase = Phase.SERVING
                    log.info("admin listening", port=admin_port)
                    if self.member is None:
                        self._print_ready(host, port)
                    else:
                        sources.start_soon(self.member.run, sources)
                        sources.start_soon(self._announce, self.member, host, port)
                    self.serving.set()
                    async for number in signals:
                        if number != signal.SIGHUP:
                            break
                        self.reloads.ask()
                    self.health.phase = Phase.DRAINING
                    drain_s = self.reloads.config.engine.drain_s
                    log.info("draining", sessions=len(server), drain_s=drain_s)
                    watch.start_soon(_stop_on_second, signals)
                    if self.member is not None:
                        await self.member.leave()
                    sources.cancel_scope.cancel()
                # No new ticks, no new sessions; sessions have drain_s to end.
                if listener is not None:
                    listener.close()
                await server.drain(drain_s)
                sessions.cancel_scope.cancel()
            await self.aggregator.finish()
            watch.cancel_scope.cancel()
        return failed

    def _print_ready(self, host: str, port: int) -> None:
        scheme = "https" if self.config.gateway.tls_cert else "http"
        where = f"{scheme}://{host_port(host, port)}" if port else "without gateway"
        print(f"marketfeed ready {where} epoch={self.lives.rings.epoch}", flush=True)


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
    log.info("starting", feeds=engine.lives.roster.planned, file_limit=files)
    return await engine.run()
