"""The file of the SQLite alert log: opening it, its schema, and the errors of SQLite in one line each.

alerts      entries; `body` is the alert in JSON
episodes    by key, kept up to date with each entry
consumers   with their floor
standings   what one consumer has had of one position; SETTLED and TRIED only above the floor
silences, audit
escalations, escalation_position   what is to be sent to the outside, and up to where it was looked for
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketfeed import sqlite_files
from marketfeed.errors import AlertLogError
from marketfeed.file_lock import FileLock, HeldError, held, lock_path
from marketfeed.sqlite_files import BUSY_MS, Kind

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    import apsw

APPLICATION_ID: Final = 0x4D464C47  # "MFLG"
VERSION: Final = 1
SYNCHRONOUS = "FULL"  # fsync at each commit; a test shows that NORMAL loses entries at a power loss

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
"""
PUBLISHER: Final = "coalesce(body ->> '$.publisher', '')"  # notices of earlier releases have none
# Logs of the first releases lack these; they are added when such a log is opened for writing. The index
# `notices` of earlier releases does not cover the publisher.
ADDED: Final = f"""
DROP INDEX IF EXISTS notices;
CREATE INDEX IF NOT EXISTS published ON alerts (body ->> '$.key', {PUBLISHER})
    WHERE body ->> '$.state' = 'notice';
CREATE TABLE IF NOT EXISTS escalations (
    name TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (name, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS escalation_position (
    number INTEGER PRIMARY KEY CHECK (number = 1), position INTEGER NOT NULL
);
"""
KIND: Final = Kind(
    noun="alert log",
    short="log",
    key="alerts.path",
    writer="an engine with alerts",
    application_id=APPLICATION_ID,
    version=VERSION,
    schema=SCHEMA,
    added=ADDED,
    error=AlertLogError,
)


class Claim:
    """The lock that keeps a second engine off the log."""

    def __init__(self, path: Path) -> None:
        """Take the lock, and create the folder. Raises AlertLogError with the number of the holder."""
        sqlite_files.check_file(KIND, path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AlertLogError(f"the folder {path.parent} cannot be created: {error.strerror}") from error
        try:
            self._lock = FileLock(path)
        except OSError as error:
            raise AlertLogError(f"{lock_path(path)} cannot be written: {error.strerror}") from error
        except HeldError as error:
            raise AlertLogError(
                f"{path} is in use by process {error}: stop it, or set alerts.path to another file"
            ) from error

    def release(self) -> None:
        """Free the lock."""
        self._lock.release()


def in_use(path: Path) -> bool:
    """Return whether a process holds the log at ``path``; takes no lock that could keep one off for long."""
    return held(path)


def open_for_writing(path: Path, vfs: str | None = None) -> apsw.Connection:
    """Open the log at ``path``, or create it. Checks its integrity; raises AlertLogError."""
    connection = sqlite_files.open_for_writing(KIND, path, vfs, synchronous=SYNCHRONOUS, busy_ms=BUSY_MS)
    try:
        with explained(path):
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
    return sqlite_files.open_for_reading(KIND, path, vfs, busy_ms=BUSY_MS)


def explained(path: Path) -> AbstractContextManager[None]:
    """Raise errors of SQLite in the block as AlertLogError, with one line that says what to do."""
    return sqlite_files.explained(KIND, path)
