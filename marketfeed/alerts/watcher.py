"""The watcher: evaluates the rules on every tick, and puts the alerts into the log.

    rings ──► steps of new ticks ──► rules ──► held alerts ──► log

It is a reader of the rings like any other, so it delays no feed. It takes at most STEP_TICKS at a time, its
rules make their alerts in slices, and it lets other tasks run after each. So it delays no flush by more than
one rule takes for a step, however many symbols are raised at once. If the rings overtake it, ticks are lost
to the rules; a critical alert of the rule ``watcher`` says how many.

While the log cannot be written, alerts are held in memory and written as soon as it can. If MOST_HELD are
held, the watcher stops reading; what the rings overwrite until it goes on is counted and reported.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Final, Protocol

import structlog
import trio

from marketfeed import clock
from marketfeed.alerts.alert import Alert, alert_id
from marketfeed.alerts.rules import SLICE, Judged
from marketfeed.core.units import S
from marketfeed.errors import AlertLogError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from marketfeed.alerts.log import Appended, Episode, Mark
    from marketfeed.alerts.rules import FeedState, RuleSet
    from marketfeed.core.reader import NewTicks, RingReader
    from marketfeed.core.symbols import SymbolTable

STEP_TICKS: Final = 1024  # evaluated in one go: about 0.2 ms
MOST_HELD: Final = 10_000  # alerts in memory, each about 1 kB
APPENDED: Final = 250  # alerts per call of the log
LEARNED: Final = 500  # names of symbols in one go
RETRY_S: Final = 1.0  # between attempts to write
COLLECT_S: Final = 0.001  # after a doorbell: a call costs as much as some 400 ticks
FEEDS_S: Final = 1.0  # between looks at the states of feeds
SET_BACK_NS: Final = 100_000_000  # of the Unix clock; what is less delays rules by as much, once
FINISH_S: Final = 5.0  # at the end of the engine
RULE: Final = "watcher"

log = structlog.get_logger()


class Keeping(Protocol):
    """The part of :class:`marketfeed.alerts.log.AlertLog` that the watcher needs."""

    async def episodes(self, open_only: bool = False) -> list[Episode]:
        """Return episodes; raises AlertLogError."""
        ...

    async def append(
        self, alerts: Sequence[Alert], now_ns: int, marks: Mapping[str, Mark] | None = None
    ) -> list[Appended]:
        """Keep alerts; raises AlertLogError."""
        ...


class Watcher:
    """Evaluates ``rules`` on what ``reader`` reads.

    ``symbols`` names the symbols, ``feeds`` returns the states of the feeds by their numbers, and ``wall_ns``
    is the Unix clock.
    """

    def __init__(
        self,
        reader: RingReader,
        symbols: SymbolTable,
        rules: RuleSet,
        feeds: Callable[[], Mapping[int, FeedState]],
        wall_ns: Callable[[], int],
    ) -> None:
        self._reader = reader
        self._symbols = symbols
        self._rules = rules
        self._feeds = feeds
        self._wall_ns = wall_ns
        self._learned = 0
        self._position = reader.g
        self._feeds_due_ns = 0
        self._now_ns = self._now_at_ns = 0  # the time of the rules, and when it was, of the event loop
        self._set_back = False  # the Unix clock was, and has not caught up
        self._overtaken: Alert | None = None  # the alert that was raised, while the watcher is behind
        self._overtaken_ticks = 0  # since then
        self._failures = 0  # rules whose failure is logged
        self._held: list[Judged] = []
        self._slices: Iterator[list[Judged]] = iter(())  # of alerts that are being made
        self._rung = trio.Event()
        self._found = trio.Event()
        self._room = trio.Event()
        self.ticks = 0  # evaluated
        self.lost_ticks = 0  # overwritten before they were evaluated
        self.raised: Counter[tuple[str, str]] = Counter()  # alerts in the log, by rule and state
        self.problem: str | None = None  # why alerts cannot be written; None if they can

    @property
    def held(self) -> int:
        """Return how many alerts are not in the log yet."""
        return len(self._held)

    @property
    def position(self) -> int:
        """Return the highest ``g`` that has been evaluated or lost."""
        return self._position

    @property
    def failed(self) -> Mapping[str, str]:
        """Return the rules that raised an exception and are off, with the reason."""
        return self._rules.failed

    def count_on(self, before: Watcher) -> None:
        """Go on with the counters of ``before``, which has ended."""
        self.ticks, self.lost_ticks, self.raised = before.ticks, before.lost_ticks, before.raised

    def ring(self) -> None:
        """Wake the watcher. Idempotent; repeated calls coalesce."""
        self._rung.set()

    def reload(self) -> None:
        """Read the files of rules again; raises ConfigError."""
        self._rules.reload()

    async def run(self, alerts: Keeping) -> None:
        """Evaluate ticks as they come, and append the alerts to the log, until cancelled.

        Episodes that a former engine left open are cleared first: rules start with every symbol clear.
        After the end, what has been published is evaluated, and what is held is appended, within FINISH_S.
        """
        try:
            left = await alerts.episodes(open_only=True)
            self._slices = all_left_open(left, self._wall_ns())
        except AlertLogError as error:
            log.error("open episodes of the last run are not cleared", reason=str(error))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep, alerts)
                await self._hold_all(self._slices)
                await self._watch()
        finally:
            with trio.move_on_after(FINISH_S, shield=True):
                await self._finish(alerts)
            if self._held:
                log.error("alerts are lost: the log could not be written", alerts=len(self._held))

    async def _watch(self) -> None:
        while True:
            self._rung = trio.Event()
            now_ns = self._time_ns()  # before the step: all ticks up to this time are in it
            step = self._reader.take()
            if step:
                await self._hold_all(self._evaluate(step, now_ns))
            else:
                await self._hold_all(self._rules.tick_in_slices(now_ns))
                self._caught_up(now_ns)
                if now_ns >= self._feeds_due_ns:
                    self._feeds_due_ns = now_ns + int(FEEDS_S * S)
                    await self._hold_all(self._rules.feeds_in_slices(self._feeds(), now_ns))
            await self._wait_room()
            if not step:
                await self._wait(now_ns)

    async def _keep(self, alerts: Keeping) -> None:
        while True:
            await self._found.wait()
            while self._held:
                await self._append(alerts, self._held[:APPENDED])
            self._found = trio.Event()

    async def _hold_all(self, slices: Iterator[list[Judged]]) -> None:
        """Hold all alerts of ``slices``; let other tasks run in between."""
        self._slices = slices
        turn = clock.Turn()
        for judged in slices:
            self._hold(judged)
            if turn.is_over() or len(self._held) >= MOST_HELD:
                await self._wait_room()
                turn = clock.Turn()
        self._hold([])

    async def _finish(self, alerts: Keeping) -> None:
        turn = clock.Turn()
        for judged in chain(self._slices, self._rest()):
            self._hold(judged)
            if turn.is_over():
                await trio.lowlevel.checkpoint()
                turn = clock.Turn()
        while self._held and await self._append(alerts, self._held[:APPENDED]):
            pass

    def _rest(self) -> Iterator[list[Judged]]:
        """Yield the alerts of all ticks that are not evaluated yet."""
        while step := self._reader.take():
            yield from self._evaluate(step, self._time_ns())
            yield []

    def _time_ns(self) -> int:
        """Return the Unix time; if that was set back, the time before it and what has passed since.

        The time of the rules never goes back, and must not stand still until the Unix clock has caught up.
        """
        wall_ns, at_ns = self._wall_ns(), clock.now_ns()  # in this order, delays in between do not add up
        steady_ns = self._now_ns + at_ns - self._now_at_ns
        self._set_back = steady_ns - wall_ns > SET_BACK_NS
        self._now_ns = steady_ns if self._set_back else wall_ns
        self._now_at_ns = at_ns
        return self._now_ns

    def _evaluate(self, step: NewTicks, now_ns: int) -> Iterator[list[Judged]]:
        while names := self._symbols.names(self._learned)[:LEARNED]:
            self._learned += len(names)
            self._rules.learn(names)
            yield []
        lost = sum(gap.lost for gap in step.gaps)
        if lost:
            self._overtake(lost, now_ns)
        if self._set_back:  # ticks have earlier times, so they count as at this one
            yield from self._rules.tick_in_slices(now_ns)
        self.ticks += len(step.quotes) + len(step.trades)
        yield from self._rules.evaluate_in_slices(step.quotes, step.trades)
        self._position = step.head

    def _overtake(self, lost: int, now_ns: int) -> None:
        self.lost_ticks += lost
        self._overtaken_ticks += lost
        if self._overtaken is None:
            log.error("alert rules did not see every tick: the rings overtook the watcher", lost=lost)
            key = alert_id(RULE, "", "raised", 0, now_ns)
            self._overtaken = self._own(key, key, "raised", now_ns)
            self._hold([Judged(self._overtaken, inhibited=False)])

    def _caught_up(self, now_ns: int) -> None:
        """Clear the alert of being overtaken, with the number of ticks in all."""
        if self._overtaken is None:
            return
        key, self._overtaken = self._overtaken.key, None
        cleared = self._own(alert_id(RULE, "", "cleared", 0, now_ns), key, "cleared", now_ns)
        self._overtaken_ticks = 0
        self._hold([Judged(cleared, inhibited=False)])

    def _own(self, own_id: str, key: str, state: str, now_ns: int) -> Alert:
        """Return an alert about the watcher itself."""
        count = self._overtaken_ticks
        return Alert(
            id=own_id,
            key=key,
            rule=RULE,
            severity="critical",
            state="raised" if state == "raised" else "cleared",
            value=float(count),
            threshold=0.0,
            r_ns=now_ns,
            message=f"the rules did not see {count:,} ticks"
            + (" so far" if state == "raised" else ", and see every tick again"),
        )

    def _hold(self, judged: Sequence[Judged]) -> None:
        if len(self._rules.failed) != self._failures:
            for name, why in list(self._rules.failed.items())[self._failures :]:
                log.error("alert rule failed, and is off until a restart", rule=name, reason=why)
            self._failures = len(self._rules.failed)
        if judged:
            self._held += judged
            self._found.set()

    async def _append(self, alerts: Keeping, batch: list[Judged]) -> bool:
        """Append ``batch``, the first of what is held; on failure wait, and return False."""
        marks: dict[str, Mark] = {one.alert.id: "inhibited" for one in batch if one.inhibited}
        try:
            appended = await alerts.append([one.alert for one in batch], self._wall_ns(), marks)
        except AlertLogError as error:
            if self.problem is None:
                log.error("alerts cannot be written, and are held in memory", reason=str(error))
            self.problem = str(error)
            await trio.sleep(RETRY_S)
            return False
        if self.problem is not None:
            log.info("alerts can be written again", held=len(self._held))
            self.problem = None
        del self._held[: len(batch)]
        self._room.set()
        for one, outcome in zip(batch, appended, strict=True):
            if outcome.new:
                self.raised[one.alert.rule, one.alert.state] += 1
        return True

    async def _wait_room(self) -> None:
        """Let other tasks run; while too many alerts are held, wait."""
        await trio.lowlevel.checkpoint()
        while len(self._held) >= MOST_HELD:
            self._room = trio.Event()
            await self._room.wait()

    async def _wait(self, now_ns: int) -> None:
        """Wait for ticks, or for the next time that matters."""
        due_ns = min(self._rules.next_ns or self._feeds_due_ns, self._feeds_due_ns)
        with trio.move_on_after(max(due_ns - now_ns, 0) / S):
            await self._rung.wait()
            await trio.sleep(COLLECT_S)


def all_left_open(episodes: Sequence[Episode], now_ns: int) -> Iterator[list[Judged]]:
    """Yield the alerts that clear episodes of a former engine."""
    for start in range(0, len(episodes), SLICE):
        part = episodes[start : start + SLICE]
        yield [left_open(one, now_ns + number) for number, one in enumerate(part, start)]


def left_open(episode: Episode, now_ns: int) -> Judged:
    """Return the alert that clears an episode of a former engine; ``now_ns`` makes its id unique."""
    cleared = Alert(
        id=alert_id(episode.rule, episode.symbol, "cleared", 0, now_ns),
        key=episode.key,
        rule=episode.rule,
        symbol=episode.symbol,
        severity=episode.severity,
        state="cleared",
        r_ns=now_ns,
        message="the engine has begun a new epoch, and its rules start clear",
    )
    return Judged(cleared, inhibited=not episode.shown)
