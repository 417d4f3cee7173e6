"""Worker processes as one server of sessions: connections are distributed, statistics are summed.

    listener ──► take ──► the worker with the fewest connections (its socket, over the control channel)
    pump ──► wake ──► every worker's doorbell
    statistics, limits, synced sessions, calls for alerts and to the desk ◄── every worker

supervisor.py starts and replaces the processes. Connections that a worker got and had not confirmed when it
ended are passed to another worker.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio

from marketfeed.api.operations import SessionList
from marketfeed.gateway.limits import Admission, Counters
from marketfeed.server.gc_control import Collector
from marketfeed.server.stats import ServerStats, merged
from marketfeed.workers.alert_calls import AlertCalls
from marketfeed.workers.desk_calls import DeskCalls
from marketfeed.workers.doorbells import Doorbells
from marketfeed.workers.messages import (
    Accepted,
    AccessChanged,
    Admit,
    AskAlerts,
    AskDesk,
    AskListing,
    AskOverview,
    AskReached,
    AskReport,
    CancelAlerts,
    CancelDesk,
    Drain,
    Elsewhere,
    Ended,
    EndSession,
    LeaveAlerts,
    LeaveDesk,
    Limit,
    Measured,
    Metered,
    Overview,
    Ready,
    Release,
    Retire,
    Returned,
    SourceChanged,
    Status,
    Synced,
    Up,
    Verdict,
)
from marketfeed.workers.placement import Placement
from marketfeed.workers.process import Child, Handover, ask_all
from marketfeed.workers.supervisor import Supervisor

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from marketfeed.access.desk import Desk
    from marketfeed.access.material import Material
    from marketfeed.access.quotas import Over
    from marketfeed.access.revocations import Revocation
    from marketfeed.access.usage import Report
    from marketfeed.alerts.service import AlertService
    from marketfeed.api.messages import Source
    from marketfeed.config.schema import AuthConfig, Config
    from marketfeed.core.rings import Rings
    from marketfeed.errors import CloseCode
    from marketfeed.fanout.ledger import Ledger
    from marketfeed.gateway.overview import Overview as Overviews
    from marketfeed.gateway.overview import View
    from marketfeed.latency.intervals import Interval
    from marketfeed.server.conditions import Condition

RESPONSE_S: Final = 1.0  # for a worker to respond with its statistics; then its last report is used
MAX_TRIES: Final = 3  # workers that may fail to take one connection

log = structlog.get_logger()


class WorkerPool:
    """Serves sessions in worker processes."""

    def __init__(
        self,
        config: Config,
        base: Path,
        rings: Rings,
        admission: Admission,
        log_level: str,
        *,
        on_synced: Callable[[], None],
        on_latencies: Callable[[list[Interval]], None],
        overview: Overviews,
        on_usage: Callable[[Report, int], None],
        desk: Desk | None = None,
    ) -> None:
        """The callbacks are as :class:`LocalServer` has them; ``on_usage`` also gets the worker.

        With ``desk``, :meth:`renew_access` has to be called before the start.
        """
        self.alerts: AlertService | None = None
        self._admission = admission
        self.counters = Counters()  # of connections that reached no worker
        self.collector = Collector()
        self._on_synced = on_synced
        self._on_latencies = on_latencies
        self._overview = overview
        self._desk = desk
        self._on_usage = on_usage
        self._over: list[Over] = []
        self._source: Source | None = None
        self._urls: list[str] = []
        self._alert_calls: dict[Child, AlertCalls] = {}
        self._desk_calls: dict[Child, DeskCalls] = {}
        self._nursery: trio.Nursery | None = None
        self._placement: Placement[Child] = Placement(config.engine.workers)
        self._supervisor = Supervisor(
            config,
            base,
            rings,
            log_level,
            self._placement,
            on_message=self._handle,
            on_end=self._settle,
        )
        self._children = self._supervisor.children
        self._past = ServerStats()  # of processes that have ended
        self._connection_numbers = itertools.count(1)
        self._doorbells = Doorbells(
            config.engine.workers, lambda: [child.doorbell for child in self._children]
        )
        self.wake = self._doorbells.ring

    # SessionServer, for the engine.

    @property
    def synced_sessions(self) -> int:
        """Return how many sessions have had their first `synced`."""
        return sum(child.synced for child in self._children)

    def __len__(self) -> int:
        """Return how many connections the workers serve."""
        return sum(child.connections for child in self._children)

    async def wait_reached(self, g: int) -> None:
        """Return once all workers' sessions on ``every`` tiers have taken their ticks up to ``g``."""
        serving = [child for child in self._children if child.ready and child.connections]
        await ask_all(serving, lambda number: AskReached(number, g))

    async def start(self, port: int, nursery: trio.Nursery) -> None:
        """Start all workers in ``nursery``, and wait until they accept connections; raises StartError."""
        self._nursery = nursery
        nursery.start_soon(self._doorbells.run)
        await self._supervisor.start(port, nursery)

    async def take(self, sock: socket.socket, address: str) -> None:
        """Pass ``sock`` to the worker with the fewest connections; waits while none has room."""
        await self._pass_on(Handover(sock, address))

    def limit(self, over: list[Over]) -> None:
        """Have all workers apply that the tenants in ``over``, and no others, exceed a quota."""
        self._over = over
        self._send_ready(Limit(over))

    def source_state(self, source: Source) -> None:
        """Have all workers tell their sessions the state of the source of ticks."""
        self._source = source
        self._send_ready(SourceChanged(source))

    def elsewhere(self, urls: Sequence[str]) -> None:
        """Name the nodes that clients are sent to when the engine drains; () for none."""
        self._urls = list(urls)
        self._send_ready(Elsewhere(self._urls))

    def _send_ready(self, message: Limit | SourceChanged | Elsewhere) -> None:
        """Send ``message`` to all workers that serve; :meth:`_update` does to those that start later."""
        for child in self._children:
            if child.ready:
                child.channel.send(message)

    async def drain(self, drain_s: float) -> None:
        """Have every worker close its sessions and end; return when all have, or soon after ``drain_s``."""
        await self._supervisor.end(Drain(drain_s))

    async def retire(self, drain_s: float, spread_s: float | None) -> None:
        """Have every worker retire its sessions and end; return when all have, or soon after ``drain_s``."""
        await self._supervisor.end(Retire(drain_s, spread_s))

    async def reload(self, config: Config) -> None:
        """Replace the workers one by one with workers that run ``config``.

        Raises StartError if one cannot start; the workers that are not replaced yet continue unchanged.
        """
        await self._supervisor.reload(config)

    def renew_access(self, auth: AuthConfig, material: Material) -> None:
        """Have all workers use other keys, tenants and revocations, before any message that comes later."""
        self._supervisor.renew_access(auth, material)

    async def revoke(self, auth: AuthConfig, material: Material, revocation: Revocation) -> int:
        """Do so because of ``revocation``; return how many sessions it ends, once all workers do so."""
        ready = [child for child in self._children if child.ready]
        self._supervisor.renew_access(auth, material, asked=ready)
        counts = await ask_all(ready, lambda number: AccessChanged(number, auth, material, revocation))
        return sum(counts.values())

    def end_session(self, session: str, code: CloseCode) -> None:
        """End the session with this id, whichever worker serves it."""
        for child in self._children:
            child.channel.send(EndSession(session, code))

    def problems(self) -> list[Condition]:
        """Return why no subscriber can be served: there is no worker."""
        return self._placement.problems()

    def warnings(self) -> list[Condition]:
        """Return which workers are missing, and whether all others are full."""
        return self._placement.warnings()

    async def statistics(self) -> ServerStats:
        """Return the sum of all workers' statistics, including those of workers that have ended."""
        await self._ask(AskReport)
        own = ServerStats(
            refused=dict(self.counters.refused),
            **self.collector.figures(),
            worker_restarts=self._supervisor.restarts,
            workers={str(worker): count for worker, count in self._placement.connections.items()},
        )
        return merged([self._past, own, *(child.report for child in self._children)])

    async def ledgers(self) -> dict[str, Ledger]:
        """Return the sums of the ledgers in the workers' last reports, by tier."""
        return merged([self._past, *(child.report for child in self._children)]).ledgers

    async def listing(self, limit: int, only_slow: bool) -> SessionList:
        """Return at most ``limit`` sessions of all workers, the slow ones first, or only those."""
        responses = await self._ask(lambda number: AskListing(number, limit, only_slow))
        total = SessionList()
        for child, listing in responses.items():
            total.sessions += listing.sessions
            total.slow += listing.slow
            for row in listing.shown:
                row.worker = child.worker
            total.shown += listing.shown
        total.shown.sort(key=lambda row: row.slow is None)
        del total.shown[limit:]
        return total

    async def _ask(self, request: Callable[[int], AskReport | AskListing]) -> dict[Child, Any]:
        """Send a request to every worker; return the responses that arrive in time."""
        ready = [child for child in self._children if child.ready]
        return await ask_all(ready, request, RESPONSE_S)

    # Connections.

    async def _pass_on(self, handover: Handover) -> None:
        child = await self._placement.place() if handover.tries < MAX_TRIES else None
        if child is not None:
            child.hand_over(next(self._connection_numbers), handover)
            return
        self.counters.refused["workers full"] += 1
        if self.counters.refused["workers full"] == 1:
            log.error("a connection was refused: every worker has as many files open as it may")
        handover.sock.close()

    def _pass_on_soon(self, handover: Handover) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._pass_on, handover)

    # Messages and ends of workers.

    def _handle(self, child: Child, message: Up) -> None:
        """Act on a message of ``child``; raises ControlError."""
        match message:
            case Accepted() | Ended():
                child.update(message)
                self._placement.room_freed()
            case Returned(number):
                self._pass_on_soon(child.returned(number))
            case Admit(number, address):
                limit = self._admission.admit(address, trio.current_time())
                if limit is None:
                    child.admitted[address] += 1
                child.channel.send(Verdict(number, limit))
            case Release(address):
                child.released(address)
                self._admission.release(address)
            case Synced(count):
                more, child.synced = count > child.synced, count
                if more:
                    self._on_synced()
            case AskOverview(number, view):
                assert self._nursery is not None
                self._nursery.start_soon(self._show, child, number, view)
            case Measured() | Metered():
                self._record(child, message)
            case AskAlerts() | CancelAlerts() | LeaveAlerts():
                self._calls_of(child).handle(message, child.connections)
            case AskDesk() | CancelDesk() | LeaveDesk():
                self._desk_calls_of(child).handle(message, child.connections)
            case _:
                self._update(child, message)

    async def _show(self, child: Child, number: int, view: View) -> None:
        ask = self._overview.latency if view == "latency" else self._overview.engine
        child.channel.send(Overview(number, await ask()))

    def _record(self, child: Child, message: Measured | Metered) -> None:
        if isinstance(message, Measured):
            self._on_latencies(message.intervals)
        else:
            self._on_usage(message.report, child.worker)

    def _update(self, child: Child, message: Status) -> None:
        child.update(message)
        if not isinstance(message, Ready):
            return
        if self._over:
            child.channel.send(Limit(self._over))
        if self._source is not None:
            child.channel.send(SourceChanged(self._source))
        if self._urls:
            child.channel.send(Elsewhere(self._urls))

    def _desk_calls_of(self, child: Child) -> DeskCalls:
        if child not in self._desk_calls:
            assert self._nursery is not None
            self._desk_calls[child] = DeskCalls(self._desk, self._nursery, child.channel.send)
        return self._desk_calls[child]

    def _calls_of(self, child: Child) -> AlertCalls:
        calls = self._alert_calls.get(child)
        if calls is None:
            assert self._nursery is not None
            calls = self._alert_calls[child] = AlertCalls(self.alerts, self._nursery, child.channel.send)
        return calls

    def _settle(self, child: Child) -> None:
        """Settle what ``child``, whose process has ended, had: statistics, limits, sessions, connections."""
        if (calls := self._alert_calls.pop(child, None)) is not None:
            calls.end()
        if (desk_calls := self._desk_calls.pop(child, None)) is not None:
            desk_calls.end()
        self._past = merged([self._past, child.report.past()])
        for address, count in child.admitted.items():
            for _ in range(count):
                self._admission.release(address)
        for handover in child.unconfirmed.values():
            if self._supervisor.stopping:
                handover.sock.close()
            else:
                self._pass_on_soon(handover)
