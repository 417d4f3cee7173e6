"""A TLS client on libssl, for operations that Python's ssl does not offer."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import select
import socket
import struct
import sys
import time
from typing import Self

import pytest

TLS1_2, TLS1_3 = 0x0303, 0x0304
SET_MIN_VERSION, SET_MAX_VERSION = 123, 124  # SSL_CTX_ctrl, openssl/ssl.h
UPDATE_REQUESTED = 1
ENDED = select.POLLRDHUP | select.POLLHUP | select.POLLERR
SEND_S = 5  # timeout of a write to a peer that does not read


@functools.cache
def libssl() -> ctypes.CDLL:
    """Load libssl and declare the functions used here, or skip the test."""
    name = ctypes.util.find_library("ssl")
    if name is None:
        pytest.skip("needs libssl")
    lib = ctypes.CDLL(name)
    pointer, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    for function, result, arguments in (
        ("TLS_client_method", pointer, []),
        ("SSL_CTX_new", pointer, [pointer]),
        ("SSL_CTX_ctrl", ctypes.c_long, [pointer, number, ctypes.c_long, pointer]),
        ("SSL_CTX_free", None, [pointer]),
        ("SSL_new", pointer, [pointer]),
        ("SSL_free", None, [pointer]),
        ("SSL_set_fd", number, [pointer, number]),
        ("SSL_connect", number, [pointer]),
        ("SSL_do_handshake", number, [pointer]),
        ("SSL_key_update", number, [pointer, number]),
        ("SSL_renegotiate", number, [pointer]),
        ("SSL_read", number, [pointer, ctypes.c_char_p, number]),
        ("SSL_write", number, [pointer, ctypes.c_char_p, number]),
    ):
        getattr(lib, function).restype = result
        getattr(lib, function).argtypes = arguments
    assert ctypes.sizeof(size) == 8
    return lib


class TlsPeer:
    """One blocking connection; writes time out after SEND_S."""

    def __init__(self, port: int, version: int = TLS1_3) -> None:
        self._lib = libssl()
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._sock.settimeout(None)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_S, 0))
        self._context = self._lib.SSL_CTX_new(self._lib.TLS_client_method())
        for which in (SET_MIN_VERSION, SET_MAX_VERSION):
            assert self._lib.SSL_CTX_ctrl(self._context, which, version, None) == 1
        self._ssl = self._lib.SSL_new(self._context)
        self._lib.SSL_set_fd(self._ssl, self._sock.fileno())
        assert self._lib.SSL_connect(self._ssl) == 1

    def write(self, data: bytes) -> None:
        assert self._lib.SSL_write(self._ssl, data, len(data)) == len(data)

    def read_until(self, end: bytes) -> bytes:
        """Read up to ``end``."""
        got, buffer = b"", ctypes.create_string_buffer(4096)
        while end not in got:
            size = self._lib.SSL_read(self._ssl, buffer, 4096)
            assert size > 0, got
            got += buffer.raw[:size]
        return got

    def update_key(self) -> bool:
        """Send a KeyUpdate that requests one in return; False once the connection is closed."""
        sent = self._lib.SSL_key_update(self._ssl, UPDATE_REQUESTED) == 1
        return sent and self._lib.SSL_do_handshake(self._ssl) == 1 and not self.is_cut()

    def renegotiate(self) -> bool:
        """Request a renegotiation in TLS 1.2; False once the connection is closed."""
        if self._lib.SSL_renegotiate(self._ssl) == 1:
            self._lib.SSL_do_handshake(self._ssl)
        return not self.is_cut()

    def is_cut(self) -> bool:
        """Return whether the engine has closed or reset the connection, without reading its data."""
        poll = select.poll()
        poll.register(self._sock, ENDED)
        return bool(poll.poll(0))

    def close(self) -> None:
        self._lib.SSL_free(self._ssl)
        self._lib.SSL_CTX_free(self._context)
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


UPGRADE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def flood(port: int, upgraded: bool, version: int, seconds: float) -> int:
    """Flood one connection after the other, each until it is closed; return their number."""
    cut, end_s = 0, time.monotonic() + seconds
    while time.monotonic() < end_s:
        with TlsPeer(port, version) as peer:
            if upgraded:
                peer.write(UPGRADE)
                peer.read_until(b"connected")
            step = peer.update_key if version == TLS1_3 else peer.renegotiate
            while step() and time.monotonic() < end_s:
                pass
            cut += peer.is_cut()
    return cut


if __name__ == "__main__":
    port, upgraded, version, seconds = map(int, sys.argv[1:])
    print(flood(port, bool(upgraded), version, seconds))
