"""Worker processes: start, watch and replace them, and distribute connections among them.

    listener ──► take ──► the worker with the fewest connections (its socket, over the control channel)
    pump ──► ring ──► every worker's doorbell
    statistics, limits, synced sessions ◄── every worker

A worker that ends, or makes no progress for SILENT_S, is replaced. Connections that it was given and had not
confirmed go to another worker. The tasks of each worker end with its process.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
import trio

from marketfeed import __version__
from marketfeed.api.operations import SessionList
from marketfeed.config.schema import AlertsConfig, Config
from marketfeed.core.backoff import delay_s
from marketfeed.errors import ControlError, StartError
from marketfeed.gateway.limits import Admission, Counters
from marketfeed.server.gc_control import Collector
from marketfeed.server.stats import ServerStats, merged
from marketfeed.workers.doorbells import Doorbells
from marketfeed.workers.messages import (
    Accepted,
    Admit,
    Alive,
    AskListing,
    AskOverview,
    AskReached,
    AskReport,
    CheckAlive,
    Drain,
    Ended,
    Failed,
    Listed,
    Measured,
    Overview,
    Reached,
    Ready,
    Release,
    Reported,
    Retire,
    Returned,
    Start,
    Synced,
    Up,
    Verdict,
)
from marketfeed.workers.placement import Placement
from marketfeed.workers.process import SILENT_S, Child, Handed, ask_all

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from marketfeed.core.rings import Rings
    from marketfeed.latency.intervals import Interval
    from marketfeed.server.conditions import Condition

PING_S: Final = 0.2
START_S: Final = 20.0  # for a fresh interpreter on a busy machine
LAST_WORDS_S: Final = 1.0  # for what a worker said before it ended
EXIT_S: Final = 0.6  # beyond drain_s, for workers to say their last figures and go
ANSWER_S: Final = 1.0  # for a worker to say how it is; then its last report has to do
SETTLED_S: Final = 10.0  # a worker that lived this long is replaced at once, and its delays begin anew
FIRST_DELAY_S: Final = 0.5
MAX_DELAY_S: Final = 30.0
MAX_TRIES: Final = 3  # workers that may fail to take one connection
SPREAD_PER_SESSION_S: Final = 0.004  # a retiring worker sends its sessions away at this pace
RETIRE_S: Final = 10.0  # beyond that, for farewells and for handshakes under way


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
        overview: Callable[[], dict[str, Any]],
    ) -> None:
        """``on_synced``, ``on_latencies`` and ``overview`` are as :class:`LocalServer` has them."""
        self._config = config
        self._base = base
        self._rings = rings
        self._admission = admission
        self._log_level = log_level
        self.counters = Counters()  # of connections that came to no worker
        self.collector = Collector()
        self._on_synced = on_synced
        self._on_latencies = on_latencies
        self._overview = overview
        self._port = 0
        self._nursery: trio.Nursery | None = None
        self._placement: Placement[Child] = Placement(config.engine.workers)
        self._children: dict[Child, None] = {}  # all that live, also those that start or retire
        self._past = ServerStats()
        self._restarts = 0
        self._short_lives = [0] * config.engine.workers  # in a row, by worker
        self._stopping = False
        self._numbers = itertools.count(1)
        self._doorbells = Doorbells(
            config.engine.workers, lambda: [child.doorbell for child in self._children]
        )
        self.wake = self._doorbells.ring
        self._room = trio.lowlevel.ParkingLot()  # for connections: many wait at once when a worker has died

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
        await ask_all(serving, lambda number: AskReached(number, g), self._numbers)

    async def start(self, port: int, nursery: trio.Nursery) -> None:
        """Start all workers in ``nursery``, and wait until they take connections; raises StartError."""
        self._port, self._nursery = port, nursery
        nursery.start_soon(self._doorbells.run)
        for child in [self._spawn(worker) for worker in range(self._config.engine.workers)]:
            await child.settled.wait()
            if not child.ready:
                self._stopping = True
                raise StartError(f"worker {child.worker} cannot start: {child.failure}")
            self._install(child)

    async def take(self, sock: socket.socket, address: str) -> None:
        """Give ``sock`` to the worker with the fewest connections; waits while none has room."""
        await self._pass_on(Handed(sock, address))

    async def _pass_on(self, handed: Handed) -> None:
        while handed.tries < MAX_TRIES:
            child = self._placement.choose()
            if child is not None:
                child.hand(next(self._numbers), handed)
                return
            if self._placement.full:
                break
            await self._room.park()
        self.counters.refused["workers full"] += 1
        if self.counters.refused["workers full"] == 1:
            log.error("a connection was refused: every worker has as many files open as it may")
        handed.sock.close()

    async def drain(self, drain_s: float) -> None:
        """Have every worker tell its sessions and end; return when all have, or soon after ``drain_s``."""
        self._stopping = True
        for child in self._children:
            child.channel.send(Drain(drain_s))
        with trio.move_on_after(drain_s + EXIT_S):
            for child in list(self._children):
                await child.gone.wait()

    def problems(self) -> list[Condition]:
        """Return why no subscriber can be served: there is no worker."""
        return self._placement.problems()

    def warnings(self) -> list[Condition]:
        """Return which workers are missing, and whether all others are full."""
        return self._placement.warnings()

    async def statistics(self) -> ServerStats:
        """Return the sum of all workers' figures, those that are gone included."""
        await self._ask(lambda number: AskReport(number))
        collector = self.collector
        own = ServerStats(
            refused=dict(self.counters.refused),
            gc_collections=list(collector.collections),
            gc_seconds=list(collector.seconds),
            gc_longest_s=collector.longest_s,
            gc_longest_cpu_s=collector.longest_cpu_s,
            worker_restarts=self._restarts,
            workers={str(worker): count for worker, count in self._placement.connections.items()},
        )
        return merged([self._past, own, *(child.report for child in self._children)])

    async def listing(self, limit: int, only_slow: bool) -> SessionList:
        """Return at most ``limit`` sessions of all workers, the slow ones first or alone."""
        answers = await self._ask(lambda number: AskListing(number, limit, only_slow))
        total = SessionList()
        for child, listing in answers.items():
            total.sessions += listing.sessions
            total.slow += listing.slow
            for row in listing.shown:
                row.worker = child.worker
            total.shown += listing.shown
        total.shown.sort(key=lambda row: row.slow is None)
        del total.shown[limit:]
        return total

    async def _ask(self, question: Callable[[int], AskReport | AskListing]) -> dict[Child, Any]:
        """Ask every worker; return what those said that answered in time."""
        ready = [child for child in self._children if child.ready]
        return await ask_all(ready, question, self._numbers, ANSWER_S)

    # Rolling restart.

    async def reload(self, config: Config) -> None:
        """Replace the workers one by one with such as serve by ``config``.

        Raises StartError if one cannot start; those not replaced yet go on as they were.
        """
        before, self._config = self._config, config
        with self._placement.replacing():
            for worker in range(config.engine.workers):
                if self._placement.is_fresh(worker):  # it died meanwhile, and has a successor
                    continue
                child = self._spawn(worker)
                await child.settled.wait()
                if not child.ready:
                    if worker == 0:
                        self._config = before
                    raise StartError(f"worker {worker} cannot start: {child.failure}")
                old = self._install(child)
                if old is not None:
                    await old.gone.wait()
                log.info("worker replaced", worker=worker)

    def _install(self, child: Child) -> Child | None:
        """Let ``child`` have new connections; return the one that had them, which is told to retire."""
        if self._placement.is_fresh(child.worker):  # two were started: this one has no connections yet
            child.channel.send(Drain(0.0))
            return None
        old = self._placement.put(child)
        self._room.unpark_all()
        if old is None:
            return None
        old.retiring = True
        most_per_s = self._config.limits.handshakes_per_s
        spread_s = old.connections * max(SPREAD_PER_SESSION_S, 1 / most_per_s if most_per_s else 0)
        old.channel.send(Retire(spread_s + RETIRE_S, spread_s))
        return old

    # Children.

    def _spawn(self, worker: int) -> Child:
        """Start a process; ``settled`` is set once it is ready, or gone."""
        assert self._nursery is not None
        bare = msgspec.structs.replace(self._config, feeds=[], alerts=AlertsConfig())
        child = Child(worker, self._placement.generation, self._rings.fd, self._log_level)
        child.channel.send(Start(worker, bare, str(self._base), self._port))
        self._children[child] = None
        self._nursery.start_soon(self._tend, child)
        return child

    async def _tend(self, child: Child) -> None:
        """See a child from its start to its end."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child.channel.drain)
                nursery.start_soon(self._watch, child)
                nursery.start_soon(self._listen, child)
                await child.exited()
                with trio.move_on_after(LAST_WORDS_S):
                    await child.silent.wait()
                nursery.cancel_scope.cancel()
        finally:
            child.end()
            self._bury(child)

    async def _watch(self, child: Child) -> None:
        """Kill a child that neither answers nor makes progress."""
        child.heard(trio.current_time())
        while True:
            due_s = trio.current_time() + PING_S
            await trio.sleep_until(due_s)
            now_s = trio.current_time()
            if now_s > due_s + SILENT_S / 2:
                child.heard(now_s)  # it was us who were held up
            if (silent_s := child.silent_s(now_s)) > (SILENT_S if child.ready else START_S):
                child.failure = f"no answer and no progress for {silent_s:.1f} s"
                log.error("worker does not answer, killed", worker=child.worker, pid=child.pid)
                child.kill()
                return
            child.channel.send(CheckAlive())

    async def _listen(self, child: Child) -> None:
        """Take what a child says, to its end."""
        try:
            while (received := await child.channel.receive()) is not None:
                child.heard_s = trio.current_time()
                self._hear(child, received[0])
        except ControlError as error:
            child.failure = str(error)
            log.error("worker is not understood, killed", worker=child.worker, reason=str(error))
        child.silent.set()
        child.kill()  # one that closed its channel is no use any more

    def _hear(self, child: Child, message: Up) -> None:  # noqa: C901 - one case a message
        match message:
            case Alive():
                pass
            case Accepted(number):
                child.confirmed(number)
                self._room.unpark_all()
            case Ended():
                child.connections -= 1
                self._room.unpark_all()
            case Returned(number):
                self._again(child.returned(number))
            case Admit(number, address):
                limit = self._admission.admit(address, trio.current_time())
                if limit is None:
                    child.admitted[address] += 1
                child.channel.send(Verdict(number, limit))
            case AskOverview(number):
                child.channel.send(Overview(number, self._overview()))
            case Release(address):
                child.admitted[address] -= 1
                if not child.admitted[address]:
                    del child.admitted[address]
                self._admission.release(address)
            case Synced(count):
                more, child.synced = count > child.synced, count
                if more:
                    self._on_synced()
            case Reported(number, report):
                child.report, child.synced = report, report.synced
                child.take_answer(number, report)
            case Reached(number):
                child.take_answer(number, True)
            case Measured(intervals):
                self._on_latencies(intervals)
            case Listed(number, listing):
                child.take_answer(number, listing)
            case Failed(reason):
                child.failure = reason
            case Ready(release, files):
                if release != __version__:
                    raise ControlError(
                        f"marketfeed {release} is installed now, and this engine is {__version__}: restart it"
                    )
                child.start(files)

    def _again(self, handed: Handed) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._pass_on, handed)

    def _bury(self, child: Child) -> None:
        """Settle what a child that is gone leaves behind, and have it replaced if it is missed."""
        del self._children[child]
        self._past = merged([self._past, child.report.past()])
        for address, count in child.admitted.items():
            for _ in range(count):
                self._admission.release(address)
        missed = self._placement.drop(child)
        self._room.unpark_all()
        for handed in child.unconfirmed.values():
            if self._stopping:
                handed.sock.close()
            else:
                self._again(handed)
        child.settled.set()
        child.gone.set()
        if missed and not self._stopping:
            log.error("worker ended", worker=child.worker, pid=child.pid, reason=child.failure)
            lived_s = trio.current_time() - child.ready_s
            lives = self._short_lives[child.worker] + 1 if lived_s < SETTLED_S else 0
            self._short_lives[child.worker] = lives
            assert self._nursery is not None
            self._nursery.start_soon(self._replace, child.worker, max(lives - 1, 0))

    async def _replace(self, worker: int, failures: int) -> None:
        """Start ``worker`` anew, and again after growing delays while it cannot start."""
        self._restarts += 1
        while True:
            await trio.sleep(delay_s(failures, FIRST_DELAY_S, MAX_DELAY_S))
            if self._stopping or self._placement.is_fresh(worker):  # a rolling restart was here meanwhile
                return
            try:
                child = self._spawn(worker)
            except StartError as error:
                failure = str(error)
            else:
                await child.settled.wait()
                if child.ready:
                    self._install(child)
                    log.info("worker started", worker=worker, pid=child.pid)
                    return
                failure = child.failure
            failures += 1
            next_s = delay_s(failures, FIRST_DELAY_S, MAX_DELAY_S)
            log.error("worker cannot start", worker=worker, reason=failure, again_in_s=next_s)
