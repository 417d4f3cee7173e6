"""The newest entries of the alert log, in memory: consumers that keep up do not read the file.

A consumer is a position in the log, as a subscriber is a position in the rings. Whoever is further behind
than the window reads the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

from marketfeed.errors import AlertLogError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from marketfeed.alerts.log import AlertLog, Entry

WINDOW: Final = 2048  # entries, each about 1 kB, a notice up to 20 kB
READ: Final = 500  # entries per call of the log
RETRY_S: Final = 1.0

log = structlog.get_logger()


class RecentEntries:
    """The window, which is offered what is appended; it calls ``on_new`` after each step.

    Appends that overtake each other are read from the log, in their order, by :meth:`run`.
    """

    def __init__(self, alerts: AlertLog, newest: int, on_new: Callable[[], None]) -> None:
        """Begin after position ``newest``."""
        self._alerts = alerts
        self._on_new = on_new
        self._entries: list[Entry] = []
        self._rung = trio.Event()
        self._grown = trio.Event()
        self._reading = False
        self.newest = newest  # position of the newest entry that was read

    def offer(self, entries: list[Entry]) -> None:
        """Take entries that were appended by one call, if any."""
        if not entries:
            return
        if entries[0].position == self.newest + 1 and not self._reading:
            self._add(entries)
        else:
            self._rung.set()

    async def run(self) -> None:
        """Read new entries until cancelled."""
        failing = False
        while True:
            await self._rung.wait()
            self._rung = trio.Event()
            self._reading = True
            try:
                while entries := await self._alerts.read(self.newest, READ):
                    self._add(entries)
                failing = False
            except AlertLogError as error:
                if not failing:
                    log.error("alerts cannot be read, and are delivered later", reason=str(error))
                failing = True
                await trio.sleep(RETRY_S)
                self._rung.set()
            finally:
                self._reading = False

    async def after(self, position: int, limit: int) -> list[Entry]:
        """Return up to ``limit`` entries after ``position``, from memory if they are there."""
        await trio.lowlevel.checkpoint()  # first: other tasks add entries, which may trim the window
        first = self._entries[0].position if self._entries else self.newest + 1
        if position + 1 >= first:
            start = position + 1 - first
            found = self._entries[start : start + limit]
            if _contiguous(found, position):
                return found
            log.error("recent alerts are not contiguous: read from the log instead", after=position)
        return await self._alerts.read(position, limit)

    async def wait(self, position: int) -> None:
        """Return once there are entries after ``position``."""
        while self.newest <= position:
            await self._grown.wait()

    def _add(self, entries: list[Entry]) -> None:
        for entry in entries:
            if entry.position != self.newest + 1:  # retention has removed what was between
                self._entries = []
            self._entries.append(entry)
            self.newest = entry.position
        if len(self._entries) > 2 * WINDOW:  # one move per WINDOW entries
            del self._entries[:-WINDOW]
        self._grown.set()
        self._grown = trio.Event()
        self._on_new()


def _contiguous(entries: Sequence[Entry], position: int) -> bool:
    """Return whether ``entries`` have the positions after ``position``, without a hole."""
    return all(entry.position == expected for expected, entry in enumerate(entries, position + 1))
