"""The alert log in an SQLite file: one thread writes, and callers wait until their change is on disk.

    tasks ── append, acknowledge … ──► queue ──► writer thread: BEGIN, all that is queued, COMMIT (fsync)
      ▲                                                │
      └────────────── wake all of them ◄───────────────┘

What is queued during a commit shares the next one, so the number of commits follows the disk, and the number
of entries in each follows the load (group commit). Reads have a connection of their own, and do not wait for
commits; other processes may read as well.

If a commit fails, its callers get AlertLogError and nothing of it is kept. ``statistics().problem`` has the
reason until a commit succeeds, which is tried again every LAG_S.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from marketfeed.alerts.log import ALL_SYMBOLS, consumer_problem
from marketfeed.alerts.patterns import symbol_set
from marketfeed.alerts.sqlite_file import Claim
from marketfeed.alerts.sqlite_reads import SqliteReader
from marketfeed.alerts.sqlite_writer import LogStatistics, Notes, Request, Writer
from marketfeed.alerts.sqlite_writes import Changes, encoded
from marketfeed.errors import AlertLogError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from marketfeed.alerts.alert import Alert
    from marketfeed.alerts.escalation.pending import Key, Pending
    from marketfeed.alerts.log import (
        Acknowledged,
        Appended,
        AuditRecord,
        Consumer,
        DeadLetter,
        Entry,
        Episode,
        Mark,
        Progress,
        Pruned,
        Retention,
        Silence,
        Start,
    )

T = TypeVar("T")


class SqliteLog:
    """An :class:`marketfeed.alerts.log.AlertLog` in a file. Made by :func:`open_log`."""

    def __init__(self, path: Path, token: trio.lowlevel.TrioToken, vfs: str | None = None) -> None:
        """Open or create the file; blocking. Raises AlertLogError."""
        self.path = path
        self._claim = Claim(path)
        try:
            self._writer = Writer(path, vfs, token)
            self._reader = SqliteReader(path, vfs)
        except BaseException:
            self._claim.release()
            raise
        self._one_reader = trio.CapacityLimiter(1)  # a connection is for one thread at a time

    def close(self) -> None:
        """Commit what is queued, and close the file; blocking."""
        self._reader.close()
        self._writer.close()
        self._claim.release()

    def statistics(self) -> LogStatistics:
        """Return counts of commits, and the problem of the last one."""
        return self._writer.statistics()

    async def append(
        self, alerts: Sequence[Alert], now_ns: int, marks: Mapping[str, Mark] | None = None
    ) -> list[Appended]:
        """Keep alerts. Raises TypeError for ``data`` that JSON cannot express."""
        for alert in alerts:
            encoded(alert.data)  # the rest can be encoded; the writer does it, so that thousands do not block
        return await self._change(lambda changes: changes.append(alerts, marks or {}, now_ns))

    async def head(self) -> int:
        """Return the newest position."""
        return await self._read(self._reader.head)

    async def read(self, after: int, limit: int) -> list[Entry]:
        """Return entries after a position."""
        return await self._read(partial(self._reader.read, after, limit))

    async def read_back(self, before: int | None, limit: int) -> list[Entry]:
        """Return entries before a position, newest first."""
        return await self._read(partial(self._reader.read_back, before, limit))

    async def find(self, alert: str) -> Entry | None:
        """Return the entry of an alert."""
        return await self._read(partial(self._reader.find, alert))

    async def episodes(self, open_only: bool = False) -> list[Episode]:
        """Return episodes."""
        return await self._read(partial(self._reader.episodes, open_only))

    async def episode(self, key: str) -> Episode | None:
        """Return the episode with this key."""
        return await self._read(partial(self._reader.episode, key))

    async def resolve(self, key: str, by: str, comment: str, now_ns: int) -> Episode | None:
        """Record who took on an episode."""
        return await self._change(lambda changes: changes.resolve(key, by, comment, now_ns))

    async def use_consumer(
        self,
        name: str,
        now_ns: int,
        start: Start = "all",
        patterns: Sequence[str] = ("*",),
        symbols: Sequence[str] = ALL_SYMBOLS,
    ) -> Consumer:
        """Return a consumer, which the first use creates."""
        problem = consumer_problem(name, patterns)
        if problem is not None:
            raise ValueError(problem)
        symbol_set(tuple(symbols))  # raises ValueError
        return await self._change(
            lambda changes: changes.use_consumer(name, now_ns, start, patterns, symbols)
        )

    async def consumers(self) -> list[Consumer]:
        """Return all consumers."""
        return await self._read(self._reader.consumers)

    async def progress(self, name: str) -> Progress | None:
        """Return what a consumer has had."""
        return await self._read(partial(self._reader.progress, name))

    async def drop_consumer(self, name: str, now_ns: int, by: str = "") -> bool:
        """Remove a consumer."""
        return await self._change(lambda changes: changes.drop_consumer(name, now_ns, by))

    async def acknowledge(self, name: str, ids: Sequence[str], now_ns: int) -> Acknowledged:
        """Settle alerts of a consumer."""
        return await self._change(lambda changes: changes.acknowledge(name, ids, now_ns))

    def record_attempts(self, name: str, tries: Mapping[int, int]) -> None:
        """Keep numbers of deliveries with the next commit."""
        self._writer.note(Notes({name: dict(tries)}, {}))

    def advance(self, name: str, floor: int) -> None:
        """Raise a floor with the next commit."""
        self._writer.note(Notes({}, {name: floor}))

    async def park(self, name: str, tries: Mapping[int, int], now_ns: int) -> list[int]:
        """Make dead letters."""
        return await self._change(lambda changes: changes.park(name, tries, now_ns))

    async def dead_letters(self, name: str | None = None, limit: int | None = None) -> list[DeadLetter]:
        """Return dead letters."""
        return await self._read(partial(self._reader.dead_letters, name, limit))

    async def dead_letter_counts(self) -> dict[str, int]:
        """Return how many dead letters each consumer has."""
        return await self._read(self._reader.dead_letter_counts)

    async def requeue(self, name: str, ids: Sequence[str], now_ns: int, by: str = "") -> list[Entry]:
        """Make dead letters unsettled again."""
        return await self._change(lambda changes: changes.requeue(name, ids, now_ns, by))

    async def add_silence(self, silence: Silence, now_ns: int) -> None:
        """Keep a silence."""
        await self._change(lambda changes: changes.add_silence(silence, now_ns))

    async def silences(self) -> list[Silence]:
        """Return all silences."""
        return await self._read(self._reader.silences)

    async def expire_silence(self, silence: str, now_ns: int, by: str = "") -> bool:
        """End a silence."""
        return await self._change(lambda changes: changes.expire_silence(silence, now_ns, by))

    async def audit(self, after: int, limit: int) -> list[AuditRecord]:
        """Return records of the audit trail."""
        return await self._read(partial(self._reader.audit, after, limit))

    async def prune(self, now_ns: int, keep: Retention) -> Pruned:
        """Remove some of what retention no longer keeps."""
        return await self._change(lambda changes: self._writer.pruner.step(now_ns, keep))

    async def escalations(self) -> tuple[int | None, list[Pending]]:
        """Return up to where the log was read for escalations, None if never, and those kept."""
        return await self._read(self._reader.escalations)

    async def keep_escalations(self, position: int | None, changes: Mapping[Key, Pending | None]) -> None:
        """Keep escalations, None: remove one, and up to where the log was read for them."""
        await self._change(lambda kept: kept.keep_escalations(position, changes))

    async def _change(self, run: Callable[[Changes], T]) -> T:
        """Wait until ``run`` is committed; return its result. Raises AlertLogError."""
        request = Request(run)
        self._writer.submit(request)
        await request.done.wait()
        if request.error is not None:
            raise AlertLogError(request.error)
        value: T = request.value
        return value

    async def _read(self, query: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(query, limiter=self._one_reader)


@asynccontextmanager
async def open_log(path: Path, vfs: str | None = None) -> AsyncIterator[SqliteLog]:
    """Open the log at ``path``, or create it; at the end of the block, commit what is queued and close it.

    Raises AlertLogError. ``vfs`` names a VFS of SQLite (https://sqlite.org/vfs.html), as tests use.
    """
    token = trio.lowlevel.current_trio_token()
    log = await trio.to_thread.run_sync(SqliteLog, path, token, vfs)
    try:
        yield log
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(log.close)
