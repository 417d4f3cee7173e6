"""The SQLite file at ``auth.path``: usage, and revocations.

    usage         a row per UTC day (since 1970), tenant and `sub`: most sessions at a time, and its symbols
    usage_counts  ticks and bytes by tier and channel of the same day and user
    symbol_sets   sets of names, each kept once; `hash` is that of `names`, sorted, separated by commas
    revocations   keys and tokens that are not good any more

All commits wait for the disk: there is one in half a minute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketfeed import sqlite_files
from marketfeed.errors import AccessFileError
from marketfeed.sqlite_files import Kind

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    import apsw

SCHEMA: Final = """
CREATE TABLE usage (
    day INTEGER NOT NULL, tenant TEXT NOT NULL, sub TEXT NOT NULL, peak INTEGER NOT NULL DEFAULT 0,
    symbols INTEGER REFERENCES symbol_sets (number), PRIMARY KEY (day, tenant, sub)
) WITHOUT ROWID;
CREATE INDEX usage_symbols ON usage (symbols);
CREATE TABLE usage_counts (
    day INTEGER NOT NULL, tenant TEXT NOT NULL, sub TEXT NOT NULL, tier TEXT NOT NULL, channel TEXT NOT NULL,
    ticks INTEGER NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (day, tenant, sub, tier, channel)
) WITHOUT ROWID;
CREATE TABLE symbol_sets (number INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, names TEXT NOT NULL);
CREATE TABLE revocations (
    kind TEXT NOT NULL, value TEXT NOT NULL, at_s REAL NOT NULL, until_s REAL,
    comment TEXT NOT NULL DEFAULT '', PRIMARY KEY (kind, value)
) WITHOUT ROWID;
"""
KIND: Final = Kind(
    noun="file of access",
    short="file",
    key="auth.path",
    writer="an engine with auth.mode",
    application_id=0x4D464143,  # "MFAC"
    version=1,
    schema=SCHEMA,
    error=AccessFileError,
    checked=False,  # years of usage take minutes to check; SQLite reports damage where it meets it
)


def open_for_writing(path: Path) -> apsw.Connection:
    """Open the file at ``path``, or create it and its folder. Raises AccessFileError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AccessFileError(f"the folder {path.parent} cannot be created: {error.strerror}") from error
    return sqlite_files.open_for_writing(KIND, path)


def open_for_reading(path: Path) -> apsw.Connection:
    """Open the existing file at ``path``, whether an engine runs or not. Raises AccessFileError."""
    return sqlite_files.open_for_reading(KIND, path)


def explained(path: Path) -> AbstractContextManager[None]:
    """Raise errors of SQLite in the block as AccessFileError, with one line that says what to do."""
    return sqlite_files.explained(KIND, path)
