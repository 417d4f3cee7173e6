"""A server of sessions in this process.

    rings ──► shard ──► gateway ──► sockets

With ``engine.workers = 0`` the engine has one in its own process; otherwise every worker process has one,
over the same rings.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec
import numpy.ma  # noqa: F401  # np.unique imports it on its first call: 50 ms during a flush
import trio

from marketfeed.access.quotas import Limited
from marketfeed.access.revocations import Revocations
from marketfeed.api.operations import SessionList, SessionRow
from marketfeed.core.authority import parse_origin
from marketfeed.core.units import S
from marketfeed.fanout.round_trips import empty
from marketfeed.fanout.shard import Shard
from marketfeed.fanout.state import State
from marketfeed.fanout.wire import ENCODINGS
from marketfeed.gateway.cluster_view import ClusterView
from marketfeed.gateway.connections import Gateway
from marketfeed.gateway.expiries import Expiries
from marketfeed.gateway.handshakes import Handshakes
from marketfeed.gateway.hosts import Hosts, own_names
from marketfeed.gateway.limits import Admits, Counters
from marketfeed.gateway.live_alerts import LiveViews
from marketfeed.gateway.origins import own_origins
from marketfeed.gateway.protocol import VERSION
from marketfeed.gateway.proxies import Proxies
from marketfeed.gateway.session import Service
from marketfeed.gateway.tls import Certificate
from marketfeed.latency.aggregator import tell_intervals
from marketfeed.latency.recorder import LatencyRecorder
from marketfeed.server.gc_control import Collector
from marketfeed.server.process_usage import cpu_s, resident_bytes
from marketfeed.server.recent_ledgers import RecentLedgers
from marketfeed.server.self_probe import OwnProbe
from marketfeed.server.sessions import row_of, why_slow
from marketfeed.server.settings import limits_of, tiers_of, timing_of
from marketfeed.server.stats import ServerStats
from marketfeed.server.sweeps import Sweeps

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from marketfeed.access.access import Access
    from marketfeed.access.material import Material
    from marketfeed.access.quotas import Over
    from marketfeed.access.revocations import Revocation
    from marketfeed.access.usage import Report
    from marketfeed.alerts.service import AlertService
    from marketfeed.api.messages import Source
    from marketfeed.config.schema import AuthConfig, Config
    from marketfeed.core.rings import Rings
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.errors import CloseCode
    from marketfeed.fanout.bell import Bell, DoorBell
    from marketfeed.fanout.ledger import Ledger
    from marketfeed.gateway.overview import Overview
    from marketfeed.latency.intervals import Interval
    from marketfeed.server.conditions import Condition

YIELD_ROWS: Final = 100


def validate(config: Config) -> None:
    """Raise ConfigError if ``config`` has an invalid certificate."""
    certificate_of(config)


def certificate_of(config: Config) -> Certificate | None:
    """Return the certificate of ``config``, None if it has none; raises ConfigError."""
    cert, key = config.gateway.tls_cert, config.gateway.tls_key
    return Certificate(cert, key) if cert and key else None


class LocalServer:
    """Shard, gateway and garbage collector of one process; ``admission`` admits sessions."""

    def __init__(
        self,
        config: Config,
        rings: Rings,
        symbols: SymbolTable,
        admission: Admits,
        *,
        on_synced: Callable[[], None],
        on_latencies: Callable[[list[Interval]], None],
        overview: Overview,
        on_usage: Callable[[Report], None] = lambda report: None,
        worker: int = 0,
        bell: Bell | DoorBell | None = None,
        alerts: AlertService | None = None,
        access: Access | None = None,
    ) -> None:
        """Build everything that needs no socket; raises ConfigError. ``alerts`` may be set until the start.

        Without ``access`` everybody may see everything.

        ``on_synced`` is called each time one more session has been sent its first `synced`,
        ``on_latencies`` with the measurements of each interval, ``on_usage`` with what users got.
        """
        self._config = config
        self._worker = worker
        self._name = f"worker {worker}" if config.engine.workers else "engine"
        latency = config.latency
        self._recorder = (
            LatencyRecorder(rings.stamps, rings.max_symbols, latency.top_symbols, worker)
            if latency.enabled
            else None
        )
        self._on_latencies = on_latencies
        self._on_usage = on_usage
        self.limited = Limited()
        self.cluster = ClusterView()
        self._overview = overview
        self.shard = Shard(
            rings,
            symbols,
            timing_of(config.limits),
            config.engine.resume_ticks,
            time.time_ns,
            self._recorder,
            bell,
            on_synced,
        )
        self.wake = self.shard.ticked
        self._ledgers = RecentLedgers(self.shard.figures)
        self._probes: list[OwnProbe] = []
        self.collector = Collector()
        self.counters = Counters()
        self._handshakes = Handshakes(processes=max(1, config.engine.workers))
        self._admission = admission
        self.alerts = alerts
        self._access = access
        self._expiries = None if access is None else Expiries(access.now_s)
        self._access_changed = trio.Event()
        self._views: LiveViews | None = None
        self._certificate = certificate_of(config)
        self._port = config.gateway.port
        self._gateway = Gateway(self._service(self._port))
        self._sessions: trio.Nursery | None = None

    def _service(self, port: int) -> Service:
        """Return the Service of the present configuration, with the gateway on ``port``."""
        gateway = self._config.gateway
        tiers = tiers_of(self._config, self._worker)
        limit_per_s = self._config.limits.handshakes_per_s
        self._handshakes.limit_per_s = limit_per_s / max(1, self._config.engine.workers)
        own = own_origins(gateway.host, port, self._certificate is not None)
        # Hosts of allowed origins are also served, so that a proxy's name is configured once.
        allowed = [
            origin.host
            for text in gateway.allowed_origins
            if (origin := parse_origin(text)) is not None and origin.port is not None
        ]
        return Service(
            shard=self.shard,
            tiers=tiers,
            default_tier=tiers[gateway.default_tier],
            limits=limits_of(self._config.limits),
            allowed_origins=frozenset(gateway.allowed_origins) | own,
            hosts=Hosts([*own_names(gateway.hosts, gateway.host), *allowed]),
            admission=self._admission,
            counters=self.counters,
            handshakes=self._handshakes,
            encoding=ENCODINGS[gateway.encoding],
            proxies=Proxies(gateway.trusted_proxies),
            certificate=self._certificate,
            overview=self._overview,
            alerts=self.alerts,
            views=self._views,
            access=self._access,
            expiries=self._expiries,
            limited=self.limited,
            cluster=self.cluster,
        )

    @property
    def synced_sessions(self) -> int:
        """Return how many sessions were sent their first `synced`."""
        return self.shard.synced_sessions

    def __len__(self) -> int:
        """Return the number of sessions."""
        return len(self._gateway.sessions)

    async def wait_reached(self, g: int) -> None:
        """Return once every session on an ``every`` tier has read its ticks up to ``g`` from the rings."""
        await self.shard.slowest.wait(g)

    async def start(self, port: int, nursery: trio.Nursery) -> None:
        """Start the shard; it and every session run in ``nursery``. ``port`` is the gateway's."""
        self._port = port
        if self.alerts is not None:
            self._views = LiveViews(self.alerts, self.shard)
            nursery.start_soon(self._views.run)
        if self._access is not None and self._expiries is not None:
            nursery.start_soon(self._expiries.run)
            nursery.start_soon(self._recheck_when_changed, self._access)
        self._gateway = Gateway(self._service(port))
        self._sessions = nursery
        nursery.start_soon(self.shard.run)
        nursery.start_soon(self._gateway.tell_sources)
        if self._recorder is not None:
            interval_s = self._config.latency.interval_s
            nursery.start_soon(
                tell_intervals, self._recorder, interval_s, self.shard.ticks, self._on_latencies
            )
            self._start_probes()
        if self._config.auth.mode != "none":
            sweeps = Sweeps(self.shard, self._on_usage, time.time)
            nursery.start_soon(sweeps.run)

    def limit(self, over: list[Over]) -> None:
        """Apply that the tenants in ``over``, and no others, exceed a quota."""
        self._gateway.limit(self.limited.set(over))

    def source_state(self, source: Source) -> None:
        """Tell every session the state of the source of ticks, and mark snapshots while it is stale."""
        self.cluster.source = source
        self.shard.mark_stale(self.cluster.stale)
        self.cluster.changed.set()

    def elsewhere(self, urls: Sequence[str]) -> None:
        """Name the nodes that clients are sent to when the engine drains; () for none."""
        self.cluster.urls = urls

    async def _recheck_when_changed(self, access: Access) -> None:
        """Hold sessions to their grants whenever keys, tenants or revocations have changed."""
        access.on_change.append(lambda: self._access_changed.set())
        while True:
            await self._access_changed.wait()
            self._access_changed = trio.Event()
            await self._gateway.recheck()

    def _start_probes(self) -> None:
        """Start a probe for each tier."""
        if self._recorder is None or self._sessions is None or not self._config.latency.probe:
            return
        limit_ns = int(self._config.latency.interruption_s * S)
        for tier in tiers_of(self._config, self._worker).values():
            probe = OwnProbe(self.shard, tier, self._recorder.tier(tier.name), limit_ns)
            self._probes.append(probe)
            self._sessions.start_soon(probe.run, self._sessions)

    async def take(self, sock: socket.socket, address: str) -> None:
        """Serve ``sock``, a new connection from ``address``, in a new task."""
        assert self._sessions is not None
        self._sessions.start_soon(self._gateway.serve, sock, address, self._sessions)

    async def serve(self, sock: socket.socket, address: str) -> None:
        """Serve ``sock``, a new connection from ``address``, until it closes."""
        assert self._sessions is not None
        await self._gateway.serve(sock, address, self._sessions)

    async def drain(self, drain_s: float) -> None:
        """End every session; return when all have ended, at the latest after ``drain_s``."""
        with trio.move_on_after(drain_s):
            await self._gateway.drain()

    async def retire(self, drain_s: float, spread_s: float | None) -> None:
        """Ask sessions to reconnect, spread over ``spread_s``; return after ``drain_s`` at the latest."""
        with trio.move_on_after(drain_s):
            await self._gateway.retire(spread_s)

    async def reload(self, config: Config) -> None:
        """Apply ``config``: tiers, limits, origins, proxies, certificate.

        Sessions continue, except those on a tier that has changed: they are asked to reconnect.
        """
        self._config = config
        self.shard.keepalive.timing = timing_of(config.limits)
        self._gateway.reload_certificates()
        self._gateway.exchange(self._service(self._port))
        if self._access is not None:
            self._access.renew(config, self._access.material)  # the tiers may have changed
        while self._probes:  # the tiers may have changed
            self._probes.pop().stop()
        self._start_probes()

    # Access.

    def renew_access(self, auth: AuthConfig, material: Material) -> None:
        """Use other keys, tenants and revocations from now on. Raises ConfigError."""
        if self._access is not None:
            self._config = msgspec.structs.replace(self._config, auth=auth)
            self._access.renew(self._config, material)

    async def revoke(self, auth: AuthConfig, material: Material, revocation: Revocation) -> int:
        """Do so because of ``revocation``; return how many sessions it ends."""
        one = Revocations([revocation])
        grants = [session.grant for session in self._gateway.sessions]
        self.renew_access(auth, material)
        return sum(grant is not None and one.revokes(grant) for grant in grants)

    def end_session(self, session: str, code: CloseCode) -> None:
        """End the session with this id, if there is one."""
        for one in self._gateway.sessions:
            if one.id == session:
                one.end(code)
                return

    # Statistics.

    def problems(self) -> list[Condition]:
        """Return []: this server has no problems of its own."""
        return []

    def warnings(self) -> list[Condition]:
        """Return []."""
        return []

    async def statistics(self, unhurried: bool = False) -> ServerStats:
        """Return the present statistics. Yields to other tasks.

        If ``unhurried``, it takes longer and uses a tenth of the time.
        """
        figures = self.shard.figures
        members = [m for m in self.shard.members if m.state is not State.GONE and m.encoding.counted]
        ledgers = await figures.totals(unhurried)
        counters = self.counters
        round_trips = self.shard.keepalive.round_trips
        arrivals = self._recorder.arrivals if self._recorder is not None else {}
        return ServerStats(
            # Tiers without sessions count 0, so that their gauges exist.
            sessions=dict.fromkeys((("websocket", tier) for tier in self._config.tiers), 0)
            | Counter((member.encoding.transport, member.tier.name) for member in members),
            clients=dict(
                Counter(
                    (str(VERSION), session.sdk)
                    for session in self._gateway.sessions
                    if session.member is not None
                )
            ),
            lagging=dict(Counter(member.tier.name for member in members if member.lagging)),
            synced=self.shard.synced_sessions,
            groups=figures.statistics().groups,
            accepted=counters.accepted,
            handshakes_per_s=self._handshakes.shown_per_s,
            closes={int(code): count for code, count in counters.closes.items()},
            refused=dict(counters.refused),
            requests=dict(counters.requests),
            polls=len(self.shard.polls),
            errors=dict(counters.errors),
            authentications=dict(counters.authentications),
            ledgers=ledgers,
            frames=figures.frames,
            flushes=figures.flushes,
            failures=figures.failures,
            flush_seconds=figures.flush_seconds,
            flush_counts=list(figures.flush_counts),
            **self.collector.figures(),
            frame_sizes=list(figures.frame_sizes),
            sent_bytes=figures.sent_bytes,
            durations=list(counters.durations),
            duration_s=counters.duration_s,
            cpu_s={self._name: cpu_s()},
            resident_bytes={self._name: resident_bytes()},
            interruptions={tier: seen.interruptions for tier, seen in arrivals.items()},
            interrupted_s={tier: seen.interrupted_ns / S for tier, seen in arrivals.items()},
            round_trips=empty(self._config.tiers) | {tier: list(n) for tier, n in round_trips.counts.items()},
            round_trip_s=dict(round_trips.seconds),
            unplaced=self._recorder.unplaced if self._recorder is not None else {},
        )

    async def ledgers(self) -> dict[str, Ledger]:
        """Return the sums of all ledgers by tier; they may be some seconds old."""
        return await self._ledgers.get()

    async def listing(self, limit: int, only_slow: bool) -> SessionList:
        """Return at most ``limit`` sessions, the slow ones first; only these if ``only_slow``."""
        sessions = [session for session in list(self._gateway.sessions) if session.member is not None]
        slow = {session: None for session in sessions if why_slow(session)}
        chosen = [*slow, *([] if only_slow else (s for s in sessions if s not in slow))][:limit]
        rows: list[SessionRow] = []
        for session in chosen:
            rows.append(row_of(session, self.shard.figures))
            if len(rows) % YIELD_ROWS == 0:
                await trio.lowlevel.checkpoint()
        return SessionList(len(sessions), len(slow), rows)
