"""A consumer while the engine runs: its delivery, the sessions that wait for it, and what the log keeps.

Changes that have to be durable are made one after the other and to their end, even if the caller goes away:
a delivery must not differ from what the log has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

from marketfeed import clock
from marketfeed.alerts.delivery import Delivery, DeliveryLimits
from marketfeed.alerts.service import AlertRefusedError
from marketfeed.core.units import S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from marketfeed.alerts.delivery import Due
    from marketfeed.alerts.log import Acknowledged, AlertLog, Consumer, Entry, Progress
    from marketfeed.alerts.recent import RecentEntries
    from marketfeed.core.symbol_set import SymbolSet

READ: Final = 128  # entries per step, between which other tasks run
READ_AWAY: Final = 50  # of a consumer without a session, for the age of its oldest alert
POLLING: Final = "poll:"  # begins the names of sessions that are clients which poll
POLL_GONE_S: Final = 60.0  # without a poll

log = structlog.get_logger()


class ActiveConsumer:
    """One consumer. ``wall_ns`` is the Unix clock."""

    def __init__(
        self,
        consumer: Consumer,
        progress: Progress,
        limits: DeliveryLimits,
        alerts: AlertLog,
        recent: RecentEntries,
        wall_ns: Callable[[], int],
    ) -> None:
        """Go on where ``progress`` says."""
        self.name = consumer.name
        self.delivery = Delivery(consumer, progress, limits)
        self.dropped = False
        self._alerts, self._recent, self._wall_ns = alerts, recent, wall_ns
        self._changing = trio.Lock()
        self._joining = trio.Lock()
        self._replacing = False  # whether other patterns or symbols are being kept
        self._reading = trio.Lock()
        self._more = trio.Event()
        self._polled_ns: dict[str, int] = {}  # when a session that polls took last
        self._taking: dict[str, int] = {}  # calls of take() per session that polls

    def ring(self) -> None:
        """Wake the sessions: something may be due."""
        self._more.set()
        self._more = trio.Event()

    async def join(self, session: str, patterns: Sequence[str], symbols: SymbolSet) -> bool:
        """Add a session, with these patterns and symbols from now on; False if the consumer was dropped.

        Joins are made one after the other, so that all sessions have the same symbols. Raises
        AlertRefusedError if another session has others. A session of clients that poll is refused like
        another one: it keeps its symbols until it is gone. Idempotent.
        """
        async with self._joining:
            consumer = self.delivery.consumer
            replaces = symbols != consumer.symbol_set
            polls = session.startswith(POLLING)
            if replaces and (self.delivery.has_others(session) or (polls and self.delivery.has(session))):
                raise AlertRefusedError(f"consumer {self.name} is in use by a holder of other symbols")
            if replaces or tuple(patterns) != consumer.patterns:
                await self._change(patterns, symbols.patterns if replaces else consumer.symbols)
            if self.dropped:
                return False
            self.delivery.join(session)
            if polls:
                self._polled_ns[session] = clock.now_ns()
            return True

    def leave(self, session: str) -> None:
        """Remove a session; what it has not acknowledged is due for another."""
        self._polled_ns.pop(session, None)
        self.delivery.leave(session)
        self.ring()

    async def take(self, session: str, limit: int) -> list[Due]:
        """Wait until alerts are due for ``session``; return up to ``limit`` of them."""
        self._taking[session] = self._taking.get(session, 0) + 1
        try:
            while True:
                more = self._more
                with trio.CancelScope(shield=True):  # so that a poll of 0 s gets what is due
                    unread = await self._read_on()
                if self.dropped or not self.delivery.has(session):
                    raise AlertRefusedError(f"consumer {self.name} was dropped: subscribe again")
                if self._replacing:  # nothing outside new symbols is taken while the log keeps them
                    await more.wait()
                    continue
                due = self.delivery.take(session, clock.now_ns(), limit)
                if due:
                    tries = {one.entry.position: one.tries for one in due}
                    self._alerts.record_attempts(self.name, tries)
                    return due
                if unread:
                    await trio.lowlevel.checkpoint()
                else:
                    await self._wait(more)
        finally:
            self._taking[session] -= 1
            if not self._taking[session]:
                del self._taking[session]
            if session in self._polled_ns:
                self._polled_ns[session] = clock.now_ns()

    async def _wait(self, more: trio.Event) -> None:
        next_ns = self.delivery.next_ns()
        with trio.move_on_at(float("inf") if next_ns is None else next_ns / S):
            await more.wait()

    async def read(self) -> None:
        """Read on in the log, as far as the consumer has room; without a session, to its next alert."""
        while await self._read_on():
            pass

    async def _read_on(self) -> bool:
        """Read some entries; return False if there are no more, or no room for them."""
        delivery = self.delivery
        async with self._reading:
            room = delivery.room() if delivery.position < self._recent.newest else 0
            if not room or self._replacing or (delivery.away and not delivery.settled):
                return False
            before = delivery.floor
            most = READ_AWAY if delivery.away else READ
            entries = await self._recent.after(delivery.position, min(room, most))
            if self._replacing:  # they may have been appended since, and are for the new patterns
                return False
            delivery.offer(entries, clock.now_ns())
        if delivery.floor > before:
            self._alerts.advance(self.name, delivery.floor)
        return True

    async def _change(self, patterns: Sequence[str], symbols: Sequence[str]) -> None:
        """Use other patterns for what is appended from now on, and other symbols for everything.

        Nothing is read meanwhile: only the log knows up to where the former patterns decide.
        """
        self._replacing = True
        try:
            async with self._changing:
                if self.dropped:  # to use it would create it again
                    return
                with trio.CancelScope(shield=True):
                    now_ns = self._wall_ns()
                    consumer = await self._alerts.use_consumer(
                        self.name, now_ns, patterns=patterns, symbols=symbols
                    )
                    self.delivery.change(consumer)
            self._alerts.advance(self.name, self.delivery.floor)
        finally:
            self._replacing = False
            self.ring()

    async def acknowledge(self, ids: Sequence[str]) -> Acknowledged:
        """Settle alerts, durably."""
        async with self._changing:
            with trio.CancelScope(shield=True):
                found = await self._alerts.acknowledge(self.name, ids, self._wall_ns())
                self.delivery.acknowledged(found.positions)
        if found.positions:
            self._alerts.advance(self.name, self.delivery.floor)
            self.ring()
        return found

    async def requeue(self, ids: Sequence[str], by: str) -> list[Entry]:
        """Deliver dead letters again."""
        async with self._changing:
            with trio.CancelScope(shield=True):
                entries = await self._alerts.requeue(self.name, ids, self._wall_ns(), by)
                self.delivery.requeued(entries, clock.now_ns())
        self.ring()
        return entries

    async def drop(self, by: str) -> bool:
        """Remove the consumer; sessions that wait get an error. False if it was dropped before."""
        async with self._changing:
            if self.dropped:  # another with this name may have been created since
                return False
            with trio.CancelScope(shield=True):
                await self._alerts.drop_consumer(self.name, self._wall_ns(), by)
                self.dropped = True
        self.ring()
        return True

    async def look(self) -> None:
        """Park what was delivered too often, and drop sessions that poll no more. Called now and then."""
        now_ns = clock.now_ns()
        for session in self._gone(now_ns):
            self.leave(session)
        await self.read()
        if not self.delivery.expired(now_ns):
            return
        async with self._changing:
            with trio.CancelScope(shield=True):
                tries = self.delivery.expired(now_ns)
                parked = await self._alerts.park(self.name, tries, self._wall_ns())
                self.delivery.parked(parked)
        log.warning("alerts are dead letters: not acknowledged", consumer=self.name, alerts=len(parked))
        self._alerts.advance(self.name, self.delivery.floor)
        self.ring()

    def _gone(self, now_ns: int) -> Iterable[str]:
        most_ns = POLL_GONE_S * S
        return [
            session
            for session, polled_ns in self._polled_ns.items()
            if session not in self._taking and now_ns - polled_ns > most_ns
        ]
