"""Ways to compress a frame, for perf/compress.py."""

from __future__ import annotations

import importlib.util
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import zstandard

from marketfeed.core.binary import HEADER, RECORD_BYTES, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SKELETON: Final = (
    b'{"T":"t","S":"USD","p":1234.5,"s":100.0,"d":"B","i":1234567,"t":1732731901121000,"r":1732731901121000,"n":1,"g":1},'
    b'{"T":"q","S":"USDT","bp":100.01,"bs":100.0,"ap":100.02,"as":200.0,"t":1732731901121000,"r":1732731901121000,"n":10,'
    b'"g":100},{"T":"q","S":"BTC","bp":'
)


class Way(NamedTuple):
    """One way to compress."""

    name: str
    pack: Callable[[bytes], bytes]
    unpack: Callable[[bytes], bytes]


def deflate(level: int, dictionary: bytes = b"") -> Way:
    """Return raw deflate with a window for short frames."""

    def pack(data: bytes) -> bytes:
        wbits = 15 if len(data) > 8192 else 13
        if not dictionary:
            return zlib.compress(data, level, -wbits)
        packer = zlib.compressobj(level, zlib.DEFLATED, -wbits, zdict=dictionary)
        return packer.compress(data) + packer.flush()

    def unpack(data: bytes) -> bytes:
        return zlib.decompressobj(-15, zdict=dictionary).decompress(data)

    return Way(f"deflate {level}{' + keys' if dictionary else ''}", pack, unpack)


def igzip() -> Way:
    """Return raw deflate by the package isal, which uses vector instructions; not a dependency."""
    from isal import isal_zlib

    return Way(
        "igzip 1", lambda data: isal_zlib.compress(data, 1, -15), lambda data: isal_zlib.decompress(data, -15)
    )


def zstd(level: int, dictionary: zstandard.ZstdCompressionDict | None = None) -> Way:
    """Return zstd without content size and checksum."""
    packer = zstandard.ZstdCompressor(level, dict_data=dictionary, write_checksum=False)
    unpacker = zstandard.ZstdDecompressor(dict_data=dictionary)
    return Way(f"zstd {level}{' + trained' if dictionary else ''}", packer.compress, unpacker.decompress)


def transposed(data: bytes, back: bool = False) -> bytes:
    """Return a binary message with its records byte by byte: all first bytes, all second bytes, …"""
    parts, at = [], 0
    while at < len(data):
        _, kind, _, length, _ = HEADER.unpack_from(data, at)
        begin, at = at + HEADER.size, at + HEADER.size + length
        parts.append(data[begin - HEADER.size : begin])
        if kind in (Kind.QUOTES, Kind.TRADES):
            shape = (RECORD_BYTES, -1) if back else (-1, RECORD_BYTES)
            parts.append(np.frombuffer(data, np.uint8, length, begin).reshape(shape).T.tobytes())
        else:
            parts.append(data[begin:at])
    return b"".join(parts)


def columns_first(inner: Way) -> Way:
    """Return ``inner`` over the transposed records of binary frames."""
    return Way(
        f"columns, {inner.name}",
        lambda data: inner.pack(transposed(data)),
        lambda data: transposed(inner.unpack(data), back=True),
    )


def ways_for(encoding: str, frames: Sequence[bytes]) -> list[Way]:
    """Return the ways to compare for a group; one dictionary is trained with every second of ``frames``."""
    ways = [deflate(1), deflate(6), zstd(1), zstd(3)]
    if encoding == "json":
        ways.append(deflate(6, SKELETON))
    else:
        ways += [columns_first(deflate(1)), columns_first(deflate(6)), columns_first(zstd(1))]
    if importlib.util.find_spec("isal"):
        ways.append(igzip())
    samples: list[bytes | bytearray | memoryview] = [*frames[::2]]
    if sum(map(len, samples)) > 300_000 and len(samples) > 100:
        ways.append(zstd(3, zstandard.train_dictionary(16384, samples)))
    return ways
