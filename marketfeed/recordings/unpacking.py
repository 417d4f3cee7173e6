"""Reading of plain and compressed files (.gz, .zst) in blocks of at most 16 MiB, for any input."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from marketfeed.errors import RecordingError

if TYPE_CHECKING:
    from pathlib import Path

READ_BYTES: Final = 1 << 16
# Zstandard expands by at most 32,768 times: these give at most 16 MiB.
ZSTD_BYTES: Final = 512
GZIP_WINDOW: Final = 31  # zlib's wbits for gzip

Progress = Callable[[int], None]  # called with the number of bytes read from the file


class CutError(Exception):
    """The file ends early, or cannot be read any further; the data before that are intact."""


class DamagedRecordingError(Exception):
    """The compressed data are damaged here; the last data before may be wrong, too."""


def blocks(path: Path, progress: Progress = lambda size: None) -> Iterator[bytes]:
    """Yield the content of the file, decompressed according to its suffix.

    Raises RecordingError if the file cannot be opened, or, at its end, if its checksum does not match.
    Raises CutError or DamagedRecordingError after the last readable block of an incomplete file.
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
        raise CutError("its compressed data end early")


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
        raise CutError("its compressed data end early")


def _damaged(path: Path, why: str, checksum: str) -> Exception:
    """Return the error to raise; a reason with the word ``checksum`` concerns the whole stream."""
    if checksum in why:
        return RecordingError(
            f"{path}: damaged: its checksum does not match, so any of its ticks may be wrong"
        )
    return DamagedRecordingError(why)
