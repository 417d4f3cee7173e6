"""The escalator: sends episodes that no person took on to the outside.

    log ──► reader ──► a lane per escalation: schedule ──► log ──► sender, AT_ONCE sends at a time
                                                 ▲                   │
                                                 └───── outcome ─────┘

Lanes share nothing but the log: a peer that is slow or down delays its own escalation. What a lane is about
to send is in the log first, so an engine that is killed sends it again and omits nothing. What the reader
found is in memory until then; after a crash it is read again from the position that the log has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from marketfeed.alerts.escalation.lane import LOOK_S, Lane
from marketfeed.alerts.escalation.message import End
from marketfeed.alerts.escalation.own_alerts import switched_off, switched_on
from marketfeed.alerts.escalation.store import RETRY_S, Store
from marketfeed.errors import AlertLogError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from marketfeed.alerts.alert import Alert
    from marketfeed.alerts.escalation.registry import Escalation
    from marketfeed.alerts.escalation.store import EscalationLog
    from marketfeed.alerts.log import Entry, Episode, Silence

PAGE: Final = 500  # entries per read
COLLECT_S: Final = 0.05  # after a doorbell, so that one read takes many entries
# After the start nothing is sent for so long: the watcher first clears the episodes of the last run.
SETTLE_S: Final = 1.0
FINISH_S: Final = 2.0  # at the end of the engine


class Escalator:
    """Runs the escalations of one engine over ``alerts``, its log; ``wall_ns`` is the Unix clock.

    ``append`` puts alerts of the escalator's own into the log, and raises AlertLogError.
    """

    def __init__(
        self,
        escalations: Sequence[Escalation],
        alerts: EscalationLog,
        append: Callable[[list[Alert]], Awaitable[object]],
        wall_ns: Callable[[], int],
    ) -> None:
        self._log, self._append, self._wall_ns = alerts, append, wall_ns
        self._store = Store(alerts, lambda: [lane.schedule for lane in self.lanes.values()])
        self._resolved: list[Episode] = []  # since the last read
        self._silences: dict[str, Silence] = {}
        self._begun: set[str] = set()  # silences that open episodes were postponed for
        self._rung = trio.Event()
        self._own: list[Alert] = []  # to be appended
        self._told = trio.Event()
        self._off: dict[str, Alert] = {}  # the alert that an escalation is off, by its name
        self._nursery: trio.Nursery | None = None
        self.lanes: dict[str, Lane] = {}
        self._plan(escalations, {})

    @property
    def problem(self) -> str | None:
        """Why the log cannot be read or written; None if it can."""
        return self._store.problem

    async def begin(self) -> None:
        """Take up what the last engine left; call it before anything is appended. Raises AlertLogError."""
        stored = await self._store.load()
        if not self.lanes:
            self._store.position = None
        elif self._store.position is None:
            self._store.position = await self._log.head()
        for lane in self.lanes.values():
            lane.take_up([pending for pending in stored if pending.name == lane.name])
        self._store.change({pending.key: None for pending in stored if pending.name not in self.lanes})
        for silence in await self._log.silences():
            self.silenced(silence)

    async def run(self) -> None:
        """Read the log and send until cancelled; call :meth:`begin` before.

        What is being sent at the end is sent again by the next engine.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell)
                await self._start()
                self._nursery = nursery
                for lane in self.lanes.values():
                    nursery.start_soon(lane.run)
                await self._read()
        finally:
            self._nursery = None
            with trio.move_on_after(FINISH_S, shield=True):
                await self._store.keep(position_too=True)

    def ring(self) -> None:
        """Wake the reader, after alerts were appended. Idempotent; repeated calls coalesce."""
        self._rung.set()

    def resolved(self, episode: Episode) -> None:
        """End the escalations of an episode that a person took on."""
        self._resolved.append(episode)
        self.ring()

    def silenced(self, silence: Silence) -> None:
        """Send nothing of open episodes that ``silence`` covers, while it is active."""
        self._silences[silence.id] = silence
        self._begun.discard(silence.id)
        self._begin_silences()

    def unsilenced(self, silence: Silence) -> None:
        """Go on with what ``silence`` postponed: it was ended before its time."""
        self._silences.pop(silence.id, None)
        now_ns = self._wall_ns()
        for lane in self.lanes.values():
            for pending in lane.schedule.pending():
                alert = pending.alert
                if silence.covers(alert.rule, alert.symbol, silence.starts_ns):
                    lane.schedule.resume(alert.key, now_ns)
        self._begun.clear()  # others may cover the same episodes
        self._begin_silences()
        self._wake()

    def reload(self, escalations: Sequence[Escalation]) -> None:
        """Replace the tables; those with the names of former ones go on where these were."""
        former, self.lanes = self.lanes, {}
        self._plan(escalations, former)
        for lane in former.values():
            self._store.change(lane.schedule.changes())
            if lane.name not in self.lanes:
                self._store.change({pending.key: None for pending in lane.schedule.pending()})
            lane.cancel()
        for alert in self._off.values():
            self._tell_later(switched_on(alert, self._wall_ns()))
        self._off = {}
        if self._nursery is not None:
            for lane in self.lanes.values():
                self._nursery.start_soon(lane.run)
        self.ring()

    def _plan(self, escalations: Sequence[Escalation], former: Mapping[str, Lane]) -> None:
        for one in escalations:
            lane = Lane(one, self._store, self._wall_ns, self._switched_off)
            if lane.name in former:
                lane.follow(former[lane.name])
            self.lanes[lane.name] = lane

    async def _start(self) -> None:
        """Read what the last engine had not, and end what ended while none ran."""
        settled = trio.current_time() + SETTLE_S
        await self._retried(self._catch_up)
        await self._retried(self._end_what_ended)
        await trio.sleep_until(settled)

    async def _read(self) -> None:
        kept_at = trio.current_time()
        while True:
            self._rung = trio.Event()
            await self._retried(self._catch_up)
            self._wake()
            if trio.current_time() >= kept_at + LOOK_S:
                await self._store.keep(position_too=True)
                kept_at = trio.current_time()
            with trio.move_on_after(LOOK_S):
                await self._rung.wait()
                await trio.sleep(COLLECT_S)

    async def _retried(self, step: Callable[[], Awaitable[None]]) -> None:
        """Take a step that reads the log, as often as it takes."""
        while True:
            try:
                await step()
            except AlertLogError as error:
                self._store.failed("read", error)
                await trio.sleep(RETRY_S)
            else:
                self._store.works("read")
                return

    async def _catch_up(self) -> None:
        """Take all entries after the position; raises AlertLogError."""
        if not self.lanes:
            self._store.position = None
            self._resolved = []
            await trio.lowlevel.checkpoint()
            return
        if self._store.position is None:  # the first table came with a reload
            self._store.position = await self._log.head()
        # These episodes began in entries that were read before, or are read now.
        resolved, self._resolved = self._resolved, []
        try:
            while len(entries := await self._log.read(self._store.position, PAGE)):
                self._take(entries)
        except BaseException:
            self._resolved = resolved + self._resolved
            raise
        for episode in resolved:
            self._end(episode.key, episode)
        self._begin_silences()

    async def _end_what_ended(self) -> None:
        for key in {one.alert.key for lane in self.lanes.values() for one in lane.schedule.pending()}:
            self._end(key, await self._log.episode(key))

    def _take(self, entries: Sequence[Entry]) -> None:
        now_ns = self._wall_ns()
        for entry in entries:
            alert = entry.alert
            if alert.state == "raised" and entry.mark is None:
                for lane in self.lanes.values():
                    lane.schedule.raised(alert, min(entry.at_ns, now_ns))
                self._postpone(alert, self._silences.values(), now_ns)
            elif alert.state == "cleared":
                end = End(cause="cleared", at_ns=entry.at_ns)
                for lane in self.lanes.values():
                    lane.schedule.ended(alert.key, end, now_ns)
        self._store.position = entries[-1].position

    def _end(self, key: str, episode: Episode | None) -> None:
        """End the escalations of ``key`` if a person took it on, or if it is over. None: it is not kept."""
        now_ns = self._wall_ns()
        if episode is None:
            end = End(cause="cleared", at_ns=now_ns)
        elif episode.resolved_ns:
            by, comment = episode.resolved_by, episode.comment
            end = End(cause="resolved", at_ns=episode.resolved_ns, by=by, comment=comment)
        elif episode.cleared_ns:
            end = End(cause="cleared", at_ns=episode.cleared_ns)
        else:
            return
        for lane in self.lanes.values():
            lane.schedule.ended(key, end, now_ns)

    def _begin_silences(self) -> None:
        """Postpone what silences cover that have begun since the last call."""
        now_ns = self._wall_ns()
        self._silences = {name: one for name, one in self._silences.items() if one.ends_ns > now_ns}
        begun = [
            one for one in self._silences.values() if one.starts_ns <= now_ns and one.id not in self._begun
        ]
        self._begun.update(one.id for one in begun)
        if begun:
            alerts = {
                one.alert.key: one.alert for lane in self.lanes.values() for one in lane.schedule.pending()
            }
            for alert in alerts.values():
                self._postpone(alert, begun, now_ns)

    def _postpone(self, alert: Alert, silences: Iterable[Silence], now_ns: int) -> None:
        for silence in silences:
            if silence.covers(alert.rule, alert.symbol, now_ns):
                for lane in self.lanes.values():
                    lane.schedule.postpone(alert.key, silence.ends_ns, now_ns)

    def _wake(self) -> None:
        for lane in self.lanes.values():
            lane.wake()

    def _switched_off(self, lane: Lane) -> None:
        """Raise the alert that the peer of ``lane`` wants no messages."""
        alert = switched_off(lane.name, lane.trouble() or "is off", self._wall_ns())
        self._off[lane.name] = alert
        self._tell_later(alert)

    def _tell_later(self, alert: Alert) -> None:
        self._own.append(alert)
        self._told.set()

    async def _tell(self) -> None:
        """Append the escalator's own alerts; the store's problem shows that it fails."""
        while True:
            await self._told.wait()
            self._told = trio.Event()
            while self._own:
                try:
                    await self._append(self._own[:1])
                except AlertLogError as error:
                    self._store.failed("written", error)
                    await trio.sleep(RETRY_S)
                else:
                    self._store.works("written")
                    del self._own[:1]
            self.ring()
