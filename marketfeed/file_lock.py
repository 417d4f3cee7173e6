"""A lock that keeps a second process off a file; the kernel frees it when the process ends.

It is on a file of its own, ``<path>.lock``: closing a descriptor of a database would drop the locks that
SQLite has on it.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from marketfeed.errors import MarketfeedError

if TYPE_CHECKING:
    from pathlib import Path


class HeldError(MarketfeedError):
    """Another process has the lock; the text is its number, or ``(unknown)``."""


class FileLock:
    """The lock on ``path``, which need not exist."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises HeldError, and OSError if its file cannot be written."""
        self._fd = os.open(lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise HeldError(holder or "(unknown)") from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Free the lock."""
        os.close(self._fd)


def lock_path(path: Path) -> Path:
    """Return the path of the file that the lock on ``path`` is on."""
    return path.with_name(f"{path.name}.lock")


def held(path: Path) -> bool:
    """Return whether a process holds the lock on ``path``; keeps nobody off it for long."""
    if path.is_dir():  # such as ".", which has no name
        return False
    try:
        fd = os.open(lock_path(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # no process has ever held it, or it is for others
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
