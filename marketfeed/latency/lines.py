"""Parser of HdrHistogram interval logs, of marketfeed and other tools. Memory is bounded for any input.

    Tag=<tag>,<start s>,<length s>,<max>,<histogram, base64>

with or without the tag; times absolute, or relative to the comment ``#[BaseTime: …]`` or ``#[StartTime: …]``.
Source: HistogramLogReader and HistogramLogWriter of https://github.com/HdrHistogram/HdrHistogram.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from marketfeed.core.counts import amount
from marketfeed.core.printable import printable
from marketfeed.errors import LogError
from marketfeed.latency.intervals import Tag
from marketfeed.latency.log import BEYOND

if TYPE_CHECKING:
    from pathlib import Path

YEAR_S: Final = 365 * 86_400
LATEST_S: Final = 253_402_300_800  # the year 10000
MAX_LINE_BYTES: Final = 4 << 20  # a histogram of five digits with a million different values has 2 MB
MAX_TAG: Final = 1000  # characters
MAX_KNOWN: Final = 10_000  # cached tags, and comments that wait for their line
MAX_PROBLEMS: Final = 20  # kinds of problems per log that are listed separately
_TIME: Final = re.compile(r"#\[(StartTime|BaseTime): *([0-9]{1,12}(?:\.[0-9]*)?)")
_BEYOND: Final = re.compile(re.escape(BEYOND) + r"([0-9]{1,18}) (.*)\]$")
_YCSB: Final = "#[Logging for: "  # its writer's first comment; jHiccup's is "#[Logged with jHiccup"
_WRITERS: Final = ("istogram log", "jHiccup", "[StartTime:", "[BaseTime:", _YCSB)  # in comments
_GZIP: Final = b"\x1f\x8b"
_PACKED: Final = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "ZIP"}
_LEGEND: Final = ('"', "StartTimestamp", "Timestamp")
_PERCENTILES: Final = re.compile(r"\s*Value[ ,\"]+Percentile[ ,\"]+TotalCount")

Progress = Callable[[int], None]  # called with the number of bytes read


# The error for any other file, such as a configuration.
NO_LOG: Final = (
    "no HdrHistogram interval: this is not a latency log; `marketfeed serve` writes one to latency.path,"
    " var/latency.hlog"
)


class Line(NamedTuple):
    """One interval of a log, with its histogram still encoded. Times in seconds since the Unix epoch."""

    start_s: float
    length_s: float
    tag: Tag
    encoded: str
    beyond: int
    source: int  # index of the log
    number: int


@dataclass
class Problems:
    """Lines that could not be read: per log and kind of problem, the first line and the number of lines."""

    found: dict[tuple[Path, str], tuple[int, int]] = field(default_factory=dict)
    _kinds: dict[Path, int] = field(default_factory=dict)

    def add(self, path: Path, what: str, number: int) -> None:
        """Count line ``number`` of ``path`` as left out because of ``what``."""
        if (path, what) not in self.found:
            self._kinds[path] = self._kinds.get(path, 0) + 1
            if self._kinds[path] > MAX_PROBLEMS:
                what = "further unreadable lines"
        first, times = self.found.get((path, what), (number, 0))
        self.found[path, what] = first, times + 1

    def replace(self, path: Path, what: str) -> None:
        """Replace all problems of the lines of ``path`` by ``what``, which concerns the whole file."""
        for key in [key for key in self.found if key[0] == path]:
            del self.found[key]
        self.found[path, what] = 0, 0

    def __iter__(self) -> Iterator[str]:
        """Yield a message for each kind of problem of each log."""
        for (path, what), (first, times) in self.found.items():
            where = f" (line {first})" if times == 1 else f" ({times:,} lines, the first {first})"
            yield f"{path}: {what}{where if times else ''}"


def lines(
    paths: Sequence[Path], source: int, problems: Problems, progress: Progress, notes: list[str]
) -> Iterator[Line]:
    """Yield the intervals of one log, plain or compressed by gzip, in the order of its lines.

    Raises LogError if it cannot be opened.
    """
    path = paths[source]
    try:
        file = path.open("rb")
    except OSError as error:
        raise LogError(f"{path}: {error.strerror or error}") from None
    with file:
        parser = _Parser(path, source, problems, notes)
        unpacked = gzip.GzipFile(fileobj=file) if file.peek(2).startswith(_GZIP) else file
        try:
            yield from parser.lines(_pieces(unpacked, path, progress))
        except _DamageError:
            problems.add(path, "its gzip data are truncated or damaged from here on", parser.number + 1)


class _DamageError(Exception):
    """The gzip data end early or are damaged."""


def _pieces(file: BinaryIO | gzip.GzipFile, path: Path, progress: Progress) -> Iterator[tuple[bytes, bool]]:
    """Yield each line and True, or the beginning of a line that is too long and False.

    Raises LogError and _DamageError.
    """
    try:
        while raw := file.readline(MAX_LINE_BYTES):
            progress(len(raw))
            whole = raw.endswith(b"\n") or len(raw) < MAX_LINE_BYTES
            end = whole
            while not end:
                more = file.readline(MAX_LINE_BYTES)
                progress(len(more))
                end = not more or more.endswith(b"\n")
            yield raw, whole
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _DamageError from error
    except OSError as error:
        raise LogError(f"{path}: {error.strerror or error}") from None


class _Parser:
    """State of parsing one log: the base of its times, and comments on lines to come."""

    def __init__(self, path: Path, source: int, problems: Problems, notes: list[str]) -> None:
        self.number = 0  # of the newest line
        self._path, self._source = path, source
        self._problems = problems
        self._notes = notes
        self._start_s: float | None = None
        self._base_s: float | None = None
        self._is_log = False  # whether a line has identified the file as a latency log
        self._beyond: dict[str, int] = {}
        self._tags: dict[str, Tag] = {}  # cache: the same tags recur in each interval

    def lines(self, pieces: Iterator[tuple[bytes, bool]]) -> Iterator[Line]:
        passed = 0
        for number, (raw, whole) in enumerate(pieces, 1):
            self.number = number
            if raw.startswith(b"#"):
                self._comment(raw[:MAX_TAG].decode("utf-8", "replace").rstrip("\r\n"))
                continue
            try:
                text = raw.decode("utf-8")
                binary = "\0" in text
            except UnicodeDecodeError:
                binary = whole
            if binary:
                names = [name for magic, name in _PACKED.items() if number == 1 and raw.startswith(magic)]
                what = "not text: this is not an HdrHistogram log"
                if names:
                    what = f"compressed by {names[0]}: decompress it first, only gzip is supported"
                self._problems.add(self._path, what, number)
                return
            if not whole:
                self._problems.add(self._path, f"longer than {MAX_LINE_BYTES >> 20} MiB", number)
                continue
            text = text.strip()
            if not text or text.startswith(_LEGEND):
                self._is_log |= bool(text)
                continue
            found = self._line(text, raw.endswith(b"\n"), number)
            if isinstance(found, Line):
                self._is_log = True
                yield found
            else:
                passed += 1
                self._problems.add(self._path, found, number)
        if passed and not self._is_log:
            self._problems.replace(self._path, f"{amount(passed, 'lines')} and {NO_LOG}")

    def _comment(self, text: str) -> None:
        self._is_log |= any(name in text for name in _WRITERS)
        if found := _TIME.match(text):
            if found[1] == "StartTime":
                self._start_s = float(found[2])
            else:
                self._base_s = float(found[2])
        elif found := _BEYOND.match(text):
            if len(self._beyond) >= MAX_KNOWN:
                self._beyond.clear()
            self._beyond[found[2]] = int(found[1])
        elif text.startswith(_YCSB):
            note = f"{self._path}: this looks like a log of YCSB, which is in microseconds: see --unit"
            if note not in self._notes:
                self._notes.append(note)

    def _line(self, text: str, ended: bool, number: int) -> Line | str:
        """Parse a line; return the interval, or the problem with the line."""
        tag, rest = "", text
        if text.startswith("Tag="):
            tag, _, rest = text[4:].partition(",")
        fields = rest.split(",", 4)
        try:
            at_s, length_s, encoded = _seconds(fields[0]), _seconds(fields[1]), fields[3].strip()
        except (ValueError, IndexError):
            if not ended:
                return "its last line is incomplete"
            if _PERCENTILES.match(text):
                self._is_log = True
                return "a percentile distribution (.hgrm) without intervals: reports need an interval log"
            return "no HdrHistogram interval"
        if not ended and len(encoded) % 4:
            return "its last line is incomplete"
        if len(tag) > MAX_TAG:
            return f"a tag of more than {MAX_TAG} characters"
        if self._base_s is not None:
            at_s += self._base_s
        elif self._start_s is not None and at_s < self._start_s - YEAR_S:
            at_s += self._start_s  # the time is relative, by the same rule as in HistogramLogReader
        if at_s + length_s >= LATEST_S:
            return "an interval after the year 9999"
        if (parsed := self._tags.get(tag)) is None:
            if len(self._tags) >= MAX_KNOWN:
                self._tags.clear()
            # Terminals and pages show tags, so escape sequences are made printable.
            parsed = self._tags[tag] = Tag.parse(printable(tag, MAX_TAG))
        return Line(at_s, length_s, parsed, encoded, self._beyond.pop(tag, 0), self._source, number)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < LATEST_S:  # false for NaN, too
        raise ValueError(f"{text} is not a time")
    return value
