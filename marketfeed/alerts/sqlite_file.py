"""The file of the SQLite alert log: opening it, its schema, and the errors of SQLite in one line each.

    alerts      entries; `body` is the alert in JSON
    episodes    by key, kept up to date with each entry
    consumers   with their floor
    standings   what one consumer has had of one position; SETTLED and TRIED only above the floor
    silences, audit
    escalations, escalation_position   what is to be sent to the outside, and up to where it was looked for

The application id (https://sqlite.org/pragma.html#pragma_application_id) says that a file is an alert log,
and user_version which schema it has.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import apsw

from marketfeed.errors import AlertLogError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPLICATION_ID: Final = 0x4D464C47  # "MFLG"
VERSION: Final = 1
BUSY_MS: Final = 2000  # for which a lock of another program is waited for
SYNCHRONOUS = "FULL"  # fsync at each commit; a test shows that NORMAL loses entries at a power loss
WAL_BYTES: Final = 16 << 20  # to which the WAL is cut after a checkpoint

TRIED: Final = 0  # delivered, and not acknowledged
SETTLED: Final = 1  # acknowledged
DEAD: Final = 2
REQUEUED: Final = 3  # was dead, and is to be delivered again

# Of consumers; logs of earlier releases lack some, and get them when they are opened for writing.
LATER: Final = {
    "symbols": """TEXT NOT NULL DEFAULT '["*"]'""",
    "former": "TEXT NOT NULL DEFAULT '[]'",
}

SCHEMA: Final = f"""
CREATE TABLE alerts (
    position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, at_ns INTEGER NOT NULL, mark TEXT,
    body TEXT NOT NULL
);
CREATE TABLE episodes (
    key TEXT PRIMARY KEY, rule TEXT NOT NULL, symbol TEXT NOT NULL, severity TEXT NOT NULL,
    raised_ns INTEGER NOT NULL, shown INTEGER NOT NULL, cleared_ns INTEGER NOT NULL DEFAULT 0,
    resolved_ns INTEGER NOT NULL DEFAULT 0, resolved_by TEXT NOT NULL DEFAULT '',
    comment TEXT NOT NULL DEFAULT '', last_position INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX open_episodes ON episodes (raised_ns, key) WHERE cleared_ns = 0;
CREATE TABLE consumers (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, start TEXT NOT NULL, patterns TEXT NOT NULL,
    created_ns INTEGER NOT NULL, floor INTEGER NOT NULL,
    {", ".join(f"{name} {kind}" for name, kind in LATER.items())}
);
CREATE TABLE standings (
    consumer INTEGER NOT NULL, position INTEGER NOT NULL, kind INTEGER NOT NULL, tries INTEGER NOT NULL,
    at_ns INTEGER NOT NULL, PRIMARY KEY (consumer, position)
) WITHOUT ROWID;
CREATE INDEX dead_letters ON standings (consumer, position) WHERE kind = {DEAD};
CREATE TABLE silences (
    id TEXT PRIMARY KEY, starts_ns INTEGER NOT NULL, ends_ns INTEGER NOT NULL, body TEXT NOT NULL
);
CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at_ns INTEGER NOT NULL, action TEXT NOT NULL,
    subject TEXT NOT NULL, by TEXT NOT NULL, detail TEXT
);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""
# Logs of the first releases lack these; they are added when such a log is opened for writing.
ADDED: Final = """
CREATE INDEX IF NOT EXISTS notices ON alerts (body ->> '$.key') WHERE body ->> '$.state' = 'notice';
CREATE TABLE IF NOT EXISTS escalations (
    name TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (name, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS escalation_position (
    number INTEGER PRIMARY KEY CHECK (number = 1), position INTEGER NOT NULL
);
"""


class Claim:
    """The lock that keeps a second engine off the log; the kernel frees it when the process ends.

    It is on a file of its own, ``<path>.lock``: closing a descriptor of the log itself would drop the locks
    that SQLite has on it.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock, and create the folder. Raises AlertLogError with the number of the holder."""
        check_file(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AlertLogError(f"the folder {path.parent} cannot be created: {error.strerror}") from error
        lock = path.with_name(f"{path.name}.lock")
        try:
            self._fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise AlertLogError(f"{lock} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise AlertLogError(
                f"{path} is in use by process {holder or '(unknown)'}: "
                "stop it, or set alerts.path to another file"
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Free the lock."""
        os.close(self._fd)


def in_use(path: Path) -> bool:
    """Return whether a process holds the log at ``path``; takes no lock that could keep one off for long."""
    if path.is_dir():  # it may have no name, as ".."
        return False
    try:
        fd = os.open(path.with_name(f"{path.name}.lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # no process has ever held it, or it is for others
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def open_for_writing(path: Path, vfs: str | None = None) -> apsw.Connection:
    """Open the log at ``path``, or create it. Checks its integrity; raises AlertLogError."""
    with explained(path):
        connection = apsw.Connection(str(path), vfs=vfs)
    try:
        with explained(path):
            connection.set_busy_timeout(BUSY_MS)
            new = _version(connection, path) == 0
            # Before the first transaction, so that none of them is in a rollback journal.
            if connection.pragma("journal_mode", "wal") != "wal":
                raise AlertLogError(f"{path}: SQLite has no write-ahead log here; use a local file system")
            connection.pragma("synchronous", SYNCHRONOUS)
            connection.pragma("journal_size_limit", WAL_BYTES)
            if new:
                connection.execute(f"BEGIN IMMEDIATE; {SCHEMA} {ADDED} COMMIT")
                _sync_folder(path)
            check(connection, path)
            if not new:
                connection.execute(ADDED)
                _add_columns(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _add_columns(connection: apsw.Connection) -> None:
    there = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info('consumers')")}
    for name, kind in LATER.items():
        if name not in there:
            connection.execute(f"ALTER TABLE consumers ADD COLUMN {name} {kind}")


def open_for_reading(path: Path, vfs: str | None = None) -> apsw.Connection:
    """Open an existing log at ``path``, whether an engine writes to it or not. Raises AlertLogError."""
    if not path.exists():
        raise AlertLogError(f"there is no alert log {path}: an engine with alerts creates it")
    check_file(path)
    with explained(path):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs)
    try:
        with explained(path):
            connection.set_busy_timeout(BUSY_MS)
            if _version(connection, path) == 0:
                raise AlertLogError(f"{path} is empty: an engine with alerts fills it")
    except BaseException:
        connection.close()
        raise
    return connection


def check_file(path: Path) -> None:
    """Raise AlertLogError if ``path`` is a folder, which SQLite explains poorly."""
    if path.is_dir():
        raise AlertLogError(f"{path} is a folder: the alert log is a file, such as {path / 'alerts.db'}")


def check(connection: apsw.Connection, path: Path) -> None:
    """Read the whole file and compare it with its indices; raises AlertLogError with the first fault."""
    found = connection.pragma("integrity_check", 1)
    if found != "ok":
        raise AlertLogError(_damaged(path, str(found).splitlines()[-1]))


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise errors of SQLite as AlertLogError, with one line that says what to do."""
    try:
        yield
    except apsw.NotADBError as error:
        raise AlertLogError(
            f"{path} is no alert log, or its beginning is damaged: "
            "restore it from a backup, move it away, or set alerts.path to another file"
        ) from error
    except apsw.CorruptError as error:
        raise AlertLogError(_damaged(path, str(error))) from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise AlertLogError(
            f"{path} is locked by another program: close the program that has it open"
        ) from error
    except apsw.FullError as error:
        raise AlertLogError(f"no room to write {path}: free space on its disk") from error
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError) as error:
        raise AlertLogError(
            f"{path} cannot be opened ({error}): it must be a file that this user may write, in such a folder"
        ) from error
    except apsw.Error as error:
        raise AlertLogError(f"{path}: {error}") from error


def _damaged(path: Path, why: str) -> str:
    return (
        f"{path} is damaged ({why}): "
        f"restore it from a backup, or move it and {path.name}-wal away to start a new log"
    )


def _version(connection: apsw.Connection, path: Path) -> int:
    """Return the schema of the file, 0 if it is empty. Raises AlertLogError for a file of another kind."""
    application, version = connection.pragma("application_id"), connection.pragma("user_version")
    if application == APPLICATION_ID:
        if not 0 < version <= VERSION:
            raise AlertLogError(
                f"{path} is of a newer release (schema {version}, this one reads up to {VERSION}): "
                "use that release, or set alerts.path to another file"
            )
        return int(version)
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() or (0,)
    if application or version or tables:
        raise AlertLogError(f"{path} is the database of another program: set alerts.path to another file")
    return 0


def _sync_folder(path: Path) -> None:
    """Make the names of new files durable; SQLite does so for its logs, and not for the file itself."""
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
