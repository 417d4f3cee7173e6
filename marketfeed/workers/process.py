"""One worker process as the engine sees it: its process, its channel, what it has been given."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import trio

from marketfeed.errors import StartError
from marketfeed.server.stats import ServerStats
from marketfeed.workers.channel import Channel
from marketfeed.workers.messages import SPARE_FILES, AskListing, AskReached, AskReport, Connection, Up
from marketfeed.workers.progress import StepPage, used

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SILENT_S: Final = 2.0  # without an answer or a step for this long a worker is as good as dead
Question = AskReport | AskListing | AskReached
PATIENCE: Final = 5  # times as long, with a worker that is ready and is not let run
MAX_UNCONFIRMED: Final = 128  # connections on their way to one worker


@dataclass(slots=True)
class Handed:
    """A connection on its way to a worker; ours to close until that has confirmed it."""

    sock: socket.socket
    address: str
    tries: int = 0


@dataclass(slots=True)
class _Asked:
    answered: trio.Event
    answer: Any = None


class Child:
    """A process that runs ``python -m marketfeed.workers``, from its start to its end."""

    def __init__(self, worker: int, generation: int, rings_fd: int, log_level: str) -> None:
        """Start the process; raises StartError. ``generation`` is that of the rolling restart it is from."""
        self.worker = worker
        self.generation = generation
        self.failure = ""
        self.report = ServerStats()
        self.synced = 0
        self.connections = 0
        self.unconfirmed: dict[int, Handed] = {}
        self.admitted: Counter[str] = Counter()  # sessions by address
        self.ready = False
        self.ready_s = 0.0
        self.retiring = False
        self.heard_s = 0.0  # when it last answered, or made a step
        self._heard_cpu_s = 0.0  # and how much CPU time it had had by then
        self._steps = 0
        self.settled = trio.Event()  # ready, or gone
        self.silent = trio.Event()  # it has said its last
        self.gone = trio.Event()
        self._asked: dict[int, _Asked] = {}
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
                    # -P and this path: it imports what we do, and nothing from the working directory.
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

    def start(self, files: int) -> None:
        """Note that the child takes connections, and may have ``files`` open."""
        self.ready, self.ready_s, self._files = True, trio.current_time(), files
        self.settled.set()

    def heard(self, now_s: float) -> None:
        """Note that the child has given a sign of life."""
        self.heard_s = now_s
        _, self._heard_cpu_s = used(self.pid)

    def silent_s(self, now_s: float) -> float:
        """Return for how long the child has neither answered nor made a step, while it could have.

        Where the machine has more to run than it can, what counts is the time that the child was let run,
        or a part of the time that passed.
        """
        steps = self._progress.steps
        if steps != self._steps:
            self._steps = steps
            self.heard(now_s)
        silent_s = now_s - self.heard_s
        if silent_s > SILENT_S:
            ready, cpu_s = used(self.pid)
            if ready:
                return min(silent_s, max(cpu_s - self._heard_cpu_s, silent_s / PATIENCE))
        return silent_s

    # Connections.

    @property
    def full(self) -> bool:
        """Tell whether the child has as many files open as it may."""
        return self.connections >= self._files - SPARE_FILES

    @property
    def has_room(self) -> bool:
        """Tell whether the child may be given a connection now."""
        return len(self.unconfirmed) < MAX_UNCONFIRMED and not self.full

    def hand(self, number: int, handed: Handed) -> None:
        """Give the child a connection."""
        handed.tries += 1
        self.unconfirmed[number] = handed
        self.connections += 1
        self.channel.send(Connection(number, handed.address), handed.sock.fileno())

    def confirmed(self, number: int) -> None:
        """Let go of a connection that the child has taken."""
        self.unconfirmed.pop(number).sock.close()

    def returned(self, number: int) -> Handed:
        """Take back a connection that the child could not take."""
        self.connections -= 1
        return self.unconfirmed.pop(number)

    # Questions.

    def ask(self, number: int, question: Question) -> None:
        """Ask ``question``, which has the ``number``."""
        self._asked[number] = _Asked(trio.Event())
        self.channel.send(question)

    async def answered(self, number: int) -> None:
        """Wait for the answer to question ``number``, or the child's end."""
        await self._asked[number].answered.wait()

    def answer(self, number: int) -> Any:
        """Return the answer to question ``number``, None without one; asked for once."""
        return self._asked.pop(number).answer

    def take_answer(self, number: int, answer: Any) -> None:
        """Note the answer to a question that somebody may still wait for."""
        asked = self._asked.get(number)
        if asked is not None:
            asked.answer = answer
            asked.answered.set()

    # The end.

    async def exited(self) -> None:
        """Wait until the process is gone."""
        await trio.lowlevel.wait_readable(self._pidfd)
        code = self._process.wait()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        self.failure = self.failure or how

    def kill(self) -> None:
        """Kill the process, if it still lives."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    def end(self) -> None:
        """Kill the process if it lives, and close what connects us to it."""
        self.kill()
        self._process.wait()
        self.channel.close()
        os.close(self._pidfd)
        os.close(self.doorbell)
        self._progress.close()
        for asked in self._asked.values():
            asked.answered.set()


async def ask_all(
    children: Iterable[Child],
    question: Callable[[int], Question],
    numbers: Iterator[int],
    timeout_s: float = math.inf,
) -> dict[Child, Any]:
    """Ask ``children``; return the answers of those that answered within ``timeout_s``.

    ``question(number)`` is what to ask; ``numbers`` are those not used yet.
    """
    asked: dict[Child, int] = {}
    answers: dict[Child, Any] = {}
    try:
        for child, number in zip(children, numbers, strict=False):
            asked[child] = number
            child.ask(number, question(number))
        with trio.move_on_after(timeout_s):
            for child, number in asked.items():
                await child.answered(number)
    finally:
        for child, number in asked.items():
            answers[child] = child.answer(number)
    return {child: answer for child, answer in answers.items() if answer is not None}
