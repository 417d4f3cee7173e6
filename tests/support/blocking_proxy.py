"""A proxy that blocks paths, as some networks do, and can cut or refuse all connections."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCKED: Final = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 7\r\nConnection: close\r\n\r\nblocked"
CHUNK: Final = 1 << 16


class Proxy:
    """Forwards connections to ``target``, one request each, so that each can be judged by its path."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.blocked: set[str] = set()  # paths
        self.refusing = False
        self.paths: list[str] = []  # of all requests
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            if self.refusing:
                return
            self._keep(client)
            head = self._head(client)
            path = head.split(b" ", 2)[1].partition(b"?")[0].decode() if head else ""
            self.paths.append(path)
            if not head or path in self.blocked:
                client.sendall(BLOCKED)
                return
            if b"\r\nupgrade:" not in head.lower():
                head = re.sub(rb"\r\n[Cc]onnection: [^\r]*", b"\r\nConnection: close", head)
            self._forward(client, head)
        with self._lock:
            self._open.discard(client)

    def _forward(self, client: socket.socket, head: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self.target)) as engine:
            self._keep(engine)
            engine.sendall(head)
            back = threading.Thread(target=self._pump, args=(engine, client), daemon=True)
            back.start()
            self._pump(client, engine)
            back.join()
            with self._lock:
                self._open.discard(engine)

    def _keep(self, sock: socket.socket) -> None:
        with self._lock:
            self._open.add(sock)

    @staticmethod
    def _head(client: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            more = client.recv(CHUNK)
            if not more:
                return b""
            data += more
        return data

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                sink.sendall(data)
        for sock in (sink, source):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """End all connections."""
        with self._lock:
            cut, self._open = self._open, set()
        for sock in cut:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        self.cut()


@contextmanager
def blocking_proxy(target: int) -> Iterator[Proxy]:
    """Run a proxy in front of port ``target``."""
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
