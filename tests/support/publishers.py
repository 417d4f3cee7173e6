"""Publishers of a push feed."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import numpy as np

from marketfeed.core.records import QUOTE

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


def quotes(*symbols, bid=100):
    """Return a bid of each of ``symbols``, ids of the publisher's own."""
    records = np.zeros(len(symbols), QUOTE)
    records["symbol"] = symbols
    records["bid_px"] = bid + np.arange(len(symbols))
    records["bid_sz"] = 1
    return records
