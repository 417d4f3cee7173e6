"""A virtual clock, a network and a key-value bucket that fail in every way, from one seed.

Times are ns of a true clock that nobody in the world can read. Messages are delayed, so they overtake each
other; they are lost and doubled, at rates that a simulation changes.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from typing import TYPE_CHECKING, Final

from marketfeed.cluster.lease_actions import CompareAndSet, Get

if TYPE_CHECKING:
    from collections.abc import Callable

Entry = tuple[int, bytes] | None  # revision and value

MS: Final = 1_000_000
BUCKET: Final = "bucket"  # its address in the network


class World:
    """The events to come, in order of true time, and a trace of those that were noted."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now_ns = 0
        self.trace: deque[str] = deque(maxlen=3000)
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, delay_ns: int, event: Callable[[], None]) -> None:
        """Run ``event`` in ``delay_ns``."""
        self._count += 1
        heapq.heappush(self._events, (self.now_ns + delay_ns, self._count, event))

    def run(self, until_ns: int) -> None:
        """Run all events up to ``until_ns``."""
        while self._events and self._events[0][0] <= until_ns:
            self.now_ns, _, event = heapq.heappop(self._events)
            event()
        self.now_ns = until_ns

    def note(self, text: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.now_ns / 1e9:9.4f} {text}")


class Network:
    """Carries messages between addresses; each one has delays and chances of its own."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.cut: set[tuple[str, str]] = set()  # from, to
        self.lost = self.doubled = self.slow = 0.0  # chances of one message

    def separate(self, some: set[str], others: set[str]) -> None:
        """Cut all ways between the two sides."""
        for one in some:
            for other in others - {one}:
                self.cut |= {(one, other), (other, one)}

    def heal(self) -> None:
        """Open all ways, and lose nothing any more."""
        self.cut.clear()
        self.lost = self.doubled = self.slow = 0.0

    def send(self, source: str, target: str, deliver: Callable[[], None]) -> None:
        """Call ``deliver`` later: once, twice, or never."""
        rng = self._world.rng
        if (source, target) in self.cut or rng.random() < self.lost:
            return
        for _ in range(2 if rng.random() < self.doubled else 1):
            delay_ns = rng.randint(MS // 5, 3 * MS)
            if rng.random() < self.slow:
                delay_ns = rng.randint(3 * MS, 1500 * MS)
            self._world.after(delay_ns, lambda: self._arrive(source, target, deliver))

    def _arrive(self, source: str, target: str, deliver: Callable[[], None]) -> None:
        if (source, target) not in self.cut:
            deliver()


class Bucket:
    """The key-value bucket. Requests and answers travel through the network, and are lost there as any."""

    def __init__(self, world: World, network: Network) -> None:
        self._world, self._network = world, network
        self.down = False
        self.behind = 0.0  # chance that a read is answered with the value before
        self.revision = 0  # of the whole bucket
        self.entry: Entry = None
        self.history: list[Entry] = [None]

    def request(self, source: str, action: Get | CompareAndSet, answer: Callable[[str, Entry], None]) -> None:
        """Carry out ``action`` when it arrives.

        ``answer`` gets "got", "was_set" or "refused", and the entry.
        """

        def arrive() -> None:
            if self.down:
                return
            outcome = self._carry_out(source, action)
            self._network.send(BUCKET, source, lambda: answer(*outcome))

        self._network.send(source, BUCKET, arrive)

    def restore(self, writes: int) -> None:
        """Go back to the state before the newest ``writes`` writes, revision included."""
        del self.history[max(1, len(self.history) - writes) :]
        self.entry = self.history[-1]
        self.revision = self.entry[0] if self.entry else 0
        self._world.note(f"bucket: restored to {self.entry}")

    def _carry_out(self, source: str, action: Get | CompareAndSet) -> tuple[str, tuple[int, bytes] | None]:
        if isinstance(action, Get):
            late = len(self.history) > 1 and self._world.rng.random() < self.behind
            return "got", self.history[-2] if late else self.entry
        if action.revision != (self.entry[0] if self.entry else 0):
            return "refused", None
        self.revision += self._world.rng.randint(1, 2)  # other keys count as well
        self.entry = (self.revision, action.value)
        self.history.append(self.entry)
        self._world.note(f"bucket: {source} wrote {self.entry}")
        return "was_set", self.entry
