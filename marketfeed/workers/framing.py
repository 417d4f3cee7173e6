"""Frames of messages between the engine and its worker processes. Pure: channel.py does the I/O.

A frame is a header of eight bytes, ``version u32 | length u32`` little-endian, and ``length``
bytes of MessagePack: one of the structs of messages.py, tagged with its name.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec

from marketfeed.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from marketfeed.workers.messages import Down, Up

VERSION: Final = 1
MAX_FRAME_BYTES: Final = 1 << 26
HEAD: Final = struct.Struct("<II")

M = TypeVar("M")


def encode(message: Down | Up) -> bytes:
    """Return ``message`` as a whole frame."""
    payload = msgspec.msgpack.encode(message)
    return HEAD.pack(VERSION, len(payload)) + payload


class Unframer(Generic[M]):
    """Incremental decoder of the frames of one direction."""

    def __init__(self, direction: type[M]) -> None:
        """``direction`` is :data:`Down` or :data:`Up`."""
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(direction)
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[M]:
        """Yield the messages that ``data`` completes; raises ControlError for invalid frames."""
        self._data += data
        while len(self._data) >= HEAD.size:
            version, length = HEAD.unpack_from(self._data)
            if version != VERSION:
                raise ControlError(f"control messages of version {version}, not {VERSION}")
            if length > MAX_FRAME_BYTES:
                raise ControlError(f"a control message of {length} bytes")
            end = HEAD.size + length
            if len(self._data) < end:
                return
            payload = bytes(memoryview(self._data)[HEAD.size : end])
            del self._data[:end]
            try:
                yield self._decoder.decode(payload)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ControlError(f"not a control message: {error}") from None
