"""Alerts of an engine: the rules and escalations of its configuration, the watcher and the log."""

from __future__ import annotations

import os
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog
import trio

from marketfeed.alerts.delivery import DeliveryLimits
from marketfeed.alerts.dispatch import Dispatch
from marketfeed.alerts.escalation.registry import escalations
from marketfeed.alerts.escalator import Escalator
from marketfeed.alerts.log import Retention
from marketfeed.alerts.rules import FeedState, RuleSet, rule_specs, unmatched
from marketfeed.alerts.watcher import STEP_TICKS, Watcher, left_open
from marketfeed.core.reader import RingReader
from marketfeed.errors import AlertLogError, ConfigError, StartError, gathered
from marketfeed.folders import file_problem
from marketfeed.ingest import supervise

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from marketfeed.alerts.alert import Alert
    from marketfeed.alerts.escalation.registry import Escalation
    from marketfeed.alerts.sqlite_log import SqliteLog
    from marketfeed.config.schema import AlertsConfig, Loaded
    from marketfeed.core.rings import Rings
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.ingest.roster import Roster

PRUNE_S: Final = 60.0  # between looks for entries that retention no longer keeps
PRUNE_STEP_S: Final = 0.05  # between two steps, so that others can commit

log = structlog.get_logger()


class Alerting:
    """The rules of one engine, evaluated on its rings, and the alerts of its log while :meth:`open` is open.

    Without rules there is no watcher; if alerts are off, there is no log either.
    """

    def __init__(
        self, loaded: Loaded, rings: Rings, symbols: SymbolTable, roster: Roster, origin: bool = True
    ) -> None:
        """Create the rules and the escalations; raises ConfigError with all mistakes.

        Rules are evaluated in the life of an ``origin`` only.
        """
        self.watcher: Watcher | None = None
        self.log: SqliteLog | None = None
        self.dispatch: Dispatch | None = None
        self.escalator: Escalator | None = None
        alerts = loaded.config.alerts
        self._enabled = enabled(alerts)
        self._limits = DeliveryLimits(alerts.max_tries, alerts.in_flight)
        self._path = loaded.base / alerts.path
        self._retention = Retention(alerts.keep_days, alerts.keep_alerts)
        self._loaded = loaded
        self._roster = roster
        self._origin = origin
        self._next: Watcher | None = None
        self._watching = trio.CancelScope()
        found: list[str] = []
        rules: RuleSet | None = None
        with gathered(found):
            rules = rules_of(loaded)
        with gathered(found):
            self._escalations = escalations_of(loaded)
        if found:
            raise ConfigError(*found)
        if rules is not None and origin:
            self.watcher = self._next = self._watcher(rules, rings, symbols)

    def _watcher(self, rules: RuleSet, rings: Rings, symbols: SymbolTable) -> Watcher:
        reader = RingReader(rings, lambda: symbols, held=True, step_ticks=STEP_TICKS)
        return Watcher(reader, symbols, rules, self._feeds, time.time_ns)

    def prepared(self, rings: Rings, symbols: SymbolTable) -> Watcher | None:
        """Return what evaluates the rules on other rings, for :meth:`exchange`; raises ConfigError."""
        rules = rules_of(self._loaded)
        return None if rules is None else self._watcher(rules, rings, symbols)

    def exchange(self, watcher: Watcher | None, roster: Roster, origin: bool) -> None:
        """Evaluate the rules with ``watcher`` on the ticks of the feeds of ``roster`` from now on.

        The present watcher finishes what has been published. In the life of an ``origin``, its open episodes
        are then cleared: every symbol starts clear. Otherwise no rules are evaluated.
        """
        self._roster, self._next, self._origin = roster, watcher if origin else None, origin
        self._watching.cancel()

    def ring(self) -> None:
        """Wake the watcher, after ticks were published."""
        if self.watcher is not None:
            self.watcher.ring()

    def planned(self, loaded: Loaded) -> list[Escalation]:
        """Return the escalations of a new configuration, for :meth:`reload`. Raises ConfigError."""
        if not self._enabled and enabled(loaded.config.alerts):
            raise ConfigError("alerts.escalate: alerts are off in this engine: needs a restart")
        return escalations_of(loaded) if self._enabled else []

    def reload(self, planned: Sequence[Escalation]) -> None:
        """Put escalations in force, and read the files of rules again.

        A mistake in a file leaves its rule as it is, and is logged.
        """
        if self.escalator is not None:
            self.escalator.reload(planned)
        if self.watcher is None:
            return
        try:
            self.watcher.reload()
        except ConfigError as error:
            log.error("files of alert rules not read again", reason="; ".join(error.mistakes))

    def problem(self) -> str | None:
        """Return why alerts cannot be written; None if they can."""
        parts = (self.watcher, None if self.log is None else self.log.statistics(), self.escalator)
        return next((part.problem for part in parts if part is not None and part.problem), None)

    def failed_rules(self) -> Mapping[str, str]:
        """Return the rules that are off because they raised an exception, with the reason."""
        return {} if self.watcher is None else self.watcher.failed

    def failing_escalations(self) -> dict[str, str]:
        """Return the escalations whose messages do not arrive, with the reason."""
        lanes = () if self.escalator is None else self.escalator.lanes.values()
        return {lane.name: trouble for lane in lanes if (trouble := lane.trouble()) is not None}

    async def dead_letter_counts(self) -> dict[str, int]:
        """Return the number of dead letters by consumer; {} if the log cannot be read, or alerts are off."""
        if self.dispatch is None:
            return {}
        try:
            return await self.dispatch.dead_letter_counts()
        except AlertLogError as error:
            log.warning("dead letters not counted", reason=str(error))
            return {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open the log for the time of the block. Raises StartError."""
        if not self._enabled:
            yield
            return
        from marketfeed.alerts.sqlite_log import open_log  # needs SQLite, which engines without alerts do not

        async with AsyncExitStack() as stack:
            try:
                self.log = await stack.enter_async_context(open_log(self._path))
                self.dispatch = await Dispatch.started(self.log, self._limits, time.time_ns)
                self.escalator = await self._begun(self.log, self.dispatch)
            except AlertLogError as error:
                raise StartError(str(error)) from None
            yield

    async def run(self) -> None:
        """Evaluate rules, deliver and escalate alerts, and prune the log, until cancelled.

        Returns if alerts are off.
        """
        if self.log is None or self.dispatch is None or self.escalator is None:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.dispatch.run)
            nursery.start_soon(self.escalator.run)
            nursery.start_soon(self._prune, self.log)
            nursery.start_soon(self._watch, self.dispatch)

    async def _watch(self, dispatch: Dispatch) -> None:
        """Run the watcher of each life after that of the one before."""
        while True:
            before, self.watcher = self.watcher, self._next
            if self.watcher is not None and before is not None and before is not self.watcher:
                self.watcher.count_on(before)
            del before
            with trio.CancelScope() as self._watching:
                if self.watcher is None:
                    if self._origin:
                        await _clear_left_open(dispatch)
                    await trio.sleep_forever()
                else:
                    await self.watcher.run(dispatch)

    async def _begun(self, alerts: SqliteLog, dispatch: Dispatch) -> Escalator:
        """Return the escalator that goes on where the log says. Raises AlertLogError."""

        async def append(own: list[Alert]) -> None:
            await dispatch.append(own, time.time_ns())

        escalator = Escalator(self._escalations, alerts, append, time.time_ns)
        await escalator.begin()
        dispatch.on_append.append(escalator.ring)
        dispatch.on_resolved.append(escalator.resolved)
        dispatch.on_silenced.append(escalator.silenced)
        dispatch.on_unsilenced.append(escalator.unsilenced)
        return escalator

    async def _prune(self, alerts: SqliteLog) -> None:
        """Remove what retention no longer keeps, in small steps, now and then."""
        pause_s = 0.0
        while True:
            await trio.sleep(pause_s)
            pause_s = PRUNE_S
            try:
                if (await alerts.prune(time.time_ns(), self._retention)).more:
                    pause_s = PRUNE_STEP_S
            except AlertLogError as error:  # the watcher reports it as well, and goes on by itself
                log.warning("alert log not pruned", reason=str(error))

    def _feeds(self) -> dict[int, FeedState]:
        live = supervise.FeedState.LIVE
        return {
            one.intake.number: FeedState(one.intake.name, one.state() is live)
            for one in self._roster.supervisors
        }


def enabled(alerts: AlertsConfig) -> bool:
    """Return whether an engine with this configuration has alerts."""
    return bool(alerts.rules or alerts.escalate) if alerts.enabled is None else alerts.enabled


async def _clear_left_open(dispatch: Dispatch) -> None:
    """Clear what a former engine left open, as the watcher of an engine with rules does."""
    now_ns = time.time_ns()
    try:
        episodes = await dispatch.episodes(open_only=True)
        alerts = [left_open(one, now_ns + number).alert for number, one in enumerate(episodes)]
        await dispatch.append(alerts, now_ns, {one.id: "inhibited" for one in alerts})
    except AlertLogError as error:
        log.error("open episodes of the last run are not cleared", reason=str(error))


def rules_of(loaded: Loaded) -> RuleSet | None:
    """Return the rules of a configuration, None if it has none; raises ConfigError with all mistakes."""
    config = loaded.config
    if not config.alerts.rules or not enabled(config.alerts):
        return None
    found: list[str] = []
    rules: RuleSet | None = None
    with gathered(found):
        rules = RuleSet(rule_specs(config.alerts.rules), config.engine.max_symbols, loaded.base)
    if problem := file_problem(loaded.base / config.alerts.path):
        found.append(f"alerts.path: {problem}")
    if found:
        raise ConfigError(*found)
    return rules


def escalations_of(loaded: Loaded) -> list[Escalation]:
    """Return the escalations of a configuration; raises ConfigError with all mistakes.

    Reads the files and the environment variables of secrets. Connects to nothing.
    """
    alerts = loaded.config.alerts
    return escalations(alerts.escalate, loaded.base, os.environ) if enabled(alerts) else []


def unmatched_patterns(loaded: Loaded, names: Iterable[str]) -> list[str]:
    """Return a warning per pattern of a rule that matches none of ``names``, the symbols known so far."""
    return [loaded.sourced(line) for line in unmatched(rule_specs(loaded.config.alerts.rules), names)]
