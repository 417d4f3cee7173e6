"""Metering in the engine: adds up the usage that processes report, keeps it, and applies quotas.

    reports ──► Book ──► file at auth.path, every COMMIT_S
                  └────► quotas ──► tenants that are over, to all processes

While the file cannot be written, what is not written stays in memory and is written later. A crash loses at
most what was not reported (a sweep) and not written (COMMIT_S).
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

import structlog
import trio

from marketfeed import clock
from marketfeed.access.quotas import Over, Quotas
from marketfeed.access.usage import Batch, Book, Report, User, day_of, plus
from marketfeed.errors import AccessFileError, StartError
from marketfeed.server.symbol_numbers import SymbolNumbers, Translation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from marketfeed.access.usage_file import UsageWriter
    from marketfeed.access.usage_report import DayOfUser
    from marketfeed.config.schema import Loaded

COMMIT_S: Final = 30.0
CHECK_S: Final = 1.0  # between two checks of quotas
CHUNK: Final = 1000  # users of one transaction
CLOSE_S: Final = 10.0  # for the last commit

log = structlog.get_logger()


class Taker(Protocol):
    """Takes reports of the processes of one life."""

    def __call__(self, report: Report, process: int = 0) -> None:
        """Add a report of a process."""
        ...


class Metering:
    """Usage of all users of one engine; does nothing while access control is off."""

    def __init__(
        self,
        loaded: Loaded,
        names: Callable[[], Sequence[str]] = tuple,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """``names`` returns those of all symbols of the first life, by id; ``now_s`` is the Unix clock."""
        auth = loaded.config.auth
        self.enabled = auth.mode != "none"
        self.path = loaded.base / auth.path
        self.book = Book(now_s())
        self.quotas = Quotas(auth.tenants)
        self.over: list[Over] = []  # the tenants that exceed a quota now
        self.on_change: Callable[[list[Over]], None] = lambda over: None  # called with the new value
        self.failures = 0  # commits that failed
        self.problem: str | None = None  # why the last commit failed
        self._numbers = SymbolNumbers()
        self._first = self._numbers.of(names)
        self._now_s = now_s
        self._writer: UsageWriter | None = None
        self._writing = trio.Lock()

    def take(self, report: Report, process: int = 0) -> None:
        """Add a report of a process of the first life."""
        self._take(self._first, report, process)

    def taker(self, names: Callable[[], Sequence[str]]) -> Taker:
        """Return :meth:`take` for another life; ``names`` returns those of its symbols, by id."""
        translation = self._numbers.of(names)

        def take(report: Report, process: int = 0) -> None:
            self._take(translation, report, process)

        return take

    def _take(self, translation: Translation, report: Report, process: int = 0) -> None:
        if self.enabled:
            sets = [translation.numbers(ids) for ids in report.sets]
            self.book.add(Report(report.interval, sets, report.users), self._now_s(), process)

    def count_sessions(self, user: User, number: int) -> None:
        """Record that ``user`` has ``number`` sessions now, in all processes."""
        if self.enabled:
            self.book.count_sessions(user, number, self._now_s())

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open the file for the time of the block, and read what tenants got today. Raises StartError."""
        if not self.enabled:
            yield
            return
        from marketfeed.access.usage_file import UsageWriter  # needs SQLite, which other engines do not

        now_s = self._now_s()
        try:
            self._writer = await trio.to_thread.run_sync(UsageWriter, self.path)
            self.book = Book(now_s, await trio.to_thread.run_sync(self._writer.totals, day_of(now_s)))
        except AccessFileError as error:
            raise StartError(str(error)) from None
        self._check()
        try:
            yield
        finally:
            with trio.CancelScope(deadline=trio.current_time() + CLOSE_S, shield=True):
                await self.commit()
            self._writer.close()
            self._writer = None

    async def run(self) -> None:
        """Commit and check quotas until cancelled. Returns if metering is off."""
        if not self.enabled:
            return
        due_s = trio.current_time() + COMMIT_S
        while True:
            self._check()
            if trio.current_time() >= due_s:
                await self.commit()
                due_s = trio.current_time() + COMMIT_S
            await trio.sleep(CHECK_S)

    async def commit(self) -> bool:
        """Write what is not written; return False if that failed, and it is kept in memory."""
        async with self._writing:
            return await self._commit()

    async def days(self, first: int, last: int, tenant: str | None = None) -> list[DayOfUser]:
        """Return the usage of each user on the days from ``first`` to ``last``. Raises AccessFileError."""
        from marketfeed.access.usage_file import read_days

        async with self._writing:
            written = await self._commit()
            found = await trio.to_thread.run_sync(read_days, self.path, first, last, tenant)
            return found if written else await self._with_unwritten(found, first, last, tenant)

    async def _commit(self) -> bool:
        if self._writer is None:
            return True
        self.book.turn(self._now_s())
        left = list(self.book.take().items())
        names = list(self._numbers.names)
        try:
            while left:
                await trio.to_thread.run_sync(self._writer.write, dict(left[:CHUNK]), names)
                del left[:CHUNK]
        except AccessFileError as error:
            self.failures += 1
            if self.problem is None:
                log.error("usage is not written, and kept in memory", reason=str(error))
            self.problem = str(error)
            return False
        finally:
            self.book.put_back(dict(left))
        if self.problem is not None:
            log.info("usage is written again")
        self.problem = None
        return True

    async def _with_unwritten(
        self, found: list[DayOfUser], first: int, last: int, tenant: str | None
    ) -> list[DayOfUser]:
        """Return ``found`` with what could not be written."""
        from marketfeed.access.usage_file import names_of_ids
        from marketfeed.access.usage_report import DayOfUser

        names, turn = self._numbers.names, clock.Turn()
        rows = {(one.day, one.user): one for one in found}
        unwritten: Batch = self.book.unwritten(range(first, last + 1))
        for (day, user), one in list(unwritten.items()):
            if tenant is not None and user.tenant != tenant:
                continue
            row = rows.setdefault((day, user), DayOfUser(day, user))
            plus(row.counts, one.counts)
            row.peak = max(row.peak, one.peak)
            row.symbols = row.symbols.union(*(names_of_ids(ids, names) for ids in one.sets))
            if turn.is_over():
                await trio.lowlevel.checkpoint()
                turn = clock.Turn()
        return [rows[key] for key in sorted(rows)]

    def _check(self) -> None:
        """Find the tenants that exceed a quota, and report a change."""
        now_s = self._now_s()
        self.book.turn(now_s)
        over = self.quotas.over(now_s, self.book.today, self.book.rates(now_s))
        if over == self.over:
            return
        told = {one.tenant: one for one in self.over}
        for one in over:
            if told.get(one.tenant) != one:
                log.warning("tenant over its quota", tenant=one.tenant, quota=one.reason, then=one.action)
        for tenant in told.keys() - {one.tenant for one in over}:
            log.info("tenant within its quotas again", tenant=tenant)
        self.over = over
        self.on_change(over)
