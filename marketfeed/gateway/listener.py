"""The listener: accepts connections, admits or refuses them, and hands each to a session of its own."""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import trio
from trio.socket import SocketType

from marketfeed.errors import CloseCode, StartError
from marketfeed.gateway.http import HttpServer
from marketfeed.gateway.limits import Counters
from marketfeed.gateway.session import Service, Session

BACKLOG: Final = 4096
OUT_OF_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
REST_S: Final = 0.1  # before accepting again when the machine is out of something

log = structlog.get_logger()


async def open_listener(host: str, port: int) -> SocketType:
    """Return a listening TCP socket; raises StartError, in one line, if it cannot be had."""
    try:
        family, kind, proto, _, address = (
            await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        )[0]
        listener = trio.socket.socket(family, kind, proto)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            await listener.bind(address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener


async def accept(listener: SocketType) -> tuple[SocketType, str] | None:
    """Return the next connection and its address, None when there is none to be had just now."""
    try:
        sock, peer = await listener.accept()
    except OSError as error:
        if error.errno in OUT_OF_FILES:
            log.error("cannot accept", reason=error.strerror)
            await trio.sleep(REST_S)
        return None  # otherwise the client was gone before we looked
    return sock, str(peer[0])


async def accept_http(listener: SocketType, server: HttpServer, connections: trio.Nursery) -> None:
    """Serve HTTP alone on ``listener`` for ever."""
    while True:
        accepted = await accept(listener)
        if accepted is not None:
            connections.start_soon(server.serve, trio.SocketStream(accepted[0]))


async def accept_from(
    listener: SocketType, counters: Counters, take: Callable[[socket.socket, str], Awaitable[None]]
) -> None:
    """Accept for ever; give each connection, with its address, to ``take``."""
    while True:
        accepted = await accept(listener)
        if accepted is None:
            counters.refused["accept failed"] += 1
            continue
        # The bare socket, so that the shard can send without waiting.
        sock = socket.socket(fileno=accepted[0].detach())
        sock.setblocking(False)
        await take(sock, accepted[1])


class Gateway:
    """Runs the sessions of connections it is given."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.sessions: dict[Session, None] = {}
        self._ended = trio.Event()

    async def serve(self, sock: socket.socket, address: str) -> None:
        """Serve a connection from its first byte to its last; nothing that it does raises."""
        service = self._service
        refusal = await service.admission.ask(address)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session = Session(service, sock, address, refusal)
            self.sessions[session] = None
            try:
                await session.serve()
            finally:
                del self.sessions[session]
                self._ended.set()
        except Exception:
            # The socket died between accept and here, or a bug: this session's alone.
            log.exception("session failed to start", address=address)
            sock.close()
        finally:
            if refusal is None:
                service.admission.release(address)

    async def drain(self) -> None:
        """Ask every session to end because the engine does; return when all have."""
        for session in list(self.sessions):
            session.end(CloseCode.DRAINING)
        while self.sessions:
            self._ended = trio.Event()
            await self._ended.wait()
