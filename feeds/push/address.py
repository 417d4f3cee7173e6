"""Listening addresses for publishers: a loopback port or a Unix socket, neither reachable remotely."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
import stat
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

BACKLOG: Final = 128
MAX_PATH_BYTES: Final = 107  # sun_path of Linux's sockaddr_un, without the terminating NUL
MODE: Final = 0o600  # write access to the socket is the permission to publish
_UCRED: Final = struct.Struct("3i")  # pid, uid, gid


class TcpAddress:
    """A loopback host and a port; port 0 selects a free port."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port

    @property
    def shown(self) -> str | None:
        """The numeric address; None for port 0."""
        host = "127.0.0.1" if self.host == "localhost" else self.host
        return _host_port((host, self.port)) if self.port else None

    async def open(self) -> Listener:
        """Listen; raises OSError on failure."""
        found = await trio.socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        family, kind, proto, _, address = found[0]
        listening = trio.socket.socket(family, kind, proto)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            await listening.bind(address)
            listening.listen(BACKLOG)
        except OSError as error:
            listening.close()
            raise OSError(
                error.errno, f"cannot listen on {self.host}:{self.port}: {error.strerror}"
            ) from None
        return Listener(listening, _host_port(listening.getsockname()))


class UnixAddress:
    """The path of a Unix socket."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def shown(self) -> str | None:
        """The path."""
        return str(self.path.resolve())

    async def open(self) -> Listener:
        """Listen with permissions for the own user only; raises OSError on failure.

        Replaces a stale socket of a dead process; never removes any other file.
        """
        listening = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._remove_stale()
            await listening.bind(str(self.path))
            # Before listen(): until then connections fail regardless of the mode.
            self.path.chmod(MODE)
            listening.listen(BACKLOG)
            return Listener(listening, str(self.path), self.path)
        except OSError as error:
            listening.close()
            raise OSError(error.errno, f"cannot listen on {self.path}: {error.strerror}") from None

    def _remove_stale(self) -> None:
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise OSError(errno.EEXIST, "a file that is not a socket exists there")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)  # a full backlog also proves a listener
            if probe.connect_ex(str(self.path)) == errno.ECONNREFUSED:
                self.path.unlink()
                return
        raise OSError(errno.EADDRINUSE, "another process is listening there")


class Listener:
    """A listening socket and its ``address``."""

    def __init__(self, listening: trio.socket.SocketType, address: str, path: Path | None = None) -> None:
        self.address = address
        self._socket = listening
        self._path = path
        self._file = None if path is None else _identity(path)

    async def accept(self) -> tuple[trio.socket.SocketType, str]:
        """Accept a connection; return it and a description of the peer for logs."""
        connection, peer = await self._socket.accept()
        if self._path is None:
            return connection, _host_port(peer)
        pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return connection, f"pid {pid} of user {uid}"

    def close(self) -> None:
        """Close the socket, and remove its file unless another process has replaced it."""
        with suppress(OSError):
            if self._path is not None and _identity(self._path) == self._file:
                self._path.unlink()
        self._socket.close()


def parse_address(listen: str, base: Path) -> TcpAddress | UnixAddress:
    """Parse ``listen``, with paths relative to ``base``; raises ConfigError (``listen: …``)."""
    if "/" in listen:
        path = base / listen
        if len(os.fsencode(path)) > MAX_PATH_BYTES or "\0" in listen:
            raise ConfigError(f"listen: a Unix socket's path has at most {MAX_PATH_BYTES} bytes, not {path}")
        if not path.parent.is_dir():
            raise ConfigError(f"listen: {path}: there is no folder {path.parent}")
        return UnixAddress(path)
    host, _, port = listen.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535 or not host:
        raise ConfigError(f"listen: host:port or the path of a Unix socket (with a /), not {listen!r}")
    host = host.removeprefix("[").removesuffix("]")
    if not _is_loopback(host):
        raise ConfigError(
            f"listen: push has no authentication: {host!r} is not allowed, only loopback or a Unix socket"
        )
    return TcpAddress(host, int(port))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host_port(name: tuple[str, int]) -> str:
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _identity(path: Path) -> tuple[int, int]:
    info = path.lstat()
    return info.st_dev, info.st_ino
