"""TCP ports that nothing listens on."""

from __future__ import annotations

import os
import random
import socket

# Below the ports that Linux gives to sockets bound to port 0 (net.ipv4.ip_local_port_range): nothing else
# that runs at the same time gets one of these between this test's asking and its use of it.
FIRST, LAST = 20_000, 32_000
_ports = random.Random(os.getpid())


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens, another one each time."""
    while True:
        port = _ports.randrange(FIRST, LAST)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
