"""Files of text, plain or packed (.gz, .zip, .zst), as blocks of bytes; one cut short is read up to the cut.

A .zip is read through its local headers: where the directory at its end is
missing, because the file was cut, its members are found one after the other.

Source: PKWARE, APPNOTE.TXT 6.3, sections 4.3.7 (local file header) and 4.4;
RFC 1951 (a deflate stream says itself where it ends).
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from feeds.replay.recording import DamagedError, needs, unreadable
from marketfeed.errors import ConfigError

READ_BYTES: Final = 1 << 16
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_LOCAL_MAGIC: Final = b"PK\x03\x04"
_STORED, _DEFLATED = 0, 8
_ENCRYPTED: Final = 1  # bit of the flags


@dataclass(frozen=True, slots=True)
class Member:
    """One file of text: the file itself, or one in an archive."""

    name: str
    blocks: Callable[[], Iterator[bytes]]  # raises DamagedError after the last good one


def members(path: Path) -> list[Member]:
    """Return the files of text that ``path`` holds, in order; raises ConfigError if it cannot be opened."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise unreadable(path, error) from None
    match path.suffix:
        case ".zip":
            found = _zipped(path)
            if not found:
                raise ConfigError(f"path: {path} holds no file")
            return found
        case ".gz":
            return [Member(path.stem, lambda: _inflated(path, 0, 31))]
        case ".zst":
            return [Member(path.stem, lambda: zstd_blocks(path, "path: a .zst file", "zstd"))]
        case _:
            return [Member(path.name, lambda: _plain(path))]


def _plain(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            yield block


def _inflated(path: Path, at: int, window: int) -> Iterator[bytes]:
    """Yield what the deflate stream at ``at`` holds; ``window`` as zlib's wbits: 31 for gzip, -15 bare."""
    with path.open("rb") as file:
        file.seek(at)
        inflate = zlib.decompressobj(window)
        read_any = False
        while True:
            packed = inflate.unused_data or file.read(READ_BYTES)
            if inflate.eof:
                if window < 0 or not packed.strip(b"\0"):
                    return
                inflate = zlib.decompressobj(window)  # a gzip file may hold several streams
            if not packed:
                raise DamagedError("it ends in the middle" if read_any else "it is empty")
            read_any = True
            while packed:
                try:
                    block = inflate.decompress(packed, READ_BYTES)
                except zlib.error as error:
                    raise DamagedError(str(error)) from None
                if block:
                    yield block
                packed = b"" if inflate.eof else inflate.unconsumed_tail


def zstd_blocks(path: Path, key: str, extra: str) -> Iterator[bytes]:
    """Yield what the Zstandard file ``path`` holds; ``key`` and ``extra`` say what needs the package."""
    try:
        import zstandard
    except ImportError:
        raise needs("zstandard", extra, key) from None
    with path.open("rb") as file:
        unpack = zstandard.ZstdDecompressor().decompressobj()
        while packed := unpack.unused_data or file.read(READ_BYTES // 4):
            if unpack.eof:  # a file may hold several streams
                unpack = zstandard.ZstdDecompressor().decompressobj()
            try:
                block = unpack.decompress(packed)
            except zstandard.ZstdError as error:
                raise DamagedError(str(error)) from None
            if block:
                yield block
        if not unpack.eof:
            raise DamagedError("it ends in the middle")


def _zipped(path: Path) -> list[Member]:
    try:
        with zipfile.ZipFile(path) as archive:
            places = [(info.filename, info.header_offset, info.file_size) for info in archive.infolist()]
    except zipfile.BadZipFile:
        places = list(_scan(path))
        if not places:
            raise ConfigError(f"path: {path} is no zip file") from None
    return [
        Member(name, lambda at=at, size=size: _unzipped(path, at, size))  # type: ignore[misc]
        for name, at, size in places
        if not name.endswith("/")
    ]


def _unzipped(path: Path, header_at: int, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        _, data_at, method, flags, _ = _local_header(file, header_at)
        if flags & _ENCRYPTED or method not in (_STORED, _DEFLATED):
            raise DamagedError("it is encrypted, or packed in a way other than deflate")
        if method == _DEFLATED:
            yield from _inflated(path, data_at, -15)
            return
        file.seek(data_at)
        while size > 0:
            block = file.read(min(size, READ_BYTES))
            if not block:
                raise DamagedError("it ends in the middle")
            size -= len(block)
            yield block


def _local_header(file: BinaryIO, at: int) -> tuple[str, int, int, int, int]:
    """Return name, where the data begins, method, flags and packed size of the member at ``at``."""
    file.seek(at)
    head = file.read(_LOCAL.size)
    if len(head) < _LOCAL.size:
        raise DamagedError("it ends in the middle")
    magic, _, flags, method, _, _, _, packed, _, name_bytes, extra_bytes = _LOCAL.unpack(head)
    if magic != _LOCAL_MAGIC:
        raise DamagedError("no member is where one should be")
    name = file.read(name_bytes).decode("utf-8", "replace")
    return name, at + _LOCAL.size + name_bytes + extra_bytes, method, flags, packed


def _scan(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, place and size of each member that begins in a zip file without its directory."""
    at = 0
    with path.open("rb") as file:
        while True:
            try:
                name, data_at, method, _, packed = _local_header(file, at)
            except DamagedError:
                return
            yield name, at, packed
            if method == _DEFLATED:
                end = _deflate_end(file, data_at)
                if end is None:
                    return
                # A data descriptor, of 12 or 16 bytes, may stand between this member and the next.
                file.seek(end)
                after = file.read(16 + len(_LOCAL_MAGIC))
                at = end + max(after.find(_LOCAL_MAGIC), 0)
            else:
                at = data_at + packed


def _deflate_end(file: BinaryIO, at: int) -> int | None:
    """Return where the deflate stream at ``at`` ends, None if the file ends before."""
    file.seek(at)
    inflate = zlib.decompressobj(-15)
    while packed := file.read(READ_BYTES):
        at += len(packed)
        try:
            inflate.decompress(packed)
        except zlib.error:
            return None
        if inflate.eof:
            return at - len(inflate.unused_data)
    return None
