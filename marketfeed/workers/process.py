"""A worker process on the engine's side: the process, its channel, its connections and statistics."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, assert_never

import trio

from marketfeed import __version__
from marketfeed.errors import ControlError, StartError
from marketfeed.server.stats import ServerStats
from marketfeed.workers.channel import Channel
from marketfeed.workers.messages import (
    SPARE_FILES,
    Accepted,
    AccessChanged,
    AccessTaken,
    Alive,
    AskListing,
    AskReached,
    AskReport,
    Connection,
    Ended,
    Failed,
    Listed,
    Reached,
    Ready,
    Reported,
    Status,
    Up,
)
from marketfeed.workers.progress import StepPage, cpu_usage
from marketfeed.workers.requests import Request, Requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

INACTIVE_S: Final = 2.0  # without a message or a step for this long, a worker counts as hanging
STARVED_FACTOR: Final = 5  # times as long for a worker that is ready to run and gets no CPU
MAX_UNCONFIRMED: Final = 128  # connections that were passed to one worker and are not confirmed


@dataclass(slots=True)
class Handover:
    """A connection that is passed to a worker. The engine owns ``sock`` until the worker confirms it."""

    sock: socket.socket
    address: str
    tries: int = 0


class Child:
    """A process that runs ``python -m marketfeed.workers``, from its start to its end."""

    def __init__(self, worker: int, generation: int, rings_fd: int, log_level: str) -> None:
        """Start the process; raises StartError. ``generation`` counts rolling restarts."""
        self.worker = worker
        self.generation = generation
        self.failure = ""
        self.report = ServerStats()
        self.synced = 0
        self.connections = 0
        self.unconfirmed: dict[int, Handover] = {}
        self.admitted: Counter[str] = Counter()  # sessions by address
        self.ready = False
        self.ready_s = 0.0
        self.active_s = 0.0  # when it last sent a message or made a step
        self._active_cpu_s = 0.0  # its CPU time at that moment
        self._steps = 0
        self.settled = trio.Event()  # ready, or gone
        self.received_all = trio.Event()  # its channel has ended
        self.gone = trio.Event()
        self._requests: Requests[Any] = Requests()
        self._files = 0
        opened: list[int] = []
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                opened.append(ours.fileno())
                self.doorbell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                opened.append(self.doorbell)
                self._progress = StepPage()
                opened.append(self._progress.fd)
                passed = (theirs.fileno(), rings_fd, self.doorbell, self._progress.fd)
                self._process = subprocess.Popen(
                    # -P and this path: the child imports what this process does, and nothing from
                    # the working directory.
                    [
                        sys.executable,
                        "-P",
                        "-m",
                        "marketfeed.workers.__main__",
                        *map(str, (*passed, os.getpid())),
                        log_level,
                    ],
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=passed,
                    process_group=0,  # Ctrl-C on a terminal is for the engine
                )
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError as error:
            for descriptor in opened:
                os.close(descriptor)
            raise StartError(error.strerror or str(error)) from error
        self.pid = self._process.pid
        self.channel: Channel[Up] = Channel(ours, Up)  # type: ignore[arg-type]

    def update(self, message: Status) -> None:
        """Record what ``message`` reports of the child; raises ControlError for a wrong release."""
        match message:
            case Alive():
                pass
            case Accepted(number):
                self.unconfirmed.pop(number).sock.close()
            case Ended():
                self.connections -= 1
            case Reported(number, report):
                self.report, self.synced = report, report.synced
                self._requests.respond(number, report)
            case Reached(number):
                self._requests.respond(number, True)
            case AccessTaken(number, sessions):
                self._requests.respond(number, sessions)
            case Listed(number, listing):
                self._requests.respond(number, listing)
            case Failed(reason):
                self.failure = reason
            case Ready(release, files):
                self._start(release, files)
            case _:
                assert_never(message)

    def _start(self, release: str, files: int) -> None:
        """Record that the child accepts connections, and may have ``files`` open."""
        if release != __version__:
            raise ControlError(
                f"marketfeed {release} is installed now, and this engine is {__version__}: restart it"
            )
        self.ready, self.ready_s, self._files = True, trio.current_time(), files
        self.settled.set()

    # Liveness.

    def note_activity(self, now_s: float) -> None:
        """Restart the measurement of :meth:`inactive_s`."""
        self.active_s = now_s
        _, self._active_cpu_s = cpu_usage(self.pid)

    def inactive_s(self, now_s: float) -> float:
        """Return for how long the child could have sent a message or made a step, and did not.

        If the child is ready to run and the machine is overloaded, only the CPU time that it got counts,
        or a fraction of the elapsed time if that is more.
        """
        steps = self._progress.steps
        if steps != self._steps:
            self._steps = steps
            self.note_activity(now_s)
        inactive_s = now_s - self.active_s
        if inactive_s > INACTIVE_S:
            ready, cpu_s = cpu_usage(self.pid)
            if ready:
                return min(inactive_s, max(cpu_s - self._active_cpu_s, inactive_s / STARVED_FACTOR))
        return inactive_s

    # Connections.

    @property
    def full(self) -> bool:
        """Return whether the child has as many files open as it may."""
        return self.connections >= self._files - SPARE_FILES

    @property
    def has_room(self) -> bool:
        """Return whether the child may be passed a connection now."""
        return len(self.unconfirmed) < MAX_UNCONFIRMED and not self.full

    def hand_over(self, number: int, handover: Handover) -> None:
        """Pass the child a connection, which it confirms or returns by ``number``."""
        handover.tries += 1
        self.unconfirmed[number] = handover
        self.connections += 1
        self.channel.send(Connection(number, handover.address), handover.sock.fileno())

    def returned(self, number: int) -> Handover:
        """Take back a connection that the child could not accept."""
        self.connections -= 1
        return self.unconfirmed.pop(number)

    def released(self, address: str) -> None:
        """Count one admitted session from ``address`` less."""
        self.admitted[address] -= 1
        if not self.admitted[address]:
            del self.admitted[address]

    def request(self) -> AbstractContextManager[Request[Any]]:
        """Open a request to the child; :meth:`update` passes the response to it."""
        return self._requests.open()

    # The end.

    async def exited(self) -> None:
        """Wait until the process has ended."""
        await trio.lowlevel.wait_readable(self._pidfd)
        code = self._process.wait()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        self.failure = self.failure or how

    def kill(self) -> None:
        """Kill the process, unless it has ended."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    def end(self) -> None:
        """Kill the process, close all descriptors that are shared with it, and end its requests."""
        self.kill()
        self._process.wait()
        self.channel.close()
        os.close(self._pidfd)
        os.close(self.doorbell)
        self._progress.close()
        self._requests.end()


async def ask_all(
    children: Iterable[Child],
    message: Callable[[int], AccessChanged | AskReport | AskListing | AskReached],
    timeout_s: float = math.inf,
) -> dict[Child, Any]:
    """Send ``message(number)`` to each of ``children``; return the responses that arrive in ``timeout_s``."""
    with ExitStack() as stack:
        requests = {child: stack.enter_context(child.request()) for child in children}
        for child, request in requests.items():
            child.channel.send(message(request.number))
        with trio.move_on_after(timeout_s):
            for request in requests.values():
                await request.wait()
    return {child: request.response for child, request in requests.items() if request.response is not None}
