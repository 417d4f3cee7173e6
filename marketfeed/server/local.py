"""Serve sessions in this process, over rings that another object writes.

    rings ──► shard ──► gateway ──► sockets

With ``engine.workers = 0`` the engine has one of these in its own process; otherwise every worker process has
one, over the same rings. The code is the same in both.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy.ma  # noqa: F401  # np.unique imports it when first called: 50 ms in the middle of a flush
import trio

from marketfeed.api.operations import SessionList, SessionRow
from marketfeed.core.authority import parse_origin
from marketfeed.core.units import MS, S
from marketfeed.fanout.keepalive import Timing
from marketfeed.fanout.shard import Shard
from marketfeed.fanout.state import State
from marketfeed.fanout.tiers import Tier
from marketfeed.fanout.wire import ENCODINGS
from marketfeed.gateway.handshakes import Handshakes
from marketfeed.gateway.hosts import Hosts, own_names
from marketfeed.gateway.limits import Admits, Counters, Limits
from marketfeed.gateway.listener import Gateway
from marketfeed.gateway.origins import own_origins
from marketfeed.gateway.protocol import VERSION
from marketfeed.gateway.proxies import Proxies
from marketfeed.gateway.session import Service
from marketfeed.gateway.tls import Certificate
from marketfeed.latency.aggregator import tell_intervals
from marketfeed.latency.recorder import LatencyRecorder
from marketfeed.server.gc_control import Collector
from marketfeed.server.process_usage import cpu_s, resident_bytes
from marketfeed.server.self_probe import OwnProbe
from marketfeed.server.sessions import row_of, why_slow
from marketfeed.server.stats import ServerStats

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from marketfeed.config.schema import Config, LimitsConfig
    from marketfeed.core.rings import Rings
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.fanout.bell import Bell, DoorBell
    from marketfeed.latency.intervals import Interval
    from marketfeed.server.conditions import Condition

YIELD_ROWS: Final = 100


def validate(config: Config) -> None:
    """Raise ConfigError if no server of sessions can be built from ``config``: for its certificate."""
    certificate_of(config)


def certificate_of(config: Config) -> Certificate | None:
    """Return the certificate that ``config`` names, None if it names none; raises ConfigError."""
    cert, key = config.gateway.tls_cert, config.gateway.tls_key
    return Certificate(cert, key) if cert and key else None


class LocalServer:
    """Shard, gateway and collector of one process; ``admission`` is asked before each session."""

    def __init__(
        self,
        config: Config,
        rings: Rings,
        symbols: SymbolTable,
        admission: Admits,
        *,
        on_synced: Callable[[], None],
        on_latencies: Callable[[list[Interval]], None],
        overview: Callable[[], Awaitable[dict[str, Any]]],
        worker: int = 0,
        bell: Bell | DoorBell | None = None,
    ) -> None:
        """Build everything that needs no socket; raises ConfigError.

        ``on_synced`` is called each time one more session has been sent its first `synced`,
        ``on_latencies`` with the measurements of each interval, and ``overview`` returns the body of
        ``/v1/latency``.
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
        self.wake = self.shard.wake
        self._probes: list[OwnProbe] = []
        self.collector = Collector()
        self.counters = Counters()
        self._handshakes = Handshakes(processes=max(1, config.engine.workers))
        self._admission = admission
        self._certificate = certificate_of(config)
        self._port = config.gateway.port
        self._gateway = Gateway(self._service(self._port))
        self._sessions: trio.Nursery | None = None

    def _service(self, port: int) -> Service:
        """Return what sessions share, with the gateway on ``port``."""
        gateway = self._config.gateway
        tiers = tiers_of(self._config, self._worker)
        limit_per_s = self._config.limits.handshakes_per_s
        self._handshakes.limit_per_s = limit_per_s / max(1, self._config.engine.workers)
        own = own_origins(gateway.host, port, self._certificate is not None)
        # Those whose pages may read everything may also be who asks: a proxy's name is written once.
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
        )

    @property
    def synced_sessions(self) -> int:
        """Return how many sessions have had their first `synced`."""
        return self.shard.synced_sessions

    def __len__(self) -> int:
        """Return how many sessions there are."""
        return len(self._gateway.sessions)

    async def wait_reached(self, g: int) -> None:
        """Return once every session on an ``every`` tier has taken its ticks up to ``g`` from the rings."""
        await self.shard.slowest.wait(g)

    async def start(self, port: int, nursery: trio.Nursery) -> None:
        """Begin to serve, as the gateway on ``port``; the shard and every session run in ``nursery``."""
        self._port = port
        self._gateway = Gateway(self._service(port))
        self._sessions = nursery
        nursery.start_soon(self.shard.run)
        if self._recorder is not None:
            interval_s = self._config.latency.interval_s
            nursery.start_soon(
                tell_intervals, self._recorder, interval_s, self.shard.ticks, self._on_latencies
            )
            self._probe()

    def _probe(self) -> None:
        """Have each tier measured by a probe of our own, from now on."""
        if self._recorder is None or self._sessions is None or not self._config.latency.probe:
            return
        limit_ns = int(self._config.latency.interruption_s * S)
        for tier in tiers_of(self._config, self._worker).values():
            probe = OwnProbe(self.shard, tier, self._recorder.tier(tier.name), limit_ns)
            self._probes.append(probe)
            self._sessions.start_soon(probe.run, self._sessions)

    async def take(self, sock: socket.socket, address: str) -> None:
        """Serve ``sock``, a fresh connection from ``address``, in a task of its own."""
        assert self._sessions is not None
        self._sessions.start_soon(self._gateway.serve, sock, address)

    async def serve(self, sock: socket.socket, address: str) -> None:
        """Serve ``sock``, a fresh connection from ``address``, to its end."""
        await self._gateway.serve(sock, address)

    async def drain(self, drain_s: float) -> None:
        """Ask every session to end; return when all have, or ``drain_s`` later."""
        with trio.move_on_after(drain_s):
            await self._gateway.drain()

    async def retire(self, drain_s: float, spread_s: float) -> None:
        """Send every session elsewhere; return when all have gone, or ``drain_s`` later."""
        with trio.move_on_after(drain_s):
            await self._gateway.retire(spread_s)

    async def reload(self, config: Config) -> None:
        """Serve by ``config`` from now on: its tiers, limits, origins, proxies, and its certificate.

        Sessions go on, but for those on a tier that means something else now:
        they are told to come back.
        """
        self._config = config
        self.shard.keepalive.timing = timing_of(config.limits)
        self._gateway.reload_certificates()
        self._gateway.exchange(self._service(self._port))
        while self._probes:  # the tiers may be others now
            self._probes.pop().stop()
        self._probe()

    # What there is to say.

    def problems(self) -> list[Condition]:
        """Return nothing: it serves, or the whole process does not."""
        return []

    def warnings(self) -> list[Condition]:
        """Return nothing."""
        return []

    async def statistics(self, unhurried: bool = False) -> ServerStats:
        """Return the figures of this moment; takes a while with many sessions, and lets others run.

        ``unhurried``, it takes longer, so that nobody notices.
        """
        figures = self.shard.figures
        members = [m for m in self.shard.members if m.state is not State.GONE and m.encoding.counted]
        ledgers = await figures.totals(unhurried)
        counters, collector = self.counters, self.collector
        arrivals = self._recorder.arrivals if self._recorder is not None else {}
        return ServerStats(
            # A tier without sessions has none: a gauge that is not there is no 0.
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
            ledgers=ledgers,
            frames=figures.frames,
            flushes=figures.flushes,
            failures=figures.failures,
            flush_seconds=figures.flush_seconds,
            flush_counts=list(figures.flush_counts),
            gc_collections=list(collector.collections),
            gc_seconds=list(collector.seconds),
            gc_longest_s=collector.longest_s,
            gc_longest_cpu_s=collector.longest_cpu_s,
            frame_sizes=list(figures.frame_sizes),
            sent_bytes=figures.sent_bytes,
            durations=list(counters.durations),
            duration_s=counters.duration_s,
            cpu_s={self._name: cpu_s()},
            resident_bytes={self._name: resident_bytes()},
            interruptions={tier: seen.interruptions for tier, seen in arrivals.items()},
            interrupted_s={tier: seen.interrupted_ns / S for tier, seen in arrivals.items()},
            unplaced=self._recorder.unplaced if self._recorder is not None else {},
        )

    async def listing(self, limit: int, only_slow: bool) -> SessionList:
        """Return at most ``limit`` sessions, the slow ones first or alone."""
        sessions = [session for session in list(self._gateway.sessions) if session.member is not None]
        slow = {session: None for session in sessions if why_slow(session)}
        chosen = [*slow, *([] if only_slow else (s for s in sessions if s not in slow))][:limit]
        rows: list[SessionRow] = []
        for session in chosen:
            rows.append(row_of(session, self.shard.figures))
            if len(rows) % YIELD_ROWS == 0:
                await trio.lowlevel.checkpoint()
        return SessionList(len(sessions), len(slow), rows)


def tiers_of(config: Config, worker: int = 0) -> dict[str, Tier]:
    """Return the tiers there are, by name; each worker's flushes lie between those of the others."""
    shift = worker / max(1, config.engine.workers)
    return {
        name: Tier(name, int(tier.interval_ms * MS), tier.delivery == "every", tier.send_buffer_bytes, shift)
        for name, tier in config.tiers.items()
    }


def limits_of(config: LimitsConfig) -> Limits:
    """Return what a session, an address and all together may ask for."""
    return Limits(
        request_bytes=config.request_bytes,
        symbols_per_session=config.symbols_per_session,
        sessions=config.sessions,
        sessions_per_ip=config.sessions_per_ip,
        requests_per_s=config.requests_per_s,
        handshake_s=config.handshake_s,
        patterns_per_session=config.patterns_per_session,
        handshakes_per_s=config.handshakes_per_s,
    )


def timing_of(config: LimitsConfig) -> Timing:
    """Return when a session is spoken to, and when it is given up."""
    return Timing(int(config.heartbeat_s * S), int(config.ping_s * S), int(config.stall_s * S))
