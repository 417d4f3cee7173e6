"""Supervision of worker processes: start, watch and replace them, one for each worker number.

A worker that ends, or that makes no progress for INACTIVE_S, is replaced; each further failure delays the
next start. The tasks of a worker end with its process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import structlog
import trio

from marketfeed.config.schema import AlertsConfig, Config
from marketfeed.core.backoff import delay_s
from marketfeed.errors import ControlError, StartError
from marketfeed.server.alerting import enabled
from marketfeed.workers.messages import AccessChanged, CheckAlive, Drain, Retire, Start, Up
from marketfeed.workers.process import INACTIVE_S, Child

if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from pathlib import Path

    from marketfeed.access.material import Material
    from marketfeed.config.schema import AuthConfig
    from marketfeed.core.rings import Rings
    from marketfeed.workers.placement import Placement

CHECK_S: Final = 0.2  # between liveness checks of a worker
START_S: Final = 20.0  # for a fresh interpreter on a busy machine
LAST_MESSAGES_S: Final = 1.0  # for reading what a worker sent before it ended
EXIT_S: Final = 0.6  # beyond drain_s, for workers to send their last statistics and exit
SETTLED_S: Final = 10.0  # a worker that lived this long is replaced at once, and its delays begin anew
FIRST_DELAY_S: Final = 0.5
MAX_DELAY_S: Final = 30.0
SPREAD_PER_SESSION_S: Final = 0.004  # a retiring worker closes its sessions at this rate
RETIRE_S: Final = 10.0  # beyond that, for close handshakes and for handshakes in progress

log = structlog.get_logger()


class Supervisor:
    """Keeps one worker process for each worker number, and replaces them on a reload."""

    def __init__(
        self,
        config: Config,
        base: Path,
        rings: Rings,
        log_level: str,
        placement: Placement[Child],
        *,
        on_message: Callable[[Child, Up], None],
        on_end: Callable[[Child], None],
    ) -> None:
        """``placement`` gets each worker that accepts connections.

        ``on_message`` is called with each message of a child, and may raise ControlError, which ends the
        child; ``on_end`` is called once for each child whose process has ended.
        """
        self._config = config
        self._base = base
        self._rings = rings
        self._log_level = log_level
        self._placement = placement
        self._on_message = on_message
        self._on_end = on_end
        self._material: Material | None = None
        self._port = 0
        self._nursery: trio.Nursery | None = None
        self._short_lives = [0] * config.engine.workers  # consecutive, by worker
        self.children: dict[Child, None] = {}  # all live processes, including starting and retiring ones
        self.restarts = 0
        self.stopping = False

    async def start(self, port: int, nursery: trio.Nursery) -> None:
        """Start all workers in ``nursery``, and wait until they accept connections; raises StartError."""
        self._port, self._nursery = port, nursery
        for child in [self._spawn(worker) for worker in range(self._config.engine.workers)]:
            await child.settled.wait()
            if not child.ready:
                self.stopping = True
                raise StartError(f"worker {child.worker} cannot start: {child.failure}")
            self._install(child)

    async def end(self, how: Drain | Retire) -> None:
        """Have every worker close its sessions and end; return when all have, or soon after ``drain_s``."""
        self.stopping = True
        for child in self.children:
            child.channel.send(how)
        with trio.move_on_after(how.drain_s + EXIT_S):
            for child in list(self.children):
                await child.gone.wait()

    def renew_access(self, auth: AuthConfig, material: Material, asked: Container[Child] = ()) -> None:
        """Have all workers, and those that start later, use other keys, tenants and revocations.

        The caller sends that to those that it has ``asked``.
        """
        self._config = msgspec.structs.replace(self._config, auth=auth)
        self._material = material
        for child in self.children:
            if child not in asked:
                child.channel.send(AccessChanged(0, auth, material))

    # Rolling restart.

    async def reload(self, config: Config) -> None:
        """Replace the workers one by one with workers that run ``config``.

        Raises StartError if one cannot start; the workers that are not replaced yet continue unchanged.
        """
        before, self._config = self._config, config
        with self._placement.replacing():
            for worker in range(config.engine.workers):
                if self._placement.is_fresh(worker):  # it ended during the reload, and was replaced
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
        """Give ``child`` new connections; retire and return the worker that had them until now."""
        if self._placement.is_fresh(child.worker):  # two were started: this one has no connections yet
            child.channel.send(Drain(0.0))
            return None
        old = self._placement.put(child)
        if old is None:
            return None
        most_per_s = self._config.limits.handshakes_per_s
        spread_s = old.connections * max(SPREAD_PER_SESSION_S, 1 / most_per_s if most_per_s else 0)
        old.channel.send(Retire(spread_s + RETIRE_S, spread_s))
        return old

    # Lifecycle of one process.

    def _spawn(self, worker: int) -> Child:
        """Start a process; its ``settled`` is set once it is ready or has ended. Raises StartError."""
        assert self._nursery is not None
        alerts = AlertsConfig(enabled=enabled(self._config.alerts))  # no rules, which may have secrets
        config = msgspec.structs.replace(self._config, feeds=[], alerts=alerts)
        child = Child(worker, self._placement.generation, self._rings.fd, self._log_level)
        child.channel.send(Start(worker, config, str(self._base), self._port, self._material))
        self.children[child] = None
        self._nursery.start_soon(self._supervise, child)
        return child

    async def _supervise(self, child: Child) -> None:
        """Run the tasks of ``child`` until its process ends; then clean up after it."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child.channel.drain)
                nursery.start_soon(self._watch, child)
                nursery.start_soon(self._receive, child)
                await child.exited()
                with trio.move_on_after(LAST_MESSAGES_S):
                    await child.received_all.wait()
                nursery.cancel_scope.cancel()
        finally:
            child.end()
            self._clean_up(child)

    async def _watch(self, child: Child) -> None:
        """Kill ``child`` if it neither sends messages nor makes progress."""
        child.note_activity(trio.current_time())
        while True:
            due_s = trio.current_time() + CHECK_S
            await trio.sleep_until(due_s)
            now_s = trio.current_time()
            if now_s > due_s + INACTIVE_S / 2:
                child.note_activity(now_s)  # this process was held up, not the child
            inactive_s = child.inactive_s(now_s)
            if inactive_s > (INACTIVE_S if child.ready else START_S):
                child.failure = f"no answer and no progress for {inactive_s:.1f} s"
                log.error("worker does not answer, killed", worker=child.worker, pid=child.pid)
                child.kill()
                return
            child.channel.send(CheckAlive())

    async def _receive(self, child: Child) -> None:
        """Handle the messages of ``child`` until its channel ends."""
        try:
            while (received := await child.channel.receive()) is not None:
                child.active_s = trio.current_time()
                self._on_message(child, received[0])
        except ControlError as error:
            child.failure = str(error)
            log.error("worker is not understood, killed", worker=child.worker, reason=str(error))
        child.received_all.set()
        child.kill()  # without its channel it cannot serve

    def _clean_up(self, child: Child) -> None:
        """Forget ``child``, whose process has ended; replace it if it accepted connections."""
        del self.children[child]
        placed = self._placement.drop(child)
        self._on_end(child)
        child.settled.set()
        child.gone.set()
        if placed and not self.stopping:
            log.error("worker ended", worker=child.worker, pid=child.pid, reason=child.failure)
            lived_s = trio.current_time() - child.ready_s
            lives = self._short_lives[child.worker] + 1 if lived_s < SETTLED_S else 0
            self._short_lives[child.worker] = lives
            assert self._nursery is not None
            self._nursery.start_soon(self._replace, child.worker, max(lives - 1, 0))

    async def _replace(self, worker: int, failures: int) -> None:
        """Start ``worker`` again; while it cannot start, try again after growing delays."""
        self.restarts += 1
        while True:
            await trio.sleep(delay_s(failures, FIRST_DELAY_S, MAX_DELAY_S))
            if self.stopping or self._placement.is_fresh(worker):  # a reload has replaced it meanwhile
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
