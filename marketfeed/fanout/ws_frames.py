"""WebSocket frames: headers and payload lengths. Pure.

Frames from a server are unmasked, so all members of a group are sent the same bytes.

Source: RFC 6455, section 5.2.
"""

from __future__ import annotations

import struct
from typing import Final

TEXT: Final = 0x81  # FIN and opcode
BINARY: Final = 0x82
PING: Final = 0x89
CLOSE: Final = 0x88
PONG: Final = 0x8A
MASKED: Final = 0x80  # of the second byte
MAX_SHORT: Final = 125  # bytes of payload whose length is in the second byte
PING_BYTES: Final = 8  # random payload of the engine's pings


def header(opcode: int, length: int) -> bytes:
    """Return the header of an unmasked frame whose payload has ``length`` bytes."""
    if length <= MAX_SHORT:
        return bytes((opcode, length))
    if length < 65536:
        return struct.pack("!BBH", opcode, 126, length)
    return struct.pack("!BBQ", opcode, 127, length)


def payload_span(data: bytes | bytearray, at: int = 0) -> tuple[int, int] | None:
    """Return where the payload of the frame at ``data[at]`` begins, and its length in bytes.

    A masking key belongs to the header. Returns None while the header is incomplete; the payload may
    be incomplete.
    """
    if len(data) < at + 2:
        return None
    length, start = data[at + 1] & 0x7F, at + 2
    if length > MAX_SHORT:
        start += 2 if length == 126 else 8
        length = int.from_bytes(data[at + 2 : start], "big")
    if data[at + 1] & MASKED:
        start += 4
    return (start, length) if start <= len(data) else None


def unmasked(data: bytes, start: int, length: int) -> bytes:
    """Return a complete masked payload as :func:`payload_span` found it; ``length`` is a multiple of 4."""
    masked = int.from_bytes(data[start : start + length], "big")
    key = int.from_bytes(data[start - 4 : start] * (length // 4), "big")
    return (masked ^ key).to_bytes(length, "big")


def frame(opcode: int, payload: bytes) -> bytes:
    """Return ``payload`` as one whole unmasked frame."""
    return header(opcode, len(payload)) + payload
