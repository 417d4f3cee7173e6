"""Sockets of publishers: addresses, options, and what an end means."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

from marketfeed.client.unreachable import plainly
from marketfeed.core.addresses import parse_host_port
from marketfeed.errors import ConfigError

SEND_BUFFER_BYTES: Final = (
    256 << 10
)  # of the kernel: more waits in the publisher, where it is known as unsent
ENGINE_BYTES: Final = 512 << 10  # that the engine may have read and not published
RECEIVE_BYTES: Final = 6 << 20  # of the kernel for the engine, where tcp_rmem cannot be read
TCP_RMEM: Final = Path("/proc/sys/net/ipv4/tcp_rmem")

Address = tuple[str, int] | str


def push_address(address: str) -> Address:
    """Return host and port, or the path of a Unix socket, which has a slash; raises ConfigError."""
    if "/" in address:
        return address
    found = parse_host_port(address)
    if found is None or not found[1]:
        raise ConfigError(f"address: HOST:PORT or the path of a Unix socket (with a /), not {address!r}")
    return found


def push_socket(family: int) -> socket.socket:
    """Return a socket that does not block."""
    sock = socket.socket(family)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def end_of(sock: socket.socket) -> str | None:
    """Return why the connection has ended, "" if the engine closed it; None if it is open."""
    try:
        answer = sock.recv(1024)
    except BlockingIOError:
        return None
    except OSError as error:
        return f"connection lost: {plainly(error)}"
    return "it answers, so it is no push feed" if answer else ""


def kernel_bytes(sock: socket.socket) -> int:
    """Return how many bytes the kernel's buffers and the engine may hold that are not published."""
    bytes_ = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) + ENGINE_BYTES
    if sock.family != socket.AF_UNIX:
        try:
            bytes_ += int(TCP_RMEM.read_text().split()[2])
        except (OSError, ValueError, IndexError):
            bytes_ += RECEIVE_BYTES
    return bytes_
