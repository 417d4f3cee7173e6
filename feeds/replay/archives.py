"""Files, plain or packed (.gz, .bz2, .xz, .zst, .zip), as blocks; one cut short is read up to the cut.

Checksums stand at the end of what they are of. So that no wrong price is
sent, a packed file is read twice: :func:`verify` reads it to its end, and
then :meth:`Member.blocks` gives out what is known to be right. That costs
one more unpacking, a tenth of the time that decoding takes for gzip and zip, and about as
much again for bzip2.
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

MAX_VERIFIED_BYTES: Final = 1 << 30  # a packed file larger than this is not read twice
SMALL_BYTES: Final = 4 << 20  # a packed file up to this is verified when it is opened …
SMALL_BUDGET: Final = 16 << 20  # … up to so many bytes of text out of gzip, 50 ms, or what takes as long
_STEP_BYTES: Final = 1 << 18  # unpacked between two turns of others, about 2 ms
SUFFIXES: Final = (".gz", ".bz2", ".xz", ".zst", ".zip")


@dataclass(slots=True)
class Member:
    """One file of text: the file itself, or one in an archive."""

    name: str
    _open: Callable[[], Iterator[bytes]]  # blocks, an empty one where those before are verified
    packed: bool = True
    cost: int = 1  # how many times as long as gzip unpacking takes
    _damage: DamagedError | None = None  # found by verify
    _good_bytes: int | None = None  # how much is right; None: not verified, or all
    _verified: tuple[int, int] | None = None  # which version of the file was, by time and size

    def blocks(self) -> Iterator[bytes]:
        """Yield the text; raises DamagedError after the last that can be read and, if verified, is right."""
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
        """Read all, and note up to where it is right. Yields how many bytes were read since the last time."""
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
            # Before a cut all bytes are those that were written; before a wrong byte only whole streams are.
            self._damage, self._good_bytes = error, total if error.cut else good
        self._verified = version
        yield step

    @property
    def wrong(self) -> str:
        """Say what is wrong with it, if some byte of it is known to be; a cut is no wrong byte."""
        return self._damage.reason if self._damage is not None and not self._damage.cut else ""


def members(path: Path) -> list[Member]:
    """Return the files of text that ``path`` holds, in order; raises ConfigError if it cannot be opened."""
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
    """Return how ``path`` is packed, by its name's end in any case: one of SUFFIXES, else ""."""
    last = path.suffix.lower()
    return last if last in SUFFIXES else ""


def place_of(path: Path, member: Member) -> str:
    """Return how messages name ``member``."""
    return f"{path}/{shown(member.name)}" if suffix(path) == ".zip" else str(path)


def verify(path: Path, found: Sequence[Member]) -> Iterator[None]:
    """Verify what of ``path`` is packed, in steps of about 2 ms, unless it is very large; once a version."""
    stat = path.stat()
    if stat.st_size <= MAX_VERIFIED_BYTES:
        for member in found:
            for _ in member.verify((stat.st_mtime_ns, stat.st_size)):
                yield None


def refuse_if_wrong(path: Path, found: Sequence[Member], budget: int = SMALL_BUDGET) -> int:
    """Raise ConfigError if ``path`` is packed, small, and holds what is known to be wrong.

    Takes the time of unpacking ``budget`` bytes of gzip at most; returns what is left of it.
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
            # An archive that ends in its directory was not cut: a size or an offset is wrong.
            raise DamagedError(error.reason, error.cut and not whole) from None
        if not whole and number == len(found) - 1:  # there may have been further ones
            raise DamagedError("the directory at the archive's end is missing", cut=True)

    return [
        Member(place.name, lambda n=n: blocks(n), cost=place.cost)  # type: ignore[misc]
        for n, place in enumerate(found)
    ]
