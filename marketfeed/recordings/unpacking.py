"""Files of frames, plain or packed (.gz, .zst), in blocks of at most 16 MiB however they are packed."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from marketfeed.errors import RecordingError

if TYPE_CHECKING:
    from pathlib import Path

READ_BYTES: Final = 1 << 16
# A block of Zstandard may unpack to 32,768 times its size: 16 MiB of these.
ZSTD_BYTES: Final = 512
GZIP_WINDOW: Final = 31  # zlib's wbits for gzip

Progress = Callable[[int], None]  # told of so many bytes of the file


class CutError(Exception):
    """The file ends here, or cannot be read any further; what came before is whole."""


class DamagedRecordingError(Exception):
    """What is packed is damaged here, and may be so a little before."""


def blocks(path: Path, progress: Progress = lambda size: None) -> Iterator[bytes]:
    """Yield what the file holds, unpacked by its suffix.

    Raises RecordingError if it cannot be opened, or if all that was yielded does not fit its checksum,
    and CutError or DamagedError after the last block that can be read if there should be more.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror or error}") from None
    packed = _read(file.read, progress)
    with file:
        match path.suffix.lower():
            case ".zst":
                yield from _zstd(path, packed)
            case ".gz":
                yield from _gzip(path, packed)
            case _:
                yield from packed


def _read(read: Callable[[int], bytes], progress: Progress) -> Iterator[bytes]:
    try:
        while block := read(READ_BYTES):
            progress(len(block))
            yield block
    except OSError as error:
        raise CutError(error.strerror or str(error)) from None


def _zstd(path: Path, packed: Iterator[bytes]) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise RecordingError(
            f"{path}: .zst needs the package zstandard: pip install 'marketfeed[zstd]'"
        ) from None
    unpack = zstandard.ZstdDecompressor().decompressobj()
    for block in packed:
        rest = memoryview(block)
        while rest:
            if unpack.eof:  # a file may hold several streams
                unpack = zstandard.ZstdDecompressor().decompressobj()
            try:
                unpacked = unpack.decompress(rest[:ZSTD_BYTES])
            except zstandard.ZstdError as error:
                raise _damaged(path, str(error), "checksum") from None
            rest = rest[min(ZSTD_BYTES, len(rest)) - len(unpack.unused_data) :]
            if unpacked:
                yield unpacked
    if not unpack.eof:
        raise CutError("it ends in the middle")


def _gzip(path: Path, packed: Iterator[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(GZIP_WINDOW)
    for block in packed:
        rest = block
        while rest:
            if inflate.eof:
                if not rest.strip(b"\0"):
                    break
                inflate = zlib.decompressobj(GZIP_WINDOW)
            try:
                unpacked = inflate.decompress(rest, READ_BYTES)
            except zlib.error as error:
                raise _damaged(path, str(error), "incorrect") from None
            rest = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
            if unpacked:
                yield unpacked
    if not inflate.eof:
        raise CutError("it ends in the middle")


def _damaged(path: Path, why: str, checksum: str) -> Exception:
    """Return the error to raise; one that mentions ``checksum`` is that of the whole stream."""
    if checksum in why:
        return RecordingError(f"{path}: damaged: its checksum does not fit, so its ticks may be wrong")
    return DamagedRecordingError(why)
