"""WebSocket frames for tests (RFC 6455, section 5.2).

Independent of marketfeed/fanout/ws_frames.py, whose frames it checks.
"""

from __future__ import annotations

import struct


def masked(first: int, payload: bytes) -> bytes:
    """Return a client's frame, masked with zeros; ``first`` is its first byte."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + bytes(4) + payload


def split_frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Return the first byte, the payload and the bytes behind the first frame of a server.

    None while that frame is incomplete.
    """
    if len(data) < 2:
        return None
    short = data[1]
    assert short < 128, "a server's frames are not masked"
    start = {126: 4, 127: 10}.get(short, 2)
    if len(data) < start:
        return None
    end = start + (short if start == 2 else int.from_bytes(data[2:start], "big"))
    return (data[0], data[start:end], data[end:]) if len(data) >= end else None
