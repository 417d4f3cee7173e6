"""Compressed frames: JSON messages in raw deflate, behind the header of a binary frame. Bytes in, values out.

    version u8 = 1 | kind u8 = 6 | flags u16 | length u32 (compressed bytes) | sent_ns u64
    raw deflate (RFC 1951) of a JSON array

Only sessions that asked for them get these frames, one in a WebSocket message; publishers and recordings have
none. What they hold is bounded on both sides, so that a short frame cannot fill the memory of a client.
"""

from __future__ import annotations

import zlib
from typing import Final

from marketfeed.core.binary import HEADER, VERSION
from marketfeed.errors import FeedProtocolError

COMPRESSED: Final = 6  # kind of frame; those of core/binary.py are lower
MAX_INFLATED_BYTES: Final = 1 << 20  # of the messages in one frame; takes about 6 ms to compress
LEVEL: Final = 1  # level 6 takes two to four times as long for a fifth fewer bytes (perf/compress.py)


def compressed_frame(messages: bytes, sent_ns: int) -> bytes:
    """Return a frame that holds ``messages``, a JSON array of at most MAX_INFLATED_BYTES."""
    if len(messages) > MAX_INFLATED_BYTES:
        raise ValueError(f"a compressed frame holds at most {MAX_INFLATED_BYTES} bytes, not {len(messages)}")
    packed = zlib.compress(messages, LEVEL, -zlib.MAX_WBITS)
    return HEADER.pack(VERSION, COMPRESSED, 0, len(packed), sent_ns) + packed


def is_compressed(message: bytes) -> bool:
    """Return whether a binary message is a compressed frame."""
    return len(message) >= HEADER.size and message[1] == COMPRESSED


def inflated(message: bytes) -> str:
    """Return the JSON array in ``message``, which is one whole compressed frame.

    Raises FeedProtocolError if it is not, or if it holds more than MAX_INFLATED_BYTES; at most one byte more
    is decompressed.
    """
    if len(message) < HEADER.size:
        raise FeedProtocolError("a compressed frame's header is cut off")
    version, kind, _, length, _ = HEADER.unpack_from(message)
    if version != VERSION or kind != COMPRESSED:
        raise FeedProtocolError(
            f"not a compressed frame of version {VERSION}: kind {kind}, version {version}"
        )
    if length != len(message) - HEADER.size:
        raise FeedProtocolError(f"a compressed frame of {length} bytes in {len(message) - HEADER.size}")
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        messages = unpacker.decompress(memoryview(message)[HEADER.size :], MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise FeedProtocolError(f"a compressed frame is damaged: {error}") from None
    if not unpacker.eof and unpacker.decompress(unpacker.unconsumed_tail, 1):
        raise FeedProtocolError(f"a compressed frame holds more than {MAX_INFLATED_BYTES} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise FeedProtocolError("a compressed frame is cut off, or has bytes behind its end")
    try:
        return messages.decode()
    except UnicodeDecodeError as error:
        raise FeedProtocolError(f"a compressed frame is not UTF-8: {error}") from None
