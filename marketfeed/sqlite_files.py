"""SQLite files of the engine: opening them, and the errors of SQLite in one line each.

The application id (https://sqlite.org/pragma.html#pragma_application_id) says of which kind a file is, and
user_version which schema it has.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import apsw

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from marketfeed.errors import MarketfeedError

BUSY_MS: Final = 2000  # for which a lock of another program is waited for
WAL_BYTES: Final = 16 << 20  # to which the WAL is cut after a checkpoint


@dataclass(frozen=True)
class Kind:
    """A kind of file, with the words for messages about it."""

    noun: str  # "alert log"
    short: str  # "log"
    key: str  # of the configuration that names the file
    writer: str  # what creates and fills one: "an engine with alerts"
    application_id: int
    version: int  # of the schema
    schema: str
    error: type[MarketfeedError]
    added: str = ""  # to the schema, with IF NOT EXISTS, also to files that lack it
    checked: bool = True  # whether the whole file is read when it is opened for writing

    @property
    def elsewhere(self) -> str:
        """Return the end of a message about a file that cannot be used."""
        return f"set {self.key} to another file"


def open_for_writing(
    kind: Kind,
    path: Path,
    vfs: str | None = None,
    *,
    synchronous: str = "FULL",
    busy_ms: int = BUSY_MS,
) -> apsw.Connection:
    """Open the file at ``path``, or create it. Raises the kind's error.

    With ``synchronous`` FULL each commit waits for the disk.
    """
    check_file(kind, path)
    with explained(kind, path):
        connection = apsw.Connection(str(path), vfs=vfs)
    try:
        with explained(kind, path):
            connection.set_busy_timeout(busy_ms)
            new = _version(kind, connection, path) == 0
            # Before the first transaction, so that none of them is in a rollback journal.
            if connection.pragma("journal_mode", "wal") != "wal":
                raise kind.error(f"{path}: SQLite has no write-ahead log here; use a local file system")
            connection.pragma("synchronous", synchronous)
            connection.pragma("journal_size_limit", WAL_BYTES)
            if new:
                _create(kind, connection, path)
            if kind.checked:
                check(kind, connection, path)
            if not new and kind.added:
                connection.execute(kind.added)
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_reading(
    kind: Kind, path: Path, vfs: str | None = None, *, busy_ms: int = BUSY_MS
) -> apsw.Connection:
    """Open an existing file at ``path``, whether an engine writes to it or not. Raises the kind's error."""
    if not path.exists():
        raise kind.error(f"there is no {kind.noun} {path}: {kind.writer} creates it")
    check_file(kind, path)
    with explained(kind, path):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs)
    try:
        with explained(kind, path):
            connection.set_busy_timeout(busy_ms)
            if _version(kind, connection, path) == 0:
                raise kind.error(f"{path} is empty: {kind.writer} fills it")
    except BaseException:
        connection.close()
        raise
    return connection


def check_file(kind: Kind, path: Path) -> None:
    """Raise the kind's error if ``path`` is a folder, which SQLite and the lock explain poorly."""
    if path.is_dir():
        raise kind.error(f"{path} is a folder: the {kind.noun} is a file; {kind.elsewhere}")


def check(kind: Kind, connection: apsw.Connection, path: Path) -> None:
    """Read the whole file and compare it with its indices; raises the kind's error with the first fault."""
    found = connection.pragma("integrity_check", 1)
    if found != "ok":
        raise kind.error(_damaged(kind, path, str(found).splitlines()[-1]))


@contextmanager
def explained(kind: Kind, path: Path) -> Iterator[None]:
    """Raise errors of SQLite as the kind's error, with one line that says what to do."""
    try:
        yield
    except apsw.NotADBError as error:
        raise kind.error(
            f"{path} is no {kind.noun}, or its beginning is damaged: "
            f"restore it from a backup, move it away, or {kind.elsewhere}"
        ) from error
    except apsw.CorruptError as error:
        raise kind.error(_damaged(kind, path, str(error))) from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise kind.error(
            f"{path} is locked by another program: close the program that has it open"
        ) from error
    except apsw.FullError as error:
        raise kind.error(f"no room to write {path}: free space on its disk") from error
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError) as error:
        raise kind.error(
            f"{path} cannot be opened ({error}): it must be a file that this user may write, in such a folder"
        ) from error
    except apsw.Error as error:
        raise kind.error(f"{path}: {error}") from error


def _create(kind: Kind, connection: apsw.Connection, path: Path) -> None:
    """Write the schema into an empty file, unless another program has done so meanwhile."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _version(kind, connection, path) == 0:
            connection.execute(
                f"{kind.schema} {kind.added} PRAGMA application_id = {kind.application_id};"
                f"PRAGMA user_version = {kind.version};"
            )
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    _sync_folder(path)


def _damaged(kind: Kind, path: Path, why: str) -> str:
    return (
        f"{path} is damaged ({why}): "
        f"restore it from a backup, or move it and {path.name}-wal away to start a new {kind.short}"
    )


def _version(kind: Kind, connection: apsw.Connection, path: Path) -> int:
    """Return the schema of the file, 0 if it is empty. Raises the kind's error for a file of another kind."""
    application, version = connection.pragma("application_id"), connection.pragma("user_version")
    if application == kind.application_id:
        if not 0 < version <= kind.version:
            raise kind.error(
                f"{path} is of a newer release (schema {version}, this one reads up to {kind.version}): "
                f"use that release, or {kind.elsewhere}"
            )
        return int(version)
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() or (0,)
    if application or version or tables:
        raise kind.error(f"{path} is the database of another program: {kind.elsewhere}")
    return 0


def _sync_folder(path: Path) -> None:
    """Make the names of new files durable; SQLite does so for its logs, and not for the file itself."""
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
