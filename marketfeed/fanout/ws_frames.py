"""WebSocket frames as bytes. A server's frames are unmasked, so one frame serves every member of a group.

Source: RFC 6455, section 5.2.
"""

from __future__ import annotations

import struct
from typing import Final

TEXT: Final = 0x81  # FIN and opcode
BINARY: Final = 0x82
PING: Final = 0x89
CLOSE: Final = 0x88


def header(opcode: int, length: int) -> bytes:
    """Return the header of an unmasked frame whose payload has ``length`` bytes."""
    if length < 126:
        return bytes((opcode, length))
    if length < 65536:
        return struct.pack("!BBH", opcode, 126, length)
    return struct.pack("!BBQ", opcode, 127, length)


def frame(opcode: int, payload: bytes) -> bytes:
    """Return ``payload`` as one whole unmasked frame."""
    return header(opcode, len(payload)) + payload
