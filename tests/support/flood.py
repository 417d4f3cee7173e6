"""Attack with unexpected request bodies: ``flood.py SECONDS CONNECTIONS SHUT PORT…``.

Each connection sends a request with a body of 262,144 bytes in chunks of one byte, cycling through the
routes, and reconnects when it is closed. With SHUT it half-closes after the body. Prints the number of
connections.
"""

from __future__ import annotations

import itertools
import selectors
import socket
import sys
import time

BODY = b"1\r\nx\r\n" * 262_144 + b"0\r\n\r\n"
LINES = (
    "GET /v1/symbols",
    "POST /v1/quotes",
    "GET /v1/stream",
    "POST /v1/events?quotes=*",
    "HEAD /v1/poll",
    "OPTIONS *",
    "OPTIONS /v1/quotes",
    "POST /metrics",
    "GET /healthz",
    "PUT /v1/sessions",
    "DELETE /nope",
    "POST /",
    "BREW /pot",
)
HEADS = [
    f"{line} HTTP/1.1\r\nHost: localhost\r\n{expect}Transfer-Encoding: chunked\r\n\r\n".encode()
    for line in LINES
    for expect in ("", "Expect: 100-continue\r\n")
]


def main(seconds: float, connections: int, shut: bool, ports: list[int]) -> int:
    selector, made = selectors.DefaultSelector(), 0
    heads, targets = itertools.cycle(HEADS), itertools.cycle(ports)

    def begin() -> None:
        nonlocal made
        made += 1
        sock = socket.create_connection(("127.0.0.1", next(targets)))
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_WRITE | selectors.EVENT_READ, memoryview(next(heads) + BODY))

    for _ in range(connections):
        begin()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for key, events in selector.select(0.1):
            sock, left = key.fileobj, key.data
            assert isinstance(sock, socket.socket)
            try:
                over = events & selectors.EVENT_READ and not sock.recv(65536)
                if not over and events & selectors.EVENT_WRITE and left:
                    left = left[sock.send(left[:65536]) :]
                    selector.modify(sock, key.events if left else selectors.EVENT_READ, left)
                    if shut and not left:
                        sock.shutdown(socket.SHUT_WR)
            except OSError:
                over = True
            if over:
                selector.unregister(sock)
                sock.close()
                begin()
    return made


if __name__ == "__main__":
    seconds_, connections_, shut_, *ports_ = sys.argv[1:]
    print(main(float(seconds_), int(connections_), shut_ == "1", [int(port) for port in ports_]))
