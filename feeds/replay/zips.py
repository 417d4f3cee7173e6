"""The members of a zip file, read through their local headers, with their checksums.

Where the directory at the end is missing, because the file was cut, the
members are found one after the other.

Source: PKWARE, APPNOTE.TXT 6.3, sections 4.3.7 (local file header), 4.3.9 (data descriptor) and 4.4;
RFC 1951 (a deflate stream says itself where it ends).
"""

from __future__ import annotations

import bz2
import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from marketfeed.errors import ConfigError
from marketfeed.feeds.replay.packing import BZIP2, CUT, READ_BYTES, inflated
from marketfeed.feeds.replay.recording import DamagedError, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_LOCAL_MAGIC: Final = b"PK\x03\x04"
_DESCRIPTOR_MAGIC: Final = b"PK\x07\x08"
_DESCRIPTOR_BYTES: Final = 24  # at most, with its magic and sizes of 64 bits
_METHODS: Final = {0: "stored", 8: "deflate", 12: "bzip2"}
_ENCRYPTED, _DESCRIBED, _UTF8 = 1, 8, 0x800  # flags; a described member has its checksum after its data
_END: Final = struct.Struct("<4s4H2LH")  # of the directory
_END_MAGIC: Final = b"PK\x05\x06"
_MAX_COMMENT: Final = 0xFFFF
_MANY: Final = 0xFFFF  # members, or more: their number stands elsewhere


@dataclass(frozen=True, slots=True)
class MemberPlace:
    """Where a member is, and what it must turn out to be. ``crc`` is None if it stands after the data."""

    name: str
    header_at: int
    method: int
    flags: int
    packed: int
    size: int | None
    crc: int | None
    header_name: str  # as the local header has to have it

    @property
    def cost(self) -> int:
        """How many times as long as deflate unpacking takes."""
        return BZIP2.cost if _METHODS.get(self.method) == "bzip2" else 1


def places(path: Path) -> tuple[list[MemberPlace], bool]:
    """Return the members of ``path`` that are files, in order, and whether its directory is there.

    Raises ConfigError if it is no zip file, or one of its members cannot be unpacked.
    """
    whole = True
    try:
        with zipfile.ZipFile(path) as archive:
            found = [
                MemberPlace(
                    i.filename,
                    i.header_offset,
                    i.compress_type,
                    i.flag_bits,
                    i.compress_size,
                    i.file_size,
                    i.CRC,
                    i.orig_filename,
                )
                for i in archive.infolist()
            ]
        declared = _declared_count(path)
        if declared not in (len(found), _MANY):
            raise ConfigError(
                f"path: {path} is damaged: {declared} members are declared, {len(found)} are listed"
            )
        _refuse_other_names(path, found)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, OSError, struct.error):
        whole = False
        with path.open("rb") as file:
            found = list(_scan(file))
        if not found:
            raise ConfigError(f"path: {path} is no zip file") from None
    for place in found:
        name = f"{path}/{shown(place.name)}"
        if place.flags & _ENCRYPTED:
            raise ConfigError(f"path: {name} is encrypted")
        if place.method not in _METHODS:
            known = ", ".join(_METHODS.values())
            raise ConfigError(f"path: {name} is packed by method {place.method}, not by {known}")
    return [place for place in found if not place.name.endswith("/")], whole


def _declared_count(path: Path) -> int:
    """Return how many members the end of the directory says there are, _MANY if it does not say."""
    with path.open("rb") as file:
        end = file.seek(0, io.SEEK_END)
        file.seek(max(end - _END.size - _MAX_COMMENT, 0))
        tail = file.read()
    at = tail.rfind(_END_MAGIC)
    if at < 0 or len(tail) - at < _END.size:
        return _MANY
    return int(_END.unpack_from(tail, at)[4])


def _refuse_other_names(path: Path, found: list[MemberPlace]) -> None:
    """Raise ConfigError if a member has another name in its header; names say what is played, and as what."""
    with path.open("rb") as file:
        for place in found:
            try:
                name = _local_header(file, place.header_at)[0].header_name
            except DamagedError:
                continue  # this is told when the member is read
            if name != place.header_name:
                names = f"{shown(place.header_name)!r} is {shown(name)!r} in its header"
                raise ConfigError(f"path: {path} is damaged: {names}")


def unzipped(path: Path, place: MemberPlace) -> Iterator[bytes]:
    """Yield what one member holds, and an empty block once its checksum is right; raises DamagedError."""
    with path.open("rb") as file:
        header, data_at = _local_header(file, place.header_at)
        file.seek(data_at)
        crc = size = 0
        for block in _blocks(file, header.method, place.packed if place.crc is not None else None):
            crc, size = zlib.crc32(block, crc), size + len(block)
            if block:
                yield block
        wanted = place.crc if place.crc is not None else _described(file, crc)
    if place.size is not None and size & 0xFFFFFFFF != place.size & 0xFFFFFFFF:
        raise DamagedError(f"it has {size} bytes, not {place.size}")
    if crc != wanted:
        raise DamagedError(f"its checksum (CRC-32) is {crc:08x}, not {wanted:08x}")
    yield b""


def _blocks(file: BinaryIO, method: int, packed: int | None) -> Iterator[bytes]:
    """Yield what the member at the file's position holds; ``packed`` bytes, None if that is not known."""
    if _METHODS.get(method) == "deflate":
        yield from inflated(file, packed)
    elif _METHODS.get(method) == "bzip2":
        yield from _bunzipped(file)
    elif _METHODS.get(method) == "stored":
        while packed:
            block = file.read(min(packed, READ_BYTES))
            if not block:
                raise DamagedError(CUT, cut=True)
            packed -= len(block)
            yield block
    else:
        raise DamagedError("its header is damaged")


def _bunzipped(file: BinaryIO) -> Iterator[bytes]:
    stream = bz2.BZ2Decompressor()
    while not stream.eof:
        packed = file.read(READ_BYTES)
        if not packed:
            raise DamagedError(CUT, cut=True)
        try:
            yield from BZIP2.unpack(stream, packed)
        except BZIP2.errors as error:
            raise DamagedError(f"not bzip2 data: {error}") from None
    file.seek(-len(stream.unused_data), io.SEEK_CUR)


def _described(file: BinaryIO, crc: int) -> int:
    """Return the checksum that stands at the file's position, after a member's data."""
    after = file.read(_DESCRIPTOR_BYTES)
    if len(after) < _DESCRIPTOR_BYTES // 2:
        raise DamagedError(CUT, cut=True)
    if after.startswith(_DESCRIPTOR_MAGIC) and int.from_bytes(after[:4], "little") != crc:
        after = after[4:]  # the magic is optional
    return int.from_bytes(after[:4], "little")


def _local_header(file: BinaryIO, at: int) -> tuple[MemberPlace, int]:
    """Return the member whose header is at ``at``, and where its data begins; raises DamagedError."""
    if not 0 <= at < 2**62:
        raise DamagedError("its directory is damaged")
    file.seek(at)
    head = file.read(_LOCAL.size)
    if len(head) < _LOCAL.size:
        raise DamagedError(CUT, cut=True)
    magic, _, flags, method, _, _, crc, packed, size, name_bytes, extra_bytes = _LOCAL.unpack(head)
    if magic != _LOCAL_MAGIC:
        raise DamagedError("no member is where one should be")
    written = file.read(name_bytes)
    name = written.decode("utf-8", "replace")
    header_name = name if flags & _UTF8 else written.decode("cp437")
    known = not flags & _DESCRIBED
    place = MemberPlace(
        name, at, method, flags, packed, size if known else None, crc if known else None, header_name
    )
    return place, at + _LOCAL.size + name_bytes + extra_bytes


def _scan(file: BinaryIO) -> Iterator[MemberPlace]:
    """Yield each member that begins in a zip file without its directory."""
    at = 0
    while True:
        try:
            place, data_at = _local_header(file, at)
        except DamagedError:
            return
        yield place
        file.seek(data_at)
        try:
            for _ in _blocks(file, place.method, place.packed if place.crc is not None else None):
                pass
        except DamagedError:
            return
        end = file.tell()
        # A data descriptor may stand between this member and the next.
        after = file.read(_DESCRIPTOR_BYTES + len(_LOCAL_MAGIC))
        at = end + max(after.find(_LOCAL_MAGIC), 0)
