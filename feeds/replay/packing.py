"""Decompression of streams (gzip, bzip2, xz, Zstandard, raw deflate) into blocks of bytes.

A stream's checksum follows its data, so blocks are verified only at the end of the stream. An empty block
marks all blocks before it as verified.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from marketfeed.feeds.replay.recording import DamagedError, needs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READ_BYTES: Final = 1 << 16
_ZSTD_READ_BYTES: Final = 1 << 11  # Zstandard blocks expand up to 40,000 times
_XZ_MEMORY: Final = 256 << 20  # four times the memory of the highest preset
_GZIP_LEAST_BYTES: Final = 20  # smallest file that is not empty
_GZIP_BLOCK_BYTES: Final = 1 << 20  # more text than one deflate block holds
CUT: Final = "it ends in the middle"


@dataclass(frozen=True, slots=True)
class Packing:
    """A compression format. ``unpack`` decompresses bytes into blocks of bounded size."""

    name: str
    begins: bytes  # magic number
    new: Callable[[], Any]
    unpack: Callable[[Any, bytes], Iterator[bytes]]
    errors: tuple[type[Exception], ...]
    cost: int = 1  # decompression time relative to gzip
    read_bytes: int = READ_BYTES


def unpacked(file: BinaryIO, packing: Packing) -> Iterator[bytes]:
    """Yield the decompressed ``file``, with an empty block after each complete stream; raises DamagedError.

    A file may hold several streams, separated by zeros.
    """
    begins = file.read(len(packing.begins))
    if begins != packing.begins:
        raise DamagedError(f"not a {packing.name} file" if begins else CUT, cut=not begins)
    packed, stream, size = begins, packing.new(), 0
    while True:
        packed = packed or file.read(packing.read_bytes)
        if stream is None:
            while packed and not packed.strip(b"\0"):
                packed = file.read(packing.read_bytes)
            if not packed:
                return
            packed, stream, size = packed.lstrip(b"\0"), packing.new(), 0
        if not packed:
            if packing is GZIP and _ends_whole(file, size):
                raise DamagedError("not gzip data: the last block does not end")
            raise DamagedError(CUT, cut=True)
        try:
            for block in packing.unpack(stream, packed):
                size += len(block)
                yield block
        except packing.errors as error:
            raise DamagedError(f"not {packing.name} data: {error}") from None
        packed = b""
        if stream.eof:
            packed, stream = stream.unused_data, None
            yield b""


def _ends_whole(file: BinaryIO, size: int) -> bool:
    """Return whether a gzip file that yielded ``size`` bytes is complete, by the size in its trailer.

    A corrupt byte in the last block may hide the end of the block, so that the file looks truncated.
    """
    if file.seek(0, io.SEEK_END) < _GZIP_LEAST_BYTES:
        return False
    file.seek(-4, io.SEEK_END)
    missing = (int.from_bytes(file.read(4), "little") - size) % 2**32
    return min(missing, 2**32 - missing) <= _GZIP_BLOCK_BYTES


def inflated(file: BinaryIO, packed_bytes: int | None) -> Iterator[bytes]:
    """Yield the decompressed raw deflate stream at the file's position; raises DamagedError.

    ``packed_bytes`` is the length of the stream, None if unknown. Afterwards
    the file's position is the end of the stream.
    """
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    left = packed_bytes
    while not stream.eof:
        packed = file.read(READ_BYTES if left is None else min(READ_BYTES, left))
        left = None if left is None else left - len(packed)
        try:
            if not packed:
                yield stream.flush()
                if not stream.eof:
                    raise DamagedError(CUT if left != 0 else "not deflate data: it has no end", cut=left != 0)
            yield from _unpack_deflated(stream, packed)
        except zlib.error as error:
            raise DamagedError(f"not deflate data: {error}") from None
    file.seek(-len(stream.unused_data), io.SEEK_CUR)


def _unpack_deflated(stream: Any, packed: bytes) -> Iterator[bytes]:
    while packed:
        block = stream.decompress(packed, READ_BYTES)
        if block:
            yield block
        packed = b"" if stream.eof else stream.unconsumed_tail


def _unpack_blocks(stream: Any, packed: bytes) -> Iterator[bytes]:
    while True:
        block = stream.decompress(packed, READ_BYTES)
        if block:
            yield block
        if stream.eof or stream.needs_input:
            return
        packed = b""


def _unpack_zstd(stream: Any, packed: bytes) -> Iterator[bytes]:
    block = stream.decompress(packed)
    if block:
        yield block


GZIP: Final = Packing("gzip", b"\x1f\x8b", lambda: zlib.decompressobj(31), _unpack_deflated, (zlib.error,))
BZIP2: Final = Packing("bzip2", b"BZh", bz2.BZ2Decompressor, _unpack_blocks, (OSError, ValueError), 16)
XZ: Final = Packing(
    "xz", b"\xfd7zXZ\0", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY), _unpack_blocks,
    (lzma.LZMAError, ValueError), 3,
)  # fmt: skip


def zstandard_packing(key: str, extra: str) -> Packing:
    """Return the Zstandard format; raises ConfigError, naming ``key`` and ``extra``, without the package."""
    try:
        import zstandard
    except ImportError:
        raise needs("zstandard", extra, key) from None
    return Packing(
        "Zstandard", b"", lambda: zstandard.ZstdDecompressor().decompressobj(), _unpack_zstd,
        (zstandard.ZstdError,), 1, _ZSTD_READ_BYTES,
    )  # fmt: skip
