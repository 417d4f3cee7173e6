"""Recordings of one line a message, plain or packed, decoded line by line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from feeds.replay.archives import Member, members, refuse_if_wrong, suffix, verify
from feeds.replay.recording import NOTHING, DamagedError, Decoded, Decoder, Symbol, Teller
from feeds.replay.text import MAX_LINE_BYTES, shown, whole_lines
from marketfeed.errors import ConfigError

CHUNK_LINES: Final = 256  # decoded in one go, about 1 ms
FIRST_LINES: Final = 20  # looked at to tell whether this is such a file
_CHUNK_BYTES: Final = 1 << 16


class Lines:
    """A file that a :class:`Decoder` reads; the members of an archive one after the other."""

    def __init__(self, path: Path, format: str, decoder: Decoder, symbol: Symbol, teller: Teller) -> None:
        """Look at the first lines; raises ConfigError."""
        self._path = path
        self._decoder = decoder
        self._symbol = symbol
        self._teller = teller
        self._members = members(path)
        refuse_if_wrong(path, self._members)
        first_lines: list[bytes] = []
        damage = ""
        try:
            for text, _ in whole_lines(self._members[0].blocks(), _CHUNK_BYTES):
                first_lines += _lines(text)
                if len(first_lines) >= FIRST_LINES:
                    break
        except DamagedError as error:
            damage = error.reason
        if not decoder.looks_right(first_lines[:FIRST_LINES]):
            raise ConfigError(f"path: {path}{f': {damage}' if damage else f' does not look like {format}'}")

    def chunks(self) -> Iterator[Decoded]:
        """Yield the file decoded, CHUNK_LINES lines at a time; what is broken is counted and logged."""
        for _ in verify(self._path, self._members):
            yield NOTHING
        for member in self._members:
            at = f"{self._path}/{member.name}" if suffix(self._path) == ".zip" else str(self._path)
            for line_number, lines in self._chunks(member, at):
                decoded = self._decoder.decode(lines, self._symbol)
                self._teller.events(decoded.events)
                for offset, what in decoded.broken:
                    self._teller.broken(f"{at}:{line_number + offset}", what)
                yield decoded

    def _chunks(self, member: Member, at: str) -> Iterator[tuple[int, list[bytes]]]:
        """Yield lines, and the number of the first; sometimes none, so that others have their turn."""
        pending: list[bytes] = []
        number = 1  # of the first that is pending
        damage = ""
        try:
            for text, too_long in whole_lines(member.blocks(), _CHUNK_BYTES):
                if too_long:
                    yield number, pending
                    number += len(pending)
                    self._teller.broken(
                        f"{at}:{number}", f"longer than {MAX_LINE_BYTES} bytes: {shown(text)}"
                    )
                    number, pending = number + 1, []
                    continue
                pending += _lines(text)
                while len(pending) >= CHUNK_LINES:
                    yield number, pending[:CHUNK_LINES]
                    number, pending = number + CHUNK_LINES, pending[CHUNK_LINES:]
                if not text:
                    yield number, []
        except DamagedError as error:
            damage = error.reason
        yield number, pending
        if damage:
            self._teller.damaged(f"{at}:{number + len(pending)}", damage)


def _lines(text: bytes) -> list[bytes]:
    lines = text.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines
