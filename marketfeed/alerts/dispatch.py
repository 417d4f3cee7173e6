"""Dispatch of alerts in the engine: everything that is appended to the log, and everything that leaves it.

    watcher, publishers ──► append (marks of silences) ──► log ──► recent entries ─┬─► consumers ──► take
                                                                                   └─► entries, for live views

It is an :class:`marketfeed.alerts.service.AlertService`, and the :class:`marketfeed.alerts.watcher.Keeping`
of the watcher.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import structlog
import trio

from marketfeed.alerts.active import ActiveConsumer
from marketfeed.alerts.history import Histories
from marketfeed.alerts.log import ALL_SYMBOLS, CONSUMERS, Acknowledged, Entry, Progress, consumer_problem
from marketfeed.alerts.notices import check_addressee, is_acknowledged
from marketfeed.alerts.patterns import symbol_set
from marketfeed.alerts.recent import RecentEntries
from marketfeed.alerts.service import AlertRefusedError, Published
from marketfeed.alerts.silencing import Silences
from marketfeed.errors import AlertLogError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from marketfeed.alerts.alert import Alert
    from marketfeed.alerts.delivery import DeliveryLimits, DeliveryStatistics, Due
    from marketfeed.alerts.history import Page, Wanted
    from marketfeed.alerts.log import AlertLog, Appended, Consumer, DeadLetter, Episode, Mark, Silence, Start
    from marketfeed.core.symbol_set import SymbolSet

LOOK_S: Final = 0.5  # between looks for alerts to park; the shortest delay is 0.8 s

log = structlog.get_logger()


class Dispatch:
    """Made by :meth:`started`. ``wall_ns`` is the Unix clock."""

    def __init__(
        self, alerts: AlertLog, limits: DeliveryLimits, newest: int, wall_ns: Callable[[], int]
    ) -> None:
        self._alerts, self._limits, self._wall_ns = alerts, limits, wall_ns
        self._recent = RecentEntries(alerts, newest, self._ring)
        self._silences = Silences(alerts, self.append, wall_ns)
        self._creating = trio.Lock()
        self._histories = Histories(alerts)
        self._active: dict[str, ActiveConsumer] = {}
        self._sessions: dict[str, ActiveConsumer] = {}
        self._awaited: dict[tuple[str, int], list[trio.Event]] = {}  # by consumer and position
        self.on_append: list[Callable[[], None]] = []  # called after each append
        self.on_resolved: list[Callable[[Episode], None]] = []
        self.on_silenced: list[Callable[[Silence], None]] = []
        self.on_unsilenced: list[Callable[[Silence], None]] = []  # with one that was ended before its time
        self.muted: dict[Mark, int] = {"inhibited": 0, "silenced": 0}  # entries since the start

    @classmethod
    async def started(cls, alerts: AlertLog, limits: DeliveryLimits, wall_ns: Callable[[], int]) -> Dispatch:
        """Return one that goes on where the log says. Raises AlertLogError."""
        dispatch = cls(alerts, limits, await alerts.head(), wall_ns)
        await dispatch._silences.load()
        for consumer in await alerts.consumers():
            await dispatch._activate(consumer)
        return dispatch

    async def run(self) -> None:
        """Read what others append, park what is not acknowledged, and end silences, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._recent.run)
            nursery.start_soon(self._silences.run)
            while True:
                await trio.sleep(LOOK_S)
                for consumer in list(self._active.values()):
                    try:
                        await consumer.look()
                    except AlertLogError as error:
                        log.warning("dead letters are not kept yet", reason=str(error))
                        break

    # For the watcher.

    async def episodes(self, open_only: bool = False) -> list[Episode]:
        """Return episodes; raises AlertLogError."""
        return await self._alerts.episodes(open_only)

    async def append(
        self, alerts: Sequence[Alert], now_ns: int, marks: Mapping[str, Mark] | None = None
    ) -> list[Appended]:
        """Keep alerts; those that a silence covers are kept with a mark. Raises AlertLogError."""
        marked = {**self._silences.marks(alerts, now_ns), **(marks or {})}
        appended = await self._alerts.append(alerts, now_ns, marked)
        for mark in (one.mark for one in appended if one.mark is not None):
            self.muted[mark] += 1
        self._recent.offer(
            [
                Entry(one.position, alert, now_ns, one.mark)
                for one, alert in zip(appended, alerts, strict=True)
                if one.new
            ]
        )
        for tell in self.on_append:
            tell()
        return appended

    # For sessions: marketfeed.alerts.service.AlertService.

    async def join(
        self,
        session: str,
        name: str,
        start: Start,
        patterns: Sequence[str],
        symbols: Sequence[str] = ALL_SYMBOLS,
    ) -> Consumer:
        """Have ``session`` take alerts of consumer ``name``, which the first use creates."""
        problem = consumer_problem(name, patterns)
        joined = self._sessions.get(session)
        if problem is None and joined is not None and joined.name != name and not joined.dropped:
            problem = f"this session takes alerts of consumer {joined.name} already"
        if problem is not None:
            raise AlertRefusedError(problem)
        try:
            wanted = symbol_set(tuple(symbols))
        except ValueError as error:
            raise AlertRefusedError(str(error)) from None
        while True:
            active = self._active.get(name) or await self._created(name, start, patterns, wanted)
            if await active.join(session, patterns, wanted):
                break  # else it was dropped meanwhile
        self._sessions[session] = active
        return active.delivery.consumer

    def leave(self, session: str) -> None:
        """Take no more alerts. Idempotent."""
        active = self._sessions.pop(session, None)
        if active is not None:
            active.leave(session)

    async def take(self, session: str, limit: int) -> list[Due]:
        """Wait until alerts are due for ``session``; return up to ``limit`` of them."""
        active = self._sessions.get(session)
        if active is None:
            raise AlertRefusedError("this session takes alerts of no consumer")
        return await active.take(session, limit)

    async def acknowledge(self, name: str, ids: Sequence[str]) -> Acknowledged:
        """Settle alerts of consumer ``name``, durably."""
        active = self._active.get(name)
        if active is None:
            if problem := consumer_problem(name, ["*"]):
                raise AlertRefusedError(problem)
            return Acknowledged((), (), tuple(ids))
        found = await active.acknowledge(ids)
        for position in found.positions:
            for event in self._awaited.get((name, position), ()):
                event.set()
        return found

    async def head(self) -> int:
        """Return the position of the newest entry."""
        return await self._alerts.head()

    async def entries(self, after: int, limit: int) -> list[Entry]:
        """Wait until there are entries after a position, and return up to ``limit`` of them."""
        await self._recent.wait(after)
        return await self._recent.after(after, limit)

    async def history(self, wanted: Wanted, before: str, limit: int) -> Page | None:
        """Return alerts that were appended earlier, newest first; None if ``before`` is unknown."""
        return await self._histories.page(wanted, before, limit)

    async def publish(self, notice: Alert, wait_s: float | None = None) -> Published:
        """Keep a notice; wait up to ``wait_s`` until ``notice.to`` acknowledges it."""
        to = notice.to
        if to is not None and (problem := consumer_problem(to, ["*"])):
            raise AlertRefusedError(problem)
        if wait_s is not None and to is None:
            raise AlertRefusedError("only a notice to one consumer can be waited for: it needs `to`")
        (appended,) = await self.append([notice], self._wall_ns())
        if not appended.new:
            await check_addressee(self._alerts, notice, appended)
        acknowledged = False
        if wait_s is not None and to is not None:
            with self._await((to, appended.position)) as event:
                if not appended.new and await is_acknowledged(self._alerts, to, appended.position):
                    event.set()
                with trio.move_on_after(wait_s):
                    await event.wait()
                acknowledged = event.is_set()
        return Published(appended.id, appended.new, acknowledged)

    async def resolve(self, key: str, by: str, comment: str) -> Episode | None:
        """Record that a person took on an episode; None if there is no such episode."""
        episode = await self._alerts.resolve(key, by, comment, self._wall_ns())
        if episode is not None:
            for tell in self.on_resolved:
                tell(episode)
        return episode

    async def silences(self) -> list[Silence]:
        """Return all silences, expired ones included, by start."""
        return await self._alerts.silences()

    async def add_silence(self, silence: Silence) -> None:
        """Keep a silence. Raises AlertRefusedError."""
        await self._silences.add(silence)
        for tell in self.on_silenced:
            tell(silence)

    async def expire_silence(self, silence: str, by: str) -> bool:
        """End a silence now; False if there is none that ends later."""
        ended = await self._silences.expire(silence, by)
        if ended is None:
            return False
        for tell in self.on_unsilenced:
            tell(ended)
        return True

    # For operators.

    def statistics(self) -> dict[str, DeliveryStatistics]:
        """Return the state of each consumer, by name."""
        return {name: active.delivery.statistics() for name, active in sorted(self._active.items())}

    def consumers(self) -> list[Consumer]:
        """Return all consumers by name; a ``floor`` is that of its creation, or of the engine's start."""
        return [active.delivery.consumer for _, active in sorted(self._active.items())]

    def has_consumer(self, name: str) -> bool:
        """Return whether there is a consumer with this name."""
        return name in self._active

    @property
    def newest(self) -> int:
        """Return the position of the newest entry that was read."""
        return self._recent.newest

    async def dead_letter_counts(self) -> dict[str, int]:
        """Return how many dead letters each consumer has; none is left out."""
        return await self._alerts.dead_letter_counts()

    async def dead_letters(self, name: str | None = None, limit: int | None = None) -> list[DeadLetter]:
        """Return the first ``limit`` dead letters of one consumer, or of all."""
        return await self._alerts.dead_letters(name, limit)

    async def requeue(self, name: str, ids: Sequence[str], by: str) -> list[Entry]:
        """Deliver dead letters again; return those that were dead letters."""
        active = self._active.get(name)
        return [] if active is None else await active.requeue(ids, by)

    async def drop_consumer(self, name: str, by: str) -> bool:
        """Remove a consumer with all that is kept for it; False if there is none."""
        active = self._active.get(name)
        if active is None or not await active.drop(by):
            return False
        del self._active[name]
        self._sessions = {session: one for session, one in self._sessions.items() if one is not active}
        return True

    def _ring(self) -> None:
        for active in self._active.values():
            active.ring()

    async def _created(
        self, name: str, start: Start, patterns: Sequence[str], symbols: SymbolSet
    ) -> ActiveConsumer:
        async with self._creating:
            if name not in self._active:
                if len(self._active) >= CONSUMERS:
                    text = f"there are {CONSUMERS} consumers already: an operator has to drop one"
                    raise AlertRefusedError(text)
                with trio.CancelScope(shield=True):
                    made = await self._alerts.use_consumer(
                        name, self._wall_ns(), start, patterns, symbols.patterns
                    )
                    await self._activate(made)
            return self._active[name]

    async def _activate(self, consumer: Consumer) -> None:
        progress = await self._alerts.progress(consumer.name) or Progress(consumer.floor)
        self._active[consumer.name] = ActiveConsumer(
            consumer, progress, self._limits, self._alerts, self._recent, self._wall_ns
        )

    @contextmanager
    def _await(self, key: tuple[str, int]) -> Iterator[trio.Event]:
        event = trio.Event()
        self._awaited.setdefault(key, []).append(event)
        try:
            yield event
        finally:
            self._awaited[key].remove(event)
            if not self._awaited[key]:
                del self._awaited[key]
