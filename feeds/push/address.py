"""Listening addresses for publishers: a loopback port or a Unix socket, neither reachable remotely."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

import trio

from marketfeed.core.addresses import host_port, is_loopback, parse_host_port
from marketfeed.errors import ConfigError
from marketfeed.unix_sockets import UnixListener, path_problem, peer_credentials

if TYPE_CHECKING:
    from pathlib import Path

BACKLOG: Final = 128


class TcpAddress:
    """A loopback host and a port; port 0 selects a free port."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port

    @property
    def shown(self) -> str | None:
        """The numeric address; None for port 0."""
        host = "127.0.0.1" if self.host == "localhost" else self.host
        return host_port(host, self.port) if self.port else None

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
            where = f"{self.host}:{self.port}"
            raise OSError(error.errno, f"cannot listen on {where}: {error.strerror}") from None
        return Listener(listening, host_port(*listening.getsockname()[:2]))


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

        A checkpoint, but it does not wait.
        """
        await trio.lowlevel.checkpoint()
        try:
            unix = UnixListener(self.path, socket.SOCK_STREAM, BACKLOG)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {self.path}: {error.strerror}") from None
        return Listener(trio.socket.from_stdlib_socket(unix.sock), str(self.path), unix)


class Listener:
    """A listening socket and its ``address``."""

    def __init__(
        self, listening: trio.socket.SocketType, address: str, unix: UnixListener | None = None
    ) -> None:
        self.address = address
        self._socket = listening
        self._unix = unix

    async def accept(self) -> tuple[trio.socket.SocketType, str]:
        """Accept a connection; return it and a description of the peer for logs."""
        connection, peer = await self._socket.accept()
        if self._unix is None:
            return connection, host_port(*peer[:2])
        pid, uid = peer_credentials(connection)
        return connection, f"pid {pid} of user {uid}"

    def close(self) -> None:
        """Close the socket, and remove the file of a Unix socket."""
        if self._unix is not None:
            self._unix.close()
        self._socket.close()


def parse_address(listen: str, base: Path) -> TcpAddress | UnixAddress:
    """Parse ``listen``, with paths relative to ``base``; raises ConfigError (``listen: …``)."""
    if "/" in listen:
        path = base / listen
        if problem := path_problem(path):
            raise ConfigError(f"listen: {problem}")
        return UnixAddress(path)
    found = parse_host_port(listen)
    if found is None:
        raise ConfigError(f"listen: host:port or the path of a Unix socket (with a /), not {listen!r}")
    host, port = found
    if not is_loopback(host):
        raise ConfigError(
            f"listen: push has no authentication: {host!r} is not allowed, only loopback or a Unix socket"
        )
    return TcpAddress(host, port)
