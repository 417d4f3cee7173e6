"""Publishers of a push feed."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.process import Engine


def address_of(running: Engine, feed: str) -> str:
    """Wait until ``feed`` listens; return its address from the log."""
    while True:
        assert running.process.poll() is None
        for entry in list(running.log):
            if entry["event"] == "listening for publishers" and entry["feed"] == feed:
                return entry["address"]
        running._reader.join(0.01)


def connect(address: str) -> socket.socket:
    if "/" in address:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(address)
        return sock
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)))
