"""Members of a zip file, read through their local headers and verified by their checksums.

If the central directory is missing, because the file is truncated, the members are found by a scan.

Source: PKWARE, APPNOTE.TXT 6.3, sections 4.3.7 (local file header), 4.3.9 (data descriptor) and 4.4;
RFC 1951 (deflate streams mark their own end).
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
_ENCRYPTED, _DESCRIBED, _UTF8 = 1, 8, 0x800  # flags; the checksum of a described member follows its data
_END: Final = struct.Struct("<4s4H2LH")  # of the directory
_END_MAGIC: Final = b"PK\x05\x06"
_MAX_COMMENT: Final = 0xFFFF
_MANY: Final = 0xFFFF  # members or more; their number is in the zip64 record


@dataclass(frozen=True, slots=True)
class MemberPlace:
    """Position and expected content of a member. ``crc`` is None if it follows the data."""

    name: str
    header_at: int
    method: int
    flags: int
    packed: int
    size: int | None
    crc: int | None
    header_name: str  # name that the local header must have

    @property
    def cost(self) -> int:
        """Decompression time relative to deflate."""
        return BZIP2.cost if _METHODS.get(self.method) == "bzip2" else 1


def places(path: Path) -> tuple[list[MemberPlace], bool]:
    """Return the files in ``path``, in order, and whether it has its central directory.

    Raises ConfigError if it is not a zip file, or a member has an unsupported format.
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
    # zipfile raises NotImplementedError for a version of the format that it cannot read.
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, OSError, struct.error):
        whole = False
        with path.open("rb") as file:
            found = list(_scan(file))
        if not found:
            raise ConfigError(f"path: {path} is not a zip file") from None
    for place in found:
        name = f"{path}/{shown(place.name)}"
        if place.flags & _ENCRYPTED:
            raise ConfigError(f"path: {name} is encrypted")
        if place.method not in _METHODS:
            known = ", ".join(_METHODS.values())
            raise ConfigError(f"path: {name} has compression method {place.method}; supported are {known}")
    return [place for place in found if not place.name.endswith("/")], whole


def _declared_count(path: Path) -> int:
    """Return the number of members in the end-of-directory record, _MANY if unknown."""
    with path.open("rb") as file:
        end = file.seek(0, io.SEEK_END)
        file.seek(max(end - _END.size - _MAX_COMMENT, 0))
        tail = file.read()
    at = tail.rfind(_END_MAGIC)
    if at < 0 or len(tail) - at < _END.size:
        return _MANY
    return int(_END.unpack_from(tail, at)[4])


def _refuse_other_names(path: Path, found: list[MemberPlace]) -> None:
    """Raise ConfigError if a name in the directory differs from the local header's: names select members."""
    with path.open("rb") as file:
        for place in found:
            try:
                name = _local_header(file, place.header_at)[0].header_name
            except DamagedError:
                continue  # reported when the member is read
            if name != place.header_name:
                names = f"{shown(place.header_name)!r} is {shown(name)!r} in its header"
                raise ConfigError(f"path: {path} is damaged: {names}")


def unzipped(path: Path, place: MemberPlace) -> Iterator[bytes]:
    """Yield the content of a member, then an empty block if its checksum matches; raises DamagedError."""
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
    """Yield the content of the member at the file's position, of ``packed`` bytes, None if unknown."""
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
    """Read the checksum from the data descriptor at the file's position."""
    after = file.read(_DESCRIPTOR_BYTES)
    if len(after) < _DESCRIPTOR_BYTES // 2:
        raise DamagedError(CUT, cut=True)
    if after.startswith(_DESCRIPTOR_MAGIC) and int.from_bytes(after[:4], "little") != crc:
        after = after[4:]  # the magic is optional
    return int.from_bytes(after[:4], "little")


def _local_header(file: BinaryIO, at: int) -> tuple[MemberPlace, int]:
    """Parse the local header at ``at``; return the member and the start of its data; raises DamagedError."""
    if not 0 <= at < 2**62:
        raise DamagedError("its directory is damaged")
    file.seek(at)
    head = file.read(_LOCAL.size)
    if len(head) < _LOCAL.size:
        raise DamagedError(CUT, cut=True)
    magic, _, flags, method, _, _, crc, packed, size, name_bytes, extra_bytes = _LOCAL.unpack(head)
    if magic != _LOCAL_MAGIC:
        raise DamagedError("there is no local header where the directory expects one")
    written = file.read(name_bytes)
    name = written.decode("utf-8", "replace")
    header_name = name if flags & _UTF8 else written.decode("cp437")
    known = not flags & _DESCRIBED
    place = MemberPlace(
        name, at, method, flags, packed, size if known else None, crc if known else None, header_name
    )
    return place, at + _LOCAL.size + name_bytes + extra_bytes


def _scan(file: BinaryIO) -> Iterator[MemberPlace]:
    """Yield the members of a zip file without its directory, by their local headers."""
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
        # A data descriptor may precede the next member.
        after = file.read(_DESCRIPTOR_BYTES + len(_LOCAL_MAGIC))
        at = end + max(after.find(_LOCAL_MAGIC), 0)
