"""The session servers of all lives of one engine as one server: the present one, and those that retire.

    connections ──► take ──► the present life
    statistics ◄── lives that have ended + lives that retire + the present life

An exchange starts the server of the next life, then passes new connections to it and retires the present
one: its sessions are closed with 1001, and their clients reconnect to the next life. Their cursors are of
another epoch, so that they get a `reset` and a snapshot. Each life has a nursery, which ends with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

from marketfeed.api.operations import SessionList
from marketfeed.errors import StartError
from marketfeed.gateway.limits import Counters
from marketfeed.server.gc_control import Collector
from marketfeed.server.process_usage import cpu_s, resident_bytes
from marketfeed.server.stats import ServerStats, merged

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from marketfeed.access.material import Material
    from marketfeed.access.quotas import Over
    from marketfeed.access.revocations import Revocation
    from marketfeed.alerts.service import AlertService
    from marketfeed.api.messages import Source
    from marketfeed.config.schema import AuthConfig, Config
    from marketfeed.core.rings import Rings
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.errors import CloseCode
    from marketfeed.fanout.ledger import Ledger
    from marketfeed.ingest.roster import Roster
    from marketfeed.server.conditions import Condition
    from marketfeed.server.life import Life

RETIRE_S: Final = 10.0  # for close handshakes, and for handshakes in progress
OWN: Final = "engine"  # the name of this process in statistics

log = structlog.get_logger()


class Lives:
    """Implements :class:`marketfeed.server.api.SessionServer` over all lives; ``now`` is the present one."""

    def __init__(self, first: Life) -> None:
        self.now = first
        self.wake = first.server.wake
        self.exchanges = 0
        self.counters = Counters()  # of connections that reached no life
        self.collector = Collector()  # of this process
        self._alerts: AlertService | None = None
        self._over: list[Over] = []
        self.source: Source | None = None  # of ticks; None without a cluster
        self.source_changes = 0
        self._urls: Sequence[str] = ()
        self._serving: dict[Life, None] = {first: None}
        self._past = ServerStats()  # of lives that have ended
        self._taking = trio.CancelScope()
        self._port = 0
        self._nursery: trio.Nursery | None = None

    # The present life.

    @property
    def rings(self) -> Rings:
        """Return the rings of the present epoch."""
        return self.now.rings

    @property
    def symbols(self) -> SymbolTable:
        """Return the names of the present epoch."""
        return self.now.symbols

    @property
    def roster(self) -> Roster:
        """Return the feeds of the present life."""
        return self.now.roster

    # Lifecycle.

    async def start(self, port: int, nursery: trio.Nursery) -> None:
        """Start the first life in ``nursery``; ``port`` is the gateway's. Raises StartError."""
        self._port, self._nursery = port, nursery
        await self._begin(self.now)

    async def exchange(self, life: Life) -> None:
        """Start ``life``, make it the present one, and retire the one before.

        Returns as soon as new connections go to ``life``. Raises StartError; then nothing has changed.
        """
        life.server.alerts = self._alerts
        life.server.elsewhere(self._urls)
        if self.source is not None:
            life.server.source_state(self.source)
        self._serving[life] = None  # before the start, which may take seconds: what is renewed reaches it
        await self._begin(life)
        life.server.limit(self._over)
        before, self.now = self.now, life
        self.wake = life.server.wake
        self.exchanges += 1
        self._taking.cancel()
        log.info("epoch changed", epoch=life.epoch, before=before.epoch, sessions=len(before.server))
        before.superseded.set()

    async def _begin(self, life: Life) -> None:
        assert self._nursery is not None
        failure: StartError | None = await self._nursery.start(self._run, life)
        if failure is not None:
            raise failure  # here: in the nursery it would become part of an exception group

    async def _run(self, life: Life, task_status: trio.TaskStatus[StartError | None]) -> None:
        """Serve ``life`` until it has retired."""
        try:
            async with trio.open_nursery() as nursery:
                try:
                    await life.server.start(self._port, nursery)
                except StartError as error:
                    task_status.started(error)
                else:
                    task_status.started(None)
                    await life.superseded.wait()
                    await life.server.retire(RETIRE_S, None)
                    report = await life.server.statistics()
                    self._past = merged([self._past, report.past()])
                self._serving.pop(life, None)
                nursery.cancel_scope.cancel()
        finally:
            self._serving.pop(life, None)
            life.end()
        log.info("epoch ended", epoch=life.epoch)
        del life
        self.collector.collect_all()

    async def drain(self, drain_s: float) -> None:
        """End every session; return when all have ended, at the latest after ``drain_s``."""
        async with trio.open_nursery() as nursery:
            for life in self._serving:
                nursery.start_soon(life.server.drain, drain_s)

    async def retire(self, drain_s: float, spread_s: float | None) -> None:
        """Retire the present life."""
        await self.now.server.retire(drain_s, spread_s)

    async def reload(self, config: Config) -> None:
        """Apply ``config`` to the present life; raises ConfigError and StartError."""
        await self.now.server.reload(config)

    # Connections and sessions.

    @property
    def alerts(self) -> AlertService | None:
        """The alerts of all lives; None = off."""
        return self._alerts

    @alerts.setter
    def alerts(self, alerts: AlertService | None) -> None:
        self._alerts = self.now.server.alerts = alerts

    @property
    def synced_sessions(self) -> int:
        """Return how many sessions were sent their first `synced`."""
        return sum(life.server.synced_sessions for life in self._serving)

    def __len__(self) -> int:
        """Return the number of sessions."""
        return sum(len(life.server) for life in self._serving)

    async def wait_reached(self, g: int) -> None:
        """Return once the present life's sessions on ``every`` tiers have read their ticks up to ``g``."""
        await self.now.server.wait_reached(g)

    async def take(self, sock: socket.socket, address: str) -> None:
        """Pass ``sock`` to the present life; to the next one if that begins while it waits for room."""
        while True:
            with trio.CancelScope() as self._taking:
                await self.now.server.take(sock, address)
                return

    def limit(self, over: list[Over]) -> None:
        """Apply that the tenants in ``over``, and no others, exceed a quota."""
        self._over = over
        for life in self._serving:
            life.server.limit(over)

    def source_state(self, source: Source) -> None:
        """Tell every session the state of the source of ticks, and mark snapshots while it is stale."""
        self.source_changes += source.state != ("live" if self.source is None else self.source.state)
        self.source = source
        for life in self._serving:
            life.server.source_state(source)

    def elsewhere(self, urls: Sequence[str]) -> None:
        """Name the nodes that clients are sent to when the engine drains; () for none."""
        self._urls = urls
        for life in self._serving:
            life.server.elsewhere(urls)

    def renew_access(self, auth: AuthConfig, material: Material) -> None:
        """Use other keys, tenants and revocations, which were checked, in all lives."""
        for life in self._serving:
            life.server.renew_access(auth, material)

    async def revoke(self, auth: AuthConfig, material: Material, revocation: Revocation) -> int:
        """Do so because of ``revocation``; return how many sessions it ends, once all processes do so."""
        ended = 0
        for life in list(self._serving):
            ended += await life.server.revoke(auth, material, revocation)
        return ended

    def end_session(self, session: str, code: CloseCode) -> None:
        """End the session with this id, whichever life it is of."""
        for life in self._serving:
            life.server.end_session(session, code)

    # Statistics.

    def problems(self) -> list[Condition]:
        """Return the reasons why the present life can serve no subscriber."""
        return self.now.server.problems()

    def warnings(self) -> list[Condition]:
        """Return conditions of the present life that need attention."""
        return self.now.server.warnings()

    async def statistics(self) -> ServerStats:
        """Return the sum over all lives."""
        past = self._past  # before the reports: a life that ends meanwhile would count twice
        reports = [await life.server.statistics() for life in list(self._serving)]
        own = ServerStats(refused=dict(self.counters.refused), **self.collector.figures())
        total = merged([past, own, *reports])
        if OWN in total.cpu_s:  # each life in this process has counted it
            total.cpu_s[OWN], total.resident_bytes[OWN] = cpu_s(), resident_bytes()
        return total

    async def ledgers(self) -> dict[str, Ledger]:
        """Return the sums of all ledgers by tier; they may be some seconds old."""
        past = self._past
        parts = [ServerStats(ledgers=await life.server.ledgers()) for life in list(self._serving)]
        return merged([past, *parts]).ledgers

    async def listing(self, limit: int, only_slow: bool) -> SessionList:
        """Return at most ``limit`` sessions, the slow ones first; only these if ``only_slow``."""
        total = SessionList()
        for life in list(self._serving):
            listing = await life.server.listing(limit, only_slow)
            total.sessions += listing.sessions
            total.slow += listing.slow
            total.shown += listing.shown
        total.shown.sort(key=lambda row: row.slow is None)
        del total.shown[limit:]
        return total
