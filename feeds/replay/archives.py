"""Plain and compressed files (.gz, .bz2, .xz, .zst, .zip) as blocks; a truncated file is read up to the cut.

Checksums follow the data that they protect. So that no wrong price is published, a compressed file is
decompressed twice: :func:`verify` checks all of it, then :meth:`Member.blocks` yields the verified bytes.
The first pass costs a tenth of the decoding time for gzip and zip, and about the decoding time for bzip2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from marketfeed.errors import ConfigError
from marketfeed.feeds.replay.packing import BZIP2, GZIP, READ_BYTES, XZ, Packing, unpacked, zstandard_packing
from marketfeed.feeds.replay.recording import DamagedError, shown, unreadable
from marketfeed.feeds.replay.zips import places, unzipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

MAX_VERIFIED_BYTES: Final = 1 << 30  # larger compressed files are not verified
SMALL_BYTES: Final = 4 << 20  # compressed files up to this size are verified when opened …
SMALL_BUDGET: Final = 16 << 20  # … within the time of decompressing this much gzip, 50 ms
_STEP_BYTES: Final = 1 << 18  # decompressed between two checkpoints, about 2 ms
SUFFIXES: Final = (".gz", ".bz2", ".xz", ".zst", ".zip")


@dataclass(slots=True)
class Member:
    """One file of text: a file on disk, or a member of an archive."""

    name: str
    _open: Callable[[], Iterator[bytes]]  # yields blocks; an empty block marks those before it as verified
    packed: bool = True
    cost: int = 1  # decompression time relative to gzip
    _damage: DamagedError | None = None  # found by verify()
    _good_bytes: int | None = None  # verified bytes; None: not verified, or all
    _verified: tuple[int, int] | None = None  # modification time and size of the verified version

    def blocks(self) -> Iterator[bytes]:
        """Yield the text; raises DamagedError after the last readable and, if verified, correct block."""
        left = self._good_bytes
        for block in self._open():
            if left is not None:
                block = block[:left]
                left -= len(block)
            if block:
                yield block
            if left == 0:
                break
        if self._damage is not None:
            raise DamagedError(self._damage.reason, self._damage.cut)

    def verify(self, version: tuple[int, int]) -> Iterator[int]:
        """Read the whole member and record how far it is correct; yields counts of bytes read."""
        if not self.packed or version == self._verified:
            return
        total = good = step = 0
        self._damage, self._good_bytes = None, None
        try:
            for block in self._open():
                total, step = total + len(block), step + len(block)
                if not block:
                    good = total
                if step >= _STEP_BYTES:
                    yield step
                    step = 0
        except DamagedError as error:
            # Before a cut all bytes are correct; before a wrong byte only complete streams are.
            self._damage, self._good_bytes = error, total if error.cut else good
        self._verified = version
        yield step

    @property
    def wrong(self) -> str:
        """The corruption that verify() found, "" if none; a truncated member is not corrupt."""
        return self._damage.reason if self._damage is not None and not self._damage.cut else ""


def members(path: Path) -> list[Member]:
    """Return the text files in ``path``, in order; raises ConfigError if it cannot be opened."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise unreadable(path, error) from None
    match suffix(path):
        case ".zip":
            found = _zipped(path)
            if not found:
                raise ConfigError(f"path: {path} holds no file")
            return found
        case ".gz":
            return [_packed(path, GZIP)]
        case ".bz2":
            return [_packed(path, BZIP2)]
        case ".xz":
            return [_packed(path, XZ)]
        case ".zst":
            return [_packed(path, zstandard_packing("path: a .zst file", "zstd"))]
        case _:
            return [Member(path.name, lambda: _plain(path), packed=False)]


def suffix(path: Path) -> str:
    """Return the suffix of ``path`` in lower case if it is one of SUFFIXES, else ""."""
    last = path.suffix.lower()
    return last if last in SUFFIXES else ""


def place_of(path: Path, member: Member) -> str:
    """Return the name of ``member`` for messages."""
    return f"{path}/{shown(member.name)}" if suffix(path) == ".zip" else str(path)


def verify(path: Path, found: Sequence[Member]) -> Iterator[None]:
    """Verify the compressed members of ``path`` in steps of about 2 ms, once per version of the file.

    Files above MAX_VERIFIED_BYTES are not verified.
    """
    stat = path.stat()
    if stat.st_size <= MAX_VERIFIED_BYTES:
        for member in found:
            for _ in member.verify((stat.st_mtime_ns, stat.st_size)):
                yield None


def refuse_if_wrong(path: Path, found: Sequence[Member], budget: int = SMALL_BUDGET) -> int:
    """Raise ConfigError if ``path`` is a small compressed file that fails verification.

    Takes at most the time of decompressing ``budget`` bytes of gzip; returns the unused budget.
    """
    stat = path.stat()
    if stat.st_size > SMALL_BYTES or budget <= 0:
        return budget
    for member in found:
        for count in member.verify((stat.st_mtime_ns, stat.st_size)):
            budget -= count * member.cost
            if budget < 0:
                return 0
        if member.wrong:
            raise ConfigError(f"path: {place_of(path, member)} is damaged: {member.wrong}")
    return budget


def _plain(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            yield block


def _packed(path: Path, packing: Packing) -> Member:
    def blocks() -> Iterator[bytes]:
        with path.open("rb") as file:
            yield from unpacked(file, packing)

    return Member(path.stem, blocks, cost=packing.cost)


def _zipped(path: Path) -> list[Member]:
    found, whole = places(path)

    def blocks(number: int) -> Iterator[bytes]:
        try:
            yield from unzipped(path, found[number])
        except DamagedError as error:
            # An archive with a directory at its end is not truncated: a size or an offset is wrong.
            raise DamagedError(error.reason, error.cut and not whole) from None
        if not whole and number == len(found) - 1:  # further members may be missing
            raise DamagedError("the directory at the archive's end is missing", cut=True)

    return [
        Member(place.name, lambda n=n: blocks(n), cost=place.cost)  # type: ignore[misc]
        for n, place in enumerate(found)
    ]
