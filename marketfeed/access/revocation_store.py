"""Keeps revocations over restarts, in the file of database.py."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import apsw
import msgspec

from marketfeed.access.database import explained, open_for_writing
from marketfeed.access.revocations import Revocation
from marketfeed.errors import AccessFileError, RevocationError
from marketfeed.file_lock import FileLock, HeldError, lock_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from marketfeed.access.revocations import Kind


class RevocationStore:
    """The table, while it is open. All methods block; no two may run at a time."""

    def __init__(self, path: Path, connect: Callable[[Path], apsw.Connection] = open_for_writing) -> None:
        self._path, self._connect = path, connect
        self._connection: apsw.Connection | None = None
        self._lock: FileLock | None = None
        self.problem: str | None = None  # why the last write failed; None if it did not

    def open(self, now_s: float) -> list[Revocation]:
        """Open the table, or create it; return what it keeps, without those that are of no use any more.

        Raises RevocationError, also if another process has it open.
        """
        with self._explained():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self._path)
            try:
                self._connection = self._connect(self._path)
                self._write("DELETE FROM revocations WHERE until_s < ?", (now_s,))
                rows = self._connection.execute(
                    "SELECT kind, value, at_s, until_s, comment FROM revocations ORDER BY at_s"
                )
                names = Revocation.__struct_fields__
                return [msgspec.convert(dict(zip(names, row, strict=True)), Revocation) for row in rows]
            except BaseException:
                self.close()
                raise

    def add(self, revocation: Revocation) -> None:
        """Keep ``revocation``, in place of one of the same kind and value; on disk when this returns.

        Raises RevocationError.
        """
        row = (
            revocation.kind,
            revocation.value,
            revocation.at_s,
            revocation.until_s,
            revocation.comment,
        )
        self._write("INSERT OR REPLACE INTO revocations VALUES (?, ?, ?, ?, ?)", row)

    def take_back(self, kind: Kind, value: str) -> None:
        """Keep a revocation no longer. Raises RevocationError."""
        self._write("DELETE FROM revocations WHERE kind = ? AND value = ?", (kind, value))

    def close(self) -> None:
        """Close the file, and let other processes open it. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(apsw.Error):  # without room for a checkpoint, all is in the write-ahead log
                connection.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        try:
            with self._explained():
                if self._connection is None:
                    raise RevocationError(f"{self._path} is closed")
                self._connection.execute(statement, values)
        except RevocationError as error:
            self.problem = str(error)
            raise
        self.problem = None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            with explained(self._path):
                yield
        except HeldError as error:
            raise RevocationError(
                f"{self._path} is in use by process {error}: stop it, or set auth.path to another file"
            ) from error
        except AccessFileError as error:
            raise RevocationError(str(error)) from error
        except OSError as error:
            where = error.filename or lock_path(self._path)
            raise RevocationError(f"{where}: {error.strerror or error}") from error
        except msgspec.ValidationError as error:
            raise RevocationError(f"{self._path}: not revocations: {error}") from error
