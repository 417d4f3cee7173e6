"""The thread that writes the SQLite alert log, with group commit; see :mod:`marketfeed.alerts.sqlite_log`."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import apsw
import msgspec
import trio

from marketfeed.alerts.log import COMMIT_BUCKETS_S
from marketfeed.alerts.sqlite_file import VERSION, explained, open_for_writing
from marketfeed.alerts.sqlite_retention import Pruner
from marketfeed.alerts.sqlite_writes import Changes
from marketfeed.core.units import S
from marketfeed.errors import AlertLogError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BATCH: Final = 1000  # most calls that share a commit, which bounds how long one takes
# Without a change that somebody waits for: until what may lag is committed, and until a commit that failed is
# tried again.
LAG_S: Final = 1.0


class LogStatistics(msgspec.Struct, frozen=True):
    """Counts since the log was opened."""

    commits: int
    commit_ns: int  # sum of their durations
    commit_buckets: tuple[int, ...]  # commits by duration: up to COMMIT_BUCKETS_S each, then longer ones
    failures: int
    problem: str | None  # why the last commit failed; None if it did not


class Request:
    """A change, and its result once the writer thread has committed it."""

    def __init__(self, run: Callable[[Changes], Any]) -> None:
        self.run = run
        self.done = trio.Event()
        self.value: Any = None
        self.error: str | None = None


class Notes:
    """What may lag: attempts and floors, the latest of each, so that a stalled disk does not pile them up."""

    def __init__(
        self, attempts: dict[str, dict[int, int]] | None = None, floors: dict[str, int] | None = None
    ) -> None:
        self.attempts = attempts or {}  # number of deliveries by consumer and position
        self.floors = floors or {}  # by consumer

    def __bool__(self) -> bool:
        return bool(self.attempts or self.floors)

    def apply(self, changes: Changes) -> None:
        for name, floor in self.floors.items():
            changes.advance(name, floor)
        for name, tries in self.attempts.items():
            changes.attempts(name, tries)

    def update(self, newer: Notes) -> None:
        for name, tries in newer.attempts.items():
            self.attempts.setdefault(name, {}).update(tries)
        for name, floor in newer.floors.items():
            self.floors[name] = max(floor, self.floors.get(name, 0))


class Writer:
    """The thread that commits. ``submit`` and ``note`` are for other threads."""

    def __init__(self, path: Path, vfs: str | None, token: trio.lowlevel.TrioToken) -> None:
        self._path, self._token = path, token
        self._connection = open_for_writing(path, vfs)
        self._changes = Changes(self._connection)
        self.pruner = Pruner(self._connection)
        self._wake = threading.Condition()  # guards the next three
        self._requests: list[Request] = []
        self._notes = Notes()
        self._closing = False
        self._commits = self._commit_ns = self._failures = 0
        self._buckets = [0] * (len(COMMIT_BUCKETS_S) + 1)
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._work, name="alert-log", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Queue a change. Raises AlertLogError once the log is closed."""
        with self._wake:
            if self._closing:
                raise AlertLogError(f"{self._path} is closed")
            self._requests.append(request)
            self._wake.notify()

    def note(self, notes: Notes) -> None:
        """Keep what may lag with the next commit, within LAG_S."""
        with self._wake:
            self._notes.update(notes)

    def statistics(self) -> LogStatistics:
        """Return counts."""
        buckets = tuple(self._buckets)
        return LogStatistics(self._commits, self._commit_ns, buckets, self._failures, self._problem)

    def close(self) -> None:
        """Commit what is queued, then close the file. Blocking."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            requests, notes, last = self._next()
            if requests or notes or self._problem:
                self._serve(requests, notes)
            if requests:
                with suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(_wake_all, requests)
            if last:
                with suppress(apsw.Error):  # if there is no room for a checkpoint, all is in the WAL
                    self._connection.close()
                return

    def _next(self) -> tuple[list[Request], Notes, bool]:
        """Wait for something that somebody waits for, LAG_S at most; return it with what may lag."""
        with self._wake:
            self._wake.wait_for(lambda: self._requests or self._closing, LAG_S)
            requests, self._requests = self._requests[:BATCH], self._requests[BATCH:]
            notes, self._notes = self._notes, Notes()
            return requests, notes, self._closing and not self._requests

    def _serve(self, requests: list[Request], notes: Notes) -> None:
        """Commit; if one change is invalid, commit each on its own, so that no other fails with it."""
        try:
            self._commit(requests, notes)
        except AlertLogError as error:
            self._problem = str(error)
            self._failures += 1
            for request in requests:
                request.error = self._problem
            with self._wake:
                notes.update(self._notes)
                self._notes = notes
        except Exception as error:
            if len(requests) == 1:
                requests[0].error = f"the alert log refused a change: {error!r}"
            for request in requests if len(requests) > 1 else ():
                self._serve([request], Notes())

    def _commit(self, requests: list[Request], notes: Notes) -> None:
        start_ns = time.perf_counter_ns()
        with explained(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                if self._problem is not None:
                    # Write a page even if nothing waits: does it work again?
                    self._connection.pragma("user_version", VERSION)
                notes.apply(self._changes)
                for request in requests:
                    request.value = request.run(self._changes)
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(apsw.Error):
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                raise
        took_ns = time.perf_counter_ns() - start_ns
        self._problem = None
        self._commits += 1
        self._commit_ns += took_ns
        self._buckets[sum(took_ns > most_s * S for most_s in COMMIT_BUCKETS_S)] += 1


def _wake_all(requests: list[Request]) -> None:
    for request in requests:
        request.done.set()
