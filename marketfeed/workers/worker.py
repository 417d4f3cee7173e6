"""A worker process: serves sessions from the engine's rings, on connections that the engine accepted.

    work
    └── watch          last to end: control channel, collector, reports
        └── sessions   the shard, and a task per connection

Started by process.py through __main__.py. It handles no signals: the engine controls it over
the control channel, and it ends when the engine ends.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Final, assert_never

import structlog
import trio

from marketfeed import __version__, logs
from marketfeed.access.access import Access
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.errors import CloseCode, ConfigError, ControlError, StartError
from marketfeed.fanout.bell import DoorBell
from marketfeed.gateway.listener import raise_file_limit
from marketfeed.server.local import LocalServer
from marketfeed.server.recent_ledgers import rest_s
from marketfeed.workers.channel import Channel
from marketfeed.workers.messages import (
    SPARE_FILES,
    Accepted,
    AccessChanged,
    AccessTaken,
    AlertsAnswered,
    Alive,
    AskListing,
    AskReached,
    AskReport,
    CheckAlive,
    Connection,
    DeskAnswered,
    Down,
    Drain,
    Elsewhere,
    Ended,
    EndSession,
    Failed,
    Limit,
    Listed,
    Measured,
    Metered,
    Overview,
    Reached,
    Ready,
    Reported,
    Retire,
    Returned,
    SourceChanged,
    Start,
    Synced,
    Verdict,
)
from marketfeed.workers.progress import Pulse
from marketfeed.workers.remote_admission import RemoteAdmission, RemoteOverview
from marketfeed.workers.remote_alerts import RemoteAlerts
from marketfeed.workers.remote_desk import RemoteDesk

if TYPE_CHECKING:
    from marketfeed.latency.intervals import Interval

LEAST_FILES: Final = 2 * SPARE_FILES
SYNCED_S: Final = 0.01  # at least, between reports of synced sessions
LAST_REPORT_S: Final = 0.5  # for sending the last report

log = structlog.get_logger()


class Worker:
    """One worker process, from its first message to its last."""

    def __init__(self, start: Start, channel: Channel[Down], rings_fd: int, doorbell: int) -> None:
        """Build what sessions need; raises ConfigError, OSError and ValueError."""
        rings = Rings.attach(rings_fd)
        self._start = start
        self._channel = channel
        self._admission = RemoteAdmission(channel)
        symbols = SymbolTable(rings.max_symbols, rings.names)
        self._overview = RemoteOverview(channel)
        self._alerts = RemoteAlerts(channel)
        self._desk = RemoteDesk(channel)
        self._synced = trio.Event()
        self._server = LocalServer(
            start.config,
            rings,
            symbols,
            self._admission,
            on_synced=self._on_synced,
            on_latencies=self._on_latencies,
            overview=self._overview,
            on_usage=lambda report: channel.send(Metered(report)),
            worker=start.worker,
            bell=DoorBell(doorbell),
            alerts=self._alerts if start.config.alerts.enabled else None,
            access=None
            if start.material is None
            else Access(start.config, start.material, self._desk, time.time_ns),
        )
        self._told: Drain | Retire | None = None
        self._ending = trio.Event()
        self._retiring = trio.CancelScope()

    def _on_synced(self) -> None:
        self._synced.set()

    def _on_latencies(self, intervals: list[Interval]) -> None:
        self._channel.send(Measured(intervals))

    async def run(self, files: int) -> None:
        """Serve until the engine has the worker drain, or ends; ``files`` descriptors may be open."""
        server = self._server
        async with trio.open_nursery() as watch:
            watch.start_soon(self._channel.drain)
            watch.start_soon(server.collector.run)
            watch.start_soon(self._tell_synced)
            watch.start_soon(self._report)
            async with trio.open_nursery() as sessions:
                await server.start(self._start.port, sessions)
                watch.start_soon(self._obey, watch, sessions)
                self._channel.send(Ready(__version__, files))
                await self._ending.wait()
                await self._end()
                sessions.cancel_scope.cancel()
            with trio.move_on_after(LAST_REPORT_S):
                self._channel.send(Reported(0, await server.statistics()))
                await self._channel.flushed()
            watch.cancel_scope.cancel()

    async def _end(self) -> None:
        if isinstance(self._told, Retire):
            with self._retiring:
                await self._server.retire(self._told.drain_s, self._told.spread_s)
        if isinstance(self._told, Drain):
            await self._server.drain(self._told.drain_s)

    async def _obey(self, watch: trio.Nursery, sessions: trio.Nursery) -> None:
        """Act on the messages of the engine until it ends."""
        while (received := await self._channel.receive()) is not None:
            message, descriptor = received
            match message:
                case Connection():
                    self._take(message, descriptor, sessions)
                case Verdict() | Overview() | AlertsAnswered() | DeskAnswered():
                    self._pass_on(message)
                case AccessChanged():
                    await self._renew_access(message)
                case EndSession(session, code):
                    self._server.end_session(session, CloseCode(code))
                case Limit() | SourceChanged() | Elsewhere():
                    self._apply(message)
                case CheckAlive():
                    self._channel.send(Alive())
                case AskReport() | AskListing() | AskReached():
                    watch.start_soon(self._answer, message)
                case Drain() | Retire():
                    if isinstance(message, Drain):  # also ends a retirement in progress
                        self._retiring.cancel()
                    self._told = message
                    self._ending.set()
                case Start():
                    raise ControlError("started twice")
                case _:
                    assert_never(message)
        log.warning("the engine is gone")
        self._alerts.end()
        self._desk.end()
        watch.cancel_scope.cancel()

    def _apply(self, message: Limit | SourceChanged | Elsewhere) -> None:
        """Apply what holds for all sessions of the engine."""
        match message:
            case Limit(over):
                self._server.limit(over)
            case SourceChanged(source):
                self._server.source_state(source)
            case Elsewhere(urls):
                self._server.elsewhere(urls)

    def _pass_on(self, answer: Verdict | Overview | AlertsAnswered | DeskAnswered) -> None:
        """Pass an answer of the engine to the one that waits for it."""
        match answer:
            case Verdict():
                self._admission.answer(answer)
            case Overview():
                self._overview.answer(answer)
            case AlertsAnswered():
                self._alerts.answer(answer)
            case DeskAnswered():
                self._desk.answer(answer)

    async def _renew_access(self, message: AccessChanged) -> None:
        # Before any later message is read: what these answer may depend on it.
        sessions = 0
        if message.revocation is None:
            self._server.renew_access(message.auth, message.material)
        else:
            sessions = await self._server.revoke(message.auth, message.material, message.revocation)
        self._channel.send(AccessTaken(message.number, sessions))

    def _take(self, message: Connection, descriptor: int | None, sessions: trio.Nursery) -> None:
        if descriptor is None:
            self._channel.send(Returned(message.number))
            return
        # Before anything is read from it: the engine may pass unconfirmed connections to another worker.
        self._channel.send(Accepted(message.number))
        sock = socket.socket(fileno=descriptor)
        sock.setblocking(False)
        sessions.start_soon(self._serve, message, sock)

    async def _serve(self, message: Connection, sock: socket.socket) -> None:
        try:
            await self._server.serve(sock, message.address)
        finally:
            self._channel.send(Ended(message.number))

    async def _answer(self, message: AskReport | AskListing | AskReached) -> None:
        if isinstance(message, AskReport):
            self._channel.send(Reported(message.number, await self._server.statistics()))
        elif isinstance(message, AskReached):
            await self._server.wait_reached(message.g)
            self._channel.send(Reached(message.number))
        else:
            listing = await self._server.listing(message.limit, message.only_slow)
            self._channel.send(Listed(message.number, listing))

    async def _tell_synced(self) -> None:
        while True:
            await self._synced.wait()
            self._synced = trio.Event()
            self._channel.send(Synced(self._server.synced_sessions))
            await trio.sleep(SYNCED_S)

    async def _report(self) -> None:
        """Report at intervals, so that little is lost of the statistics of a worker that dies."""
        while True:
            began_s = time.thread_time()
            self._channel.send(Reported(0, await self._server.statistics(unhurried=True)))
            await trio.sleep(rest_s(time.thread_time() - began_s))


async def work(channel: Channel[Down], rings_fd: int, doorbell: int) -> int:
    """Serve as a worker until it is drained; return the exit status."""
    try:
        files = raise_file_limit()
        received = await channel.receive()
        if received is None:
            return 1
        start, _ = received
        if not isinstance(start, Start):
            raise ControlError(f"{type(start).__name__} before Start")
        structlog.contextvars.bind_contextvars(worker=start.worker)
        if files < LEAST_FILES:
            raise StartError(f"it may have {files} files open, and needs {LEAST_FILES}: see ulimit -n")
        worker = Worker(start, channel, rings_fd, doorbell)
    except (ConfigError, ControlError, StartError, OSError, ValueError) as error:
        channel.send(Failed(str(error)))
        return 2
    await worker.run(files)
    return 0


def run(control: int, rings_fd: int, doorbell: int, progress: int, log_level: str) -> int:
    """Run a worker with these inherited descriptors; return the exit status."""
    logs.configure(log_level)
    return trio.run(_run, control, rings_fd, doorbell, instruments=[Pulse(progress)])


async def _run(control: int, rings_fd: int, doorbell: int) -> int:
    channel: Channel[Down] = Channel(socket.socket(fileno=control), Down)  # type: ignore[arg-type]
    try:
        return await work(channel, rings_fd, doorbell)
    finally:
        channel.close()
