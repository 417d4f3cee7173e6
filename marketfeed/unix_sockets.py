"""Unix sockets that listen at a path: creation, permissions, stale files, removal, credentials of peers.

Source: unix(7).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from pathlib import Path

MAX_PATH_BYTES: Final = 107  # sun_path of sockaddr_un, without the final null byte
MODE: Final = 0o600  # connecting requires write permission: only the owner has it
_UCRED: Final = struct.Struct("3i")  # pid, uid, gid


class _Socket(Protocol):
    """A socket of the standard library or of Trio."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes:
        """Return the value of an option."""
        ...


class UnixListener:
    """A socket that listens at ``path``; only the user that runs this process can connect."""

    def __init__(self, path: Path, kind: int, backlog: int) -> None:
        """Listen; ``kind`` is SOCK_STREAM or SOCK_SEQPACKET. Raises OSError.

        A stale socket, which a dead process left, is replaced. A socket on which a process listens,
        and a file of another kind, are errors.
        """
        self.path = path
        self.sock = socket.socket(socket.AF_UNIX, kind)
        try:
            _remove_stale(path, kind)
            # bind() creates the file with the mode of the socket, so other users can never connect.
            os.fchmod(self.sock.fileno(), MODE)
            self.sock.bind(str(path))
            self.sock.listen(backlog)
            self._file = _identity(path)
        except OSError:
            self.sock.close()
            raise

    def problem(self) -> str | None:
        """Return why clients cannot connect at ``path`` now; None if they can."""
        try:
            if _identity(self.path) != self._file:
                return f"{self.path} is another process's now"
        except OSError as error:
            return f"{self.path}: {error.strerror}"
        return None

    def close(self) -> None:
        """Close the socket, and remove its file unless another file has taken its place."""
        with suppress(OSError):  # the file or its folder may have been removed
            if _identity(self.path) == self._file:
                self.path.unlink()
        self.sock.close()


def path_problem(path: Path) -> str | None:
    """Return why no Unix socket can be at ``path``; None if one can."""
    if "\0" in str(path):
        return f"{str(path)!r}: a path has no null character"
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        return f"a Unix socket's path has at most {MAX_PATH_BYTES} bytes with its folder, not {path}"
    if not path.parent.is_dir():
        return f"{path}: there is no folder {path.parent}"
    return None


def peer_credentials(sock: _Socket) -> tuple[int, int]:
    """Return the process id and the user id of the process that connected ``sock``."""
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid


def _remove_stale(path: Path, kind: int) -> None:
    """Remove the socket at ``path`` if no process listens on it; raises OSError for anything else there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "a file that is not a socket exists there")
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)  # EAGAIN, a full backlog, means that a process listens
        if probe.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, "another process is listening there")


def _identity(path: Path) -> tuple[int, int]:
    """Return the device and inode of the file at ``path``."""
    info = path.lstat()
    return info.st_dev, info.st_ino
