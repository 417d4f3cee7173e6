"""The listening socket: opened, and its connections accepted."""

from __future__ import annotations

import errno
import os
import resource
import socket
from typing import TYPE_CHECKING, Final

import structlog
import trio

from marketfeed.core.addresses import host_port
from marketfeed.errors import StartError
from marketfeed.gateway.rate_limited_log import RateLimitedLog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.socket import SocketType

    from marketfeed.gateway.http import HttpServer
    from marketfeed.gateway.limits import Counters

ACCEPTS: Final = 16  # connections between two waits
BACKLOG: Final = 4096
OUT_OF_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
RESERVED_FILES: Final = 128  # a quarter of a limit below 512
REST_S: Final = 0.1  # before accepting again when the machine is out of a resource

log = structlog.get_logger()


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


async def open_listener(host: str, port: int, section: str = "gateway") -> SocketType:
    """Return a listening TCP socket; raises StartError, in one line.

    The line names the configuration key at fault: ``host`` or ``port`` in ``section``.
    """
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
        # An address in use, or a port that requires a privilege, concerns the port; all else the host.
        of_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
        key = f"{section}.{'port' if of_port else 'host'}"
        other = f"another port is set by --set {key}=N" if of_port else f"see {key}"
        where = host_port(host, port)
        raise StartError(f"{key}: cannot listen on {where}: {error.strerror or error}; {other}") from error
    return listener


def files_for_clients() -> tuple[int, int]:
    """Return below which descriptor number clients are accepted, and how many descriptors are reserved."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    reserved = min(RESERVED_FILES, soft // 4)
    return soft - reserved, reserved


async def accept(listener: SocketType, limited_log: RateLimitedLog) -> tuple[SocketType, str] | None:
    """Return the next connection and its address; None if accepting failed."""
    try:
        sock, peer = await listener.accept()
    except OSError as error:
        await _rest(error, limited_log)
        return None
    return sock, str(peer[0])


async def _rest(error: OSError, limited_log: RateLimitedLog) -> None:
    """Wait if ``error`` of accept means that the machine is out of a resource; else the client has left."""
    if error.errno in OUT_OF_FILES:
        limited_log.warning("cannot accept", reason=error.strerror)
        await trio.sleep(REST_S)


async def accept_http(listener: SocketType, server: HttpServer, connections: trio.Nursery) -> None:
    """Serve HTTP without sessions on ``listener`` for ever.

    Connections may use half of the reserved descriptors. Beyond that the oldest connection is closed for
    each new one, so that idle connections cannot block the port.
    """
    limited_log, most = RateLimitedLog(), files_for_clients()[1] // 2
    served: dict[trio.CancelScope, None] = {}  # oldest first

    async def serve(sock: SocketType, peer: str, scope: trio.CancelScope) -> None:
        try:
            with scope:
                async with trio.SocketStream(sock) as stream:
                    await server.serve(stream, peer)
        finally:
            served.pop(scope, None)

    while True:
        accepted = await accept(listener, limited_log)
        if accepted is None:
            continue
        if len(served) >= most:
            oldest = next(iter(served))
            del served[oldest]
            oldest.cancel()
            server.refused["too many connections at the admin port"] += 1
            limited_log.warning("the oldest connection to the admin port was closed", most=most)
        scope = trio.CancelScope()
        served[scope] = None
        connections.start_soon(serve, *accepted, scope)


async def accept_from(
    listener: SocketType, counters: Counters, take: Callable[[socket.socket, str], Awaitable[None]]
) -> None:
    """Accept for ever; pass each connection, with its address, to ``take``.

    A connection that would use a reserved descriptor is closed: these are for the admin port, taps,
    publishers, logs and certificates.
    """
    limited_log, (most, reserved) = RateLimitedLog(), files_for_clients()
    # The plain socket of the listener: shards send on plain sockets, so those of trio would be converted.
    with socket.socket(fileno=os.dup(listener.fileno())) as plain:
        plain.setblocking(False)
        left = 0  # to accept before the next wait, which lets other tasks run
        while True:
            if not left:
                await trio.lowlevel.wait_readable(plain)
                left = ACCEPTS
            left -= 1
            try:
                sock, peer = plain.accept()
            except BlockingIOError:
                left = 0
                continue
            except OSError as error:
                counters.refused["accept failed"] += 1
                await _rest(error, limited_log)
                continue
            # A new descriptor has the lowest free number: all below it are in use.
            if sock.fileno() >= most:
                sock.close()
                counters.refused["too many open files"] += 1
                limited_log.warning("a connection was refused: see ulimit -n", files=most, reserved=reserved)
                continue
            sock.setblocking(False)
            await take(sock, str(peer[0]))
