"""Unused TCP ports."""

from __future__ import annotations

import os
import random
import socket

# Below Linux's range for port 0 (net.ipv4.ip_local_port_range), so that no other program is assigned one of
# these ports between the check and its use.
FIRST, LAST = 20_000, 32_000
_ports = random.Random(os.getpid())
_given: set[int] = set()


def free_port() -> int:
    """Return an unused port of 127.0.0.1, a different one for each call."""
    while True:
        port = _ports.randrange(FIRST, LAST)
        if port in _given:
            continue
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
