"""Alerts of an engine: the rules of its configuration, the watcher and the log."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import structlog
import trio

from marketfeed.alerts.rules import FeedState, RuleSet, rule_specs, unmatched
from marketfeed.alerts.sqlite_log import open_log
from marketfeed.alerts.watcher import STEP_TICKS, Watcher
from marketfeed.core.reader import RingReader
from marketfeed.errors import AlertLogError, ConfigError, StartError
from marketfeed.ingest import supervise

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from marketfeed.alerts.sqlite_log import SqliteLog
    from marketfeed.config.schema import Loaded
    from marketfeed.core.rings import Rings
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.ingest.roster import Roster

log = structlog.get_logger()


class Alerting:
    """The rules of one engine, evaluated on its rings; ``log`` keeps the alerts while :meth:`open` is open.

    Without rules there is no watcher and no log.
    """

    def __init__(self, loaded: Loaded, rings: Rings, symbols: SymbolTable, roster: Roster) -> None:
        """Create the rules; raises ConfigError with all mistakes."""
        self.watcher: Watcher | None = None
        self.log: SqliteLog | None = None
        self._path = loaded.base / loaded.config.alerts.path
        self._roster = roster
        rules = rules_of(loaded)
        if rules is not None:
            reader = RingReader(rings, lambda: symbols, held=True, step_ticks=STEP_TICKS)
            self.watcher = Watcher(reader, symbols, rules, self._feeds, time.time_ns)

    def ring(self) -> None:
        """Wake the watcher, after ticks were published."""
        if self.watcher is not None:
            self.watcher.ring()

    def reload(self) -> None:
        """Read the files of rules again; a mistake in one leaves its rule as it is, and is logged."""
        if self.watcher is None:
            return
        try:
            self.watcher.reload()
        except ConfigError as error:
            log.error("files of alert rules not read again", reason="; ".join(error.mistakes))

    def problem(self) -> str | None:
        """Return why alerts cannot be written; None if they can."""
        return None if self.watcher is None else self.watcher.problem

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open the log for the time of the block. Raises StartError."""
        if self.watcher is None:
            yield
            return
        async with AsyncExitStack() as stack:
            try:
                self.log = await stack.enter_async_context(open_log(self._path))
            except AlertLogError as error:
                raise StartError(str(error)) from None
            yield

    async def run(self) -> None:
        """Evaluate rules until cancelled; returns at once without rules."""
        if self.watcher is not None and self.log is not None:
            await self.watcher.run(self.log)
        await trio.lowlevel.checkpoint()

    def _feeds(self) -> dict[int, FeedState]:
        live = supervise.FeedState.LIVE
        return {
            one.intake.number: FeedState(one.intake.name, one.state() is live)
            for one in self._roster.supervisors
        }


def rules_of(loaded: Loaded) -> RuleSet | None:
    """Return the rules of a configuration, None if it has none; raises ConfigError with all mistakes."""
    config = loaded.config
    specs = rule_specs(config.alerts.rules)
    return RuleSet(specs, config.engine.max_symbols, loaded.base) if specs else None


def unmatched_patterns(loaded: Loaded, names: Iterable[str]) -> list[str]:
    """Return a warning per pattern of a rule that matches none of ``names``, the symbols known so far."""
    return [loaded.sourced(line) for line in unmatched(rule_specs(loaded.config.alerts.rules), names)]
