"""What the escalations of an engine keep in the alert log, and how they cope with a log that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol

import structlog
import trio

from marketfeed.errors import AlertLogError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from marketfeed.alerts.escalation.pending import Key, Pending
    from marketfeed.alerts.escalation.schedule import Schedule
    from marketfeed.alerts.log import Entry, Episode, Silence

RETRY_S: Final = 1.0  # between attempts to read and write the log
Use = Literal["read", "written"]

log = structlog.get_logger()


class EscalationLog(Protocol):
    """What escalation needs of a log; each method raises AlertLogError."""

    async def head(self) -> int:
        """Return the position of the newest entry."""
        ...

    async def read(self, after: int, limit: int) -> list[Entry]:
        """Return up to ``limit`` entries with positions above ``after``, in order."""
        ...

    async def episode(self, key: str) -> Episode | None:
        """Return the episode with this key."""
        ...

    async def silences(self) -> list[Silence]:
        """Return all silences."""
        ...

    async def escalations(self) -> tuple[int | None, list[Pending]]:
        """Return up to where the log was read for escalations, None if never, and those kept."""
        ...

    async def keep_escalations(self, position: int | None, changes: Mapping[Key, Pending | None]) -> None:
        """Keep escalations, None: remove one, and up to where the log was read. Durable when it returns."""
        ...


class Store:
    """Keeps the changes of ``schedules`` together with the ``position`` of the log that they follow from."""

    def __init__(self, alerts: EscalationLog, schedules: Callable[[], Iterable[Schedule]]) -> None:
        self._log, self._schedules = alerts, schedules
        self.position: int | None = None  # up to which the log was read; None: there are no escalations
        self._kept: int | None = None  # the position that the log has
        self._unsaved: dict[Key, Pending | None] = {}  # beside the changes that schedules have
        self._saving = trio.Lock()
        self._problems: dict[Use, str] = {}

    @property
    def problem(self) -> str | None:
        """Why the log cannot be read or written; None if it can."""
        return next(iter(self._problems.values()), None)

    async def load(self) -> list[Pending]:
        """Take up the position of the last engine, and return what it kept; raises AlertLogError."""
        self.position, stored = await self._log.escalations()
        self._kept = self.position
        return stored

    def change(self, changes: Mapping[Key, Pending | None]) -> None:
        """Keep ``changes`` with the next :meth:`keep`."""
        self._unsaved |= changes

    async def keep(self, position_too: bool = False) -> None:
        """Return once all changes so far are in the log; tries again while it cannot be written.

        ``position_too``: also if nothing has changed but the position.
        """
        async with self._saving:
            while not await self._keep_once(position_too):  # noqa: ASYNC110 - the log tells nobody that it works
                await trio.sleep(RETRY_S)

    async def _keep_once(self, position_too: bool) -> bool:
        unsaved, position = self._unsaved, self.position
        for schedule in self._schedules():
            unsaved |= schedule.changes()
        if not unsaved and not (position_too and position != self._kept):
            return True
        self._unsaved = {}
        try:
            await self._log.keep_escalations(position, unsaved)
        except BaseException as error:
            self._unsaved = unsaved | self._unsaved
            if not isinstance(error, AlertLogError):
                raise
            self.failed("written", error)
            return False
        self._kept = position
        self.works("written")
        return True

    def failed(self, use: Use, error: AlertLogError) -> None:
        """Note that the log could not be used; it is logged once."""
        if use not in self._problems:
            log.error(f"escalations wait: the alert log cannot be {use}", reason=str(error))
        self._problems[use] = str(error)

    def works(self, use: Use) -> None:
        """Note that the log could be used."""
        if self._problems.pop(use, None) is not None:
            log.info(f"escalations go on: the alert log can be {use} again")
