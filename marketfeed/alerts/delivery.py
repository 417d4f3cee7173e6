"""Delivery of alerts to one consumer: which alert goes to which session, when, and how often. Pure.

    log ── offer ──► ready ── take ──► delivered ── acknowledged ──► settled
                       ▲                 │  │
                       └── delay is over,┘  └── delay is over after max_tries ── parked ──► dead letter
                           session left

It does no I/O and has no clock. ``now_ns`` is a monotonic time, such as that of the event loop: a step of the
wall clock changes nothing here. The caller reads the log from ``position`` for as many entries as there is
``room``, hands what :meth:`Delivery.take` returns to the sessions, and tells what the log has made durable.

What is due is taken in order of position, so the first deliveries of a consumer are in the order of the log.
A delivery that is repeated may come after later alerts of its symbol.
"""

from __future__ import annotations

import heapq
import random
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from marketfeed.alerts.log import Entry
from marketfeed.core.units import S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from marketfeed.alerts.log import Consumer, Progress

DeliveryState = Literal["live", "stalled", "away"]

FIRST_S: Final = 1  # delay before the second delivery; it doubles with each
MOST_S: Final = 60
SPREAD: Final = (0.8, 1.2)  # a delay is multiplied by a random factor, so that redeliveries do not coincide


class DeliveryLimits(msgspec.Struct, frozen=True):
    """``alerts.max_tries`` and ``alerts.in_flight``."""

    max_tries: int
    in_flight: int


class Due(msgspec.Struct, frozen=True):
    """One delivery: the entry, and which try this is, from 1."""

    entry: Entry
    tries: int


class DeliveryStatistics(msgspec.Struct, frozen=True):
    """A consumer at one moment, and counts since the engine started.

    ``state`` is ``stalled`` if the consumer holds ``in_flight`` unacknowledged alerts, ``away`` if it has no
    session.
    """

    state: DeliveryState
    sessions: int
    unacknowledged: int  # delivered, and neither acknowledged nor parked
    oldest_ns: int  # Unix time at which the oldest unsettled alert was appended; 0 = there is none
    position: int  # of the last entry read
    floor: int
    delivered: int  # first deliveries
    redelivered: int
    acknowledged: int
    parked: int


class _Held:
    """An entry that is read and not settled."""

    __slots__ = ("due_ns", "entry", "session", "tries")

    def __init__(self, entry: Entry, tries: int, due_ns: int) -> None:
        self.entry = entry
        self.tries = tries  # deliveries so far
        self.due_ns: int | None = due_ns  # of the next step; None = ready to be taken
        self.session: str | None = None  # to which it was delivered, until its delay is over


class Delivery:
    """The state of one consumer. Methods cost O(log n) per alert, :meth:`statistics` O(n), of ``in_flight``.

    The caller tells what the log made durable in the order in which it did: it makes the changes of one
    consumer one after the other.
    """

    def __init__(
        self,
        consumer: Consumer,
        progress: Progress,
        limits: DeliveryLimits,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Start where ``progress`` says; what was delivered before is due at once."""
        self.consumer = consumer
        self.position = progress.floor  # up to which the log has been read
        self._limits, self._uniform = limits, uniform
        self._floor = progress.floor
        self._settled = set(progress.settled)  # above the position
        self._tries = dict(progress.tries)  # of what has not been read yet
        self._held: dict[int, _Held] = {}
        # Requeued, until there is room.
        self._waiting = {entry.position: entry for entry in progress.requeued if consumer.may_have(entry)}
        self._later: list[tuple[int, int]] = []  # heap of due_ns and position; stale entries are skipped
        self._ready: list[int] = []  # heap of positions, likewise
        self._above: list[int] = []  # heap of unsettled positions above the floor, likewise
        self._expired: set[int] = set()
        self._sessions: dict[str, set[int]] = {}  # positions delivered to each
        self._unacknowledged = 0
        self._delivered = self._redelivered = self._acknowledged = self._parked = 0

    @property
    def floor(self) -> int:
        """Everything up to this position is settled; to be recorded in the log."""
        while self._above and self._above[0] not in self._held and self._above[0] not in self._waiting:
            heapq.heappop(self._above)
        reached = self._above[0] - 1 if self._above else self.position
        self._floor = max(self._floor, reached)
        return self._floor

    @property
    def away(self) -> bool:
        """Whether there is no session."""
        return not self._sessions

    @property
    def settled(self) -> bool:
        """Whether everything that was read is settled."""
        return not self._held and not self._waiting

    def room(self) -> int:
        """Return how many more entries to read from the log; 0 while the consumer holds what it may."""
        return max(self._limits.in_flight - len(self._held) - len(self._waiting), 0)

    def offer(self, entries: Sequence[Entry], now_ns: int) -> None:
        """Take over entries after ``position``, in order, at most ``room()`` of them."""
        for entry in entries:
            self.position = entry.position
            tries = self._tries.pop(entry.position, 0)
            if entry.position in self._settled:
                self._settled.discard(entry.position)
            elif self.consumer.wants(entry):
                self._hold(entry, tries, now_ns)
                heapq.heappush(self._above, entry.position)
        self._admit(now_ns)

    def requeued(self, entries: Iterable[Entry], now_ns: int) -> None:
        """Deliver dead letters again, which the log has requeued."""
        for entry in entries:
            if entry.position > self.position:
                self._settled.discard(entry.position)  # it will be read
                continue
            self._release(entry.position)
            self._waiting[entry.position] = entry
            if entry.position > self._floor:
                heapq.heappush(self._above, entry.position)
        self._admit(now_ns)

    def change(self, consumer: Consumer) -> None:
        """Use new patterns for what was appended since they were set, and new symbols for everything.

        What the symbols leave out is settled.
        """
        self.consumer = consumer
        unwanted = [held.entry for held in self._held.values() if not consumer.may_have(held.entry)]
        unwanted += [entry for entry in self._waiting.values() if not consumer.may_have(entry)]
        for entry in unwanted:
            self._release(entry.position)

    def join(self, session: str) -> None:
        """Add a session; those of one consumer share its alerts.

        A client that polls is one session over all its polls: it acknowledges after a poll has ended.
        """
        self._sessions.setdefault(session, set())

    def has(self, session: str) -> bool:
        """Return whether a session has joined."""
        return session in self._sessions

    def has_others(self, session: str) -> bool:
        """Return whether a session other than ``session`` has joined."""
        return len(self._sessions) > self.has(session)

    def leave(self, session: str) -> None:
        """Remove a session: what it had unacknowledged is ready for another at once.

        An alert that was delivered ``max_tries`` times is not: it is parked when its delay is over.
        """
        for position in self._sessions.pop(session, ()):
            held = self._held[position]
            held.session = None
            if held.tries < self._limits.max_tries:
                self._make_ready(position, held)

    def take(self, session: str, now_ns: int, limit: int) -> list[Due]:
        """Return up to ``limit`` alerts that are due, as delivered to ``session``.

        With several sessions, each has at most an equal share of ``in_flight``.
        """
        self._admit(now_ns)
        self._promote(now_ns)
        mine = self._sessions[session]
        share = -(-self._limits.in_flight // len(self._sessions))
        taken: list[Due] = []
        while self._ready and len(taken) < limit and len(mine) < share:
            position = heapq.heappop(self._ready)
            held = self._held.get(position)
            if held is None or held.due_ns is not None:
                continue
            held.tries += 1
            held.session = session
            mine.add(position)
            self._delay(position, held, now_ns)
            self._unacknowledged += held.tries == 1
            self._delivered += held.tries == 1
            self._redelivered += held.tries > 1
            taken.append(Due(held.entry, held.tries))
        return taken

    def acknowledged(self, positions: Iterable[int]) -> None:
        """Forget what the log has recorded as acknowledged."""
        for position in positions:
            self._acknowledged += 1
            if not self._release(position) and position > self.position:
                self._settled.add(position)

    def expired(self, now_ns: int) -> dict[int, int]:
        """Return positions to be parked, with their tries, until :meth:`parked` or an acknowledgement."""
        self._promote(now_ns)
        return {position: self._held[position].tries for position in sorted(self._expired)}

    def parked(self, positions: Iterable[int]) -> None:
        """Forget what the log has parked."""
        for position in positions:
            if position in self._expired:
                self._parked += self._release(position)

    def next_ns(self) -> int | None:
        """Return when something becomes due or expires next; None if nothing waits for a time."""
        while self._later:
            due_ns, position = self._later[0]
            held = self._held.get(position)
            if held is not None and held.due_ns == due_ns and position not in self._expired:
                return due_ns
            heapq.heappop(self._later)
        return None

    def statistics(self) -> DeliveryStatistics:
        """Return state and counts."""
        state: DeliveryState = "live" if self._sessions else "away"
        if self._unacknowledged >= self._limits.in_flight:
            state = "stalled"
        unsettled = [held.entry for held in self._held.values()] + list(self._waiting.values())
        oldest_ns = min((entry.at_ns for entry in unsettled), default=0)
        return DeliveryStatistics(
            state, len(self._sessions), self._unacknowledged, oldest_ns, self.position, self.floor,
            self._delivered, self._redelivered, self._acknowledged, self._parked,
        )  # fmt: skip

    def _admit(self, now_ns: int) -> None:
        """Move what waits for room to what is held, oldest first."""
        room = self._limits.in_flight - len(self._held)
        for position in sorted(self._waiting)[:room] if self._waiting and room > 0 else ():
            self._hold(self._waiting.pop(position), self._tries.pop(position, 0), now_ns)

    def _hold(self, entry: Entry, tries: int, now_ns: int) -> None:
        held = self._held[entry.position] = _Held(entry, tries, now_ns)
        self._unacknowledged += tries > 0
        if tries < self._limits.max_tries:
            self._make_ready(entry.position, held)
        else:
            # The engine ended after the last try; the consumer gets the whole delay to acknowledge.
            self._delay(entry.position, held, now_ns)

    def _make_ready(self, position: int, held: _Held) -> None:
        held.due_ns = None
        heapq.heappush(self._ready, position)

    def _delay(self, position: int, held: _Held, now_ns: int) -> None:
        delay_s = min(FIRST_S << min(held.tries - 1, 10), MOST_S) * self._uniform(*SPREAD)
        held.due_ns = now_ns + round(delay_s * S)
        heapq.heappush(self._later, (held.due_ns, position))

    def _promote(self, now_ns: int) -> None:
        """Make ready, or expire, what was delivered and whose delay is over."""
        while (due_ns := self.next_ns()) is not None and due_ns <= now_ns:
            _, position = heapq.heappop(self._later)
            held = self._held[position]
            if held.session is not None:
                self._sessions[held.session].discard(position)
                held.session = None
            if held.tries < self._limits.max_tries:
                self._make_ready(position, held)
            else:
                self._expired.add(position)

    def _release(self, position: int) -> bool:
        """Stop holding a position; return whether it was held."""
        waited = self._waiting.pop(position, None)
        held = self._held.pop(position, None)
        if held is None:
            return waited is not None
        self._expired.discard(position)
        self._unacknowledged -= held.tries > 0
        if held.session is not None:
            self._sessions[held.session].discard(position)
        return True
