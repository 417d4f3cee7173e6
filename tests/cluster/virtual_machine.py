"""A machine of the virtual world: a monotonic clock with a rate of its own, and a process with a lease.

The process can be stopped (SIGSTOP), killed, and started again. What arrives while it is stopped waits, as in
a socket, and is handled in any order relative to the process's own timers when it continues.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from marketfeed.cluster.lease_actions import Action, Become, CompareAndSet, Get, Lost, Problem, StopFeeds
from tests.cluster.virtual_world import MS, Bucket, Entry, Network, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.cluster.lease import Lease

TICK_NS: Final = 100 * MS
_WAITING: Final = 300  # messages that a stopped process's socket holds


class Engine(Protocol):
    """What a process does with its lease, and with messages of others."""

    def tick(self, now_ns: int) -> None:
        """Do what time requires."""

    def receive(self, source: str, message: object, now_ns: int) -> None:
        """Take a message of another machine."""

    def become(self, term: int, epoch: str, now_ns: int) -> None:
        """Begin to publish."""

    def lose(self, now_ns: int) -> None:
        """Publish no more."""

    def late(self) -> None:
        """Publish without a look at the lease: the process was stopped after it looked."""

    def stop_feeds(self, successor: str, now_ns: int) -> None:
        """Stop the feeds, and send all that they published."""


class Machine:
    """One machine; ``process`` counts its starts, and 0 means that none runs."""

    def __init__(
        self,
        world: World,
        network: Network,
        bucket: Bucket,
        name: str,
        engine: Callable[[Machine], Engine],
        *,
        lease_ns: int,
        rank: int,
        candidate: bool,
        lease: type[Lease],
    ) -> None:
        self.world, self.network, self.name = world, network, name
        self.others: list[Machine] = []
        self.stopped = False
        self.process = 0
        self._bucket, self._make_engine, self._make_lease = bucket, engine, lease
        self._lease_ns, self._rank, self._candidate = lease_ns, rank, candidate
        self._starts = 0
        self._waiting: list[Callable[[], None]] = []
        self._offset_ns = world.rng.randint(0, 10**12)
        self._rate = world.rng.uniform(0.88, 1.12)
        self.start()

    @classmethod
    def five(
        cls,
        world: World,
        network: Network,
        bucket: Bucket,
        engine: Callable[[Machine], Engine],
        *,
        lease_ns: int,
        lease: type[Lease],
    ) -> list[Machine]:
        """Return machines a to e that know each other; e is a gateway, and never claims the lease."""
        machines = [
            cls(
                world, network, bucket, name, engine,
                lease_ns=lease_ns, rank=rank, candidate=name != "e", lease=lease,
            )
            for rank, name in enumerate("abcde")
        ]  # fmt: skip
        for machine in machines:
            machine.others = [other for other in machines if other is not machine]
        return machines

    def now_ns(self) -> int:
        """Return the machine's monotonic clock."""
        return self._offset_ns + int(self.world.now_ns * self._rate)

    @property
    def runs(self) -> bool:
        """Whether the process runs and is not stopped."""
        return bool(self.process) and not self.stopped

    def holds(self) -> bool:
        """Return whether the process would publish now."""
        return bool(self.process) and self.lease.holds(self.now_ns())

    def start(self) -> None:
        """Start a process, which knows nothing of the one before."""
        self._starts += 1
        self.process = self._starts
        self.stopped = False
        self._waiting.clear()
        rng = self.world.rng
        self.lease = self._make_lease(
            self.name,
            f"{self.name}{self.process}",
            lease_ns=self._lease_ns,
            suffix=lambda: f"{rng.randrange(36**5):06d}"[-6:],
            candidate=self._candidate,
        )
        self.lease.rank, self.lease.folder = self._rank, f"folder of {self.name}"
        self.engine = self._make_engine(self)
        self.world.note(f"{self.name}: started, process {self.process}")
        self._tick(self.process)

    def kill(self) -> None:
        """End the process at once."""
        self.world.note(f"{self.name}: killed")
        self.process = 0
        self._waiting.clear()

    def stop(self) -> None:
        """Stop the process until :meth:`go_on`."""
        self.world.note(f"{self.name}: stopped")
        self.stopped = True

    def go_on(self) -> None:
        """Continue a stopped process."""
        self.world.note(f"{self.name}: continues")
        self.stopped = False
        waiting, self._waiting = self._waiting, []
        waiting.insert(self.world.rng.randint(0, len(waiting)), self._do_tick)
        if self.world.rng.random() < 0.3:
            self.engine.late()
        process = self.process
        for event in waiting:
            self.handle(process, event)

    def send(self, target: Machine, message: object) -> None:
        """Send a message to another machine."""
        source = self.name

        def deliver() -> None:
            target.handle(target.process, lambda: target.take(source, message))

        self.network.send(source, target.name, deliver)

    def publish(self, message: object) -> None:
        """Send a message to all other machines."""
        for other in self.others:
            self.send(other, message)

    def take(self, source: str, message: object) -> None:
        """Give a message to the engine."""
        self.engine.receive(source, message, self.now_ns())

    def handle(self, process: int, event: Callable[[], None]) -> None:
        """Run ``event`` in the process with this number: now, when it continues, or never."""
        if not process or process != self.process:
            return
        if not self.stopped:
            event()
        elif len(self._waiting) < _WAITING:
            self._waiting.append(event)

    def carry_out(self, actions: list[Action]) -> None:
        """Do what the lease asks for."""
        for action in actions:
            if isinstance(action, Get | CompareAndSet):
                self._bucket.request(self.name, action, self._answer_to(action.request))
                continue
            self.world.note(f"{self.name}: {action}")
            if isinstance(action, Become):
                self.engine.become(action.term, action.epoch, self.now_ns())
            elif isinstance(action, Lost):
                self.engine.lose(self.now_ns())
            elif isinstance(action, StopFeeds):
                self.engine.stop_feeds(action.successor, self.now_ns())
            else:
                assert isinstance(action, Problem)

    def _answer_to(self, request: int) -> Callable[[str, Entry], None]:
        process = self.process

        def answer(outcome: str, entry: Entry) -> None:
            self.handle(process, lambda: self._answered(request, outcome, entry))

        return answer

    def _answered(self, request: int, outcome: str, entry: Entry) -> None:
        now_ns = self.now_ns()
        if outcome == "got":
            self.carry_out(self.lease.got(request, entry, now_ns))
        elif outcome == "refused":
            self.carry_out(self.lease.refused(request, now_ns))
        else:
            assert entry is not None
            self.carry_out(self.lease.was_set(request, entry[0], now_ns))

    def _tick(self, process: int) -> None:
        if process == self.process:
            self.world.after(int(TICK_NS / self._rate), lambda: self._tick(process))
            if not self.stopped:
                self._do_tick()

    def _do_tick(self) -> None:
        self.carry_out(self.lease.tick(self.now_ns()))
        self.engine.tick(self.now_ns())
