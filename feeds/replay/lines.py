"""Recordings with one message per line, plain or compressed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketfeed.core.counts import amount
from marketfeed.errors import ConfigError
from marketfeed.feeds.replay.archives import Member, members, place_of, refuse_if_wrong, verify
from marketfeed.feeds.replay.recording import NOTHING, DamagedError, Decoded, Decoder, Reporter, Symbol
from marketfeed.feeds.replay.text import MAX_LINE_BYTES, whole_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHUNK_LINES: Final = 256  # decoded per step, about 1 ms
PROBE_LINES: Final = 4096  # a short file must hold a tick; decoded within about 20 ms
PROBE_BYTES: Final = 4 << 20
FIRST_LINES: Final = 20  # given to Decoder.matches()
_CHUNK_BYTES: Final = 1 << 16


class Lines:
    """Source for a file of lines, decoded by a :class:`Decoder`; members of an archive follow each other."""

    def __init__(
        self,
        path: Path,
        format: str,
        make_decoder: Callable[[], Decoder],
        symbol: Symbol,
        reporter: Reporter,
        only_file: bool = True,
    ) -> None:
        """Probe the first lines; raises ConfigError. An ``only_file`` must hold a tick."""
        self._path = path
        self._decoder = make_decoder()
        self._symbol = symbol
        self._reporter = reporter
        self._members = members(path)
        refuse_if_wrong(path, self._members)
        lines: list[bytes] = []
        damage, ended, size = "", True, 0
        try:
            for member in self._members:
                for text, _ in whole_lines(member.blocks(), _CHUNK_BYTES):
                    lines += _lines(text)
                    size += len(text)
                    if len(lines) >= PROBE_LINES or size >= PROBE_BYTES:
                        ended = False
                        break
                if any(map(bytes.strip, lines)):  # a member may be empty
                    ended = ended and member is self._members[-1]
                    break
        except DamagedError as error:
            damage = error.reason
        if (only_file or lines) and not self._decoder.matches(lines[:FIRST_LINES]):
            raise ConfigError(f"path: {path}{f': {damage}' if damage else f' does not look like {format}'}")
        if only_file and ended and not damage:
            self._refuse_without_ticks(make_decoder().decode(lines, lambda name: 0), len(lines))

    def _refuse_without_ticks(self, found: Decoded, lines: int) -> None:
        """Raise ConfigError if ``found``, all of a short file, has no tick."""
        if len(found.batch):
            return
        kinds = [f"{times:,} {kind}" for kind, times in found.passed.items()]
        if found.broken:
            kinds.append(f"{len(found.broken):,} broken; line {found.broken[0][0] + 1}: {found.broken[0][1]}")
        raise ConfigError(f"path: {self._path}: no tick in it: {amount(lines, 'lines')} ({', '.join(kinds)})")

    def chunks(self) -> Iterator[Decoded]:
        """Yield the decoded file, CHUNK_LINES lines at a time; broken lines are counted and logged."""
        for _ in verify(self._path, self._members):
            yield NOTHING
        for member in self._members:
            at = place_of(self._path, member)
            for line_number, lines in self._chunks(member, at):
                decoded = self._decoder.decode(lines, self._symbol)
                self._reporter.events(decoded.events)
                self._reporter.passed(decoded.passed)
                self._reporter.read("lines", len(lines))
                for offset, what in decoded.broken:
                    self._reporter.broken(f"{at}:{line_number + offset}", what, text=lines[offset])
                yield decoded

    def _chunks(self, member: Member, at: str) -> Iterator[tuple[int, list[bytes]]]:
        """Yield lines and the number of the first; empty lists allow the caller to run other tasks."""
        pending: list[bytes] = []
        number = 1  # of the first pending line
        damage = ""
        try:
            for text, too_long in whole_lines(member.blocks(), _CHUNK_BYTES):
                if too_long:
                    yield number, pending
                    number += len(pending)
                    self._reporter.broken(f"{at}:{number}", f"longer than {MAX_LINE_BYTES} bytes", text=text)
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
            self._reporter.damaged(f"{at}:{number + len(pending)}", damage)


def _lines(text: bytes) -> list[bytes]:
    lines = text.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines
