"""Read latency logs back: ours, and those of other HdrHistogram tools.

A log is read line by line, several logs at once in the order of time, so that
what belongs together (the workers of one engine, the engines of one cluster)
is merged interval by interval: histograms are added, percentiles never
averaged. A day of 10-second intervals with 30 tags takes less than a minute.

What cannot be read is left out, counted and said; it never stops the rest.
"""

from __future__ import annotations

import binascii
import heapq
import math
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from hdrh.codec import HdrCookieException, HdrHistogramSettingsException, HdrLengthException
from numpy.typing import NDArray

from marketfeed.errors import LogError
from marketfeed.latency.histogram import PERCENTILES, Values
from marketfeed.latency.intervals import Tag
from marketfeed.latency.log import BEYOND
from marketfeed.latency.merged import Decoder, Layout, Merged, Part

FIGURES: Final = ("count", "min", "p50", "p90", "p99", "p99_9", "p99_99", "max")
YEAR_S: Final = 365 * 86_400
LATEST_S: Final = 253_402_300_800  # the year 10000
_TIME: Final = re.compile(r"#\[(StartTime|BaseTime): *([0-9.]+)")
_BEYOND: Final = re.compile(re.escape(BEYOND) + r"([0-9]+) (.*)\]$")
_BROKEN: Final = (
    HdrCookieException, HdrLengthException, HdrHistogramSettingsException,
    binascii.Error, zlib.error, struct.error, ValueError, IndexError, MemoryError, OverflowError,
)  # fmt: skip


class Line(NamedTuple):
    """A line of a log, its histogram still encoded. Times in seconds since the Unix epoch."""

    start_s: float
    length_s: float
    tag: Tag
    encoded: str
    beyond: int
    source: int  # index of the log
    number: int


@dataclass
class Problems:
    """What could not be read of each log: a sentence and how often, the first line for an example."""

    found: dict[tuple[Path, str], list[int]] = field(default_factory=dict)

    def add(self, path: Path, what: str, number: int) -> None:
        """Note that line ``number`` of ``path`` was left out."""
        self.found.setdefault((path, what), []).append(number)

    def __iter__(self) -> Iterator[str]:
        """Yield a sentence for each kind of problem of each log."""
        for (path, what), numbers in self.found.items():
            where = (
                f"line {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} lines, the first {numbers[0]}"
            )
            yield f"{path}: {what} ({where})"


Progress = Callable[[int], None]  # told of so many bytes read


@dataclass
class Latencies:
    """What logs hold, merged by some fields of the tag (``by``).

    ``merged`` has one histogram per key over the whole time; ``times_s`` and
    ``figures`` one row per key and interval: start in seconds since the Unix
    epoch, shape ``(n,)``, and count, min, p50 … p99.99, max in ns, shape
    ``(n, 8)``; ``keys`` the key of each row.
    """

    by: tuple[str, ...]
    merged: dict[tuple[str, ...], Merged] = field(default_factory=dict)
    times_s: list[float] = field(default_factory=list)
    lengths_s: list[float] = field(default_factory=list)
    keys: list[tuple[str, ...]] = field(default_factory=list)
    figures: list[list[int]] = field(default_factory=list)
    beyond: dict[tuple[str, ...], int] = field(default_factory=dict)
    problems: Problems = field(default_factory=Problems)
    layouts: dict[Layout, Path] = field(default_factory=dict)
    lines: int = 0
    first_s: float = math.inf  # what the logs cover, chosen or not
    last_s: float = -math.inf

    def series(self, key: tuple[str, ...]) -> tuple[NDArray[np.float64], Values]:
        """Return the starts, shape ``(k,)``, and figures, shape ``(k, 8)``, of one key."""
        rows = [i for i, k in enumerate(self.keys) if k == key]
        figures = np.array([self.figures[i] for i in rows], np.int64).reshape(len(rows), len(PERCENTILES) + 3)
        return np.array([self.times_s[i] for i in rows]), figures


def read(
    paths: Sequence[Path],
    by: tuple[str, ...] = Tag._fields,
    where: Callable[[Tag], bool] = lambda tag: True,
    from_s: float = -math.inf,
    to_s: float = math.inf,
    progress: Progress = lambda size: None,
) -> Latencies:
    """Read logs and merge them by the tag's fields ``by``, for tags that ``where`` accepts.

    An interval is in the window if it starts at or after ``from_s`` and before
    ``to_s``, seconds since the Unix epoch. Raises LogError if a file cannot be opened.
    """
    result = Latencies(by)
    # Of the interval under way: start, length, and histograms to be added, of which there is one mostly.
    pending: dict[tuple[str, ...], tuple[float, float, list[Part]]] = {}
    decoded = Decoder()
    slot = -math.inf

    def finish() -> None:
        for key, (start_s, length_s, parts) in pending.items():
            result.times_s.append(start_s)
            result.lengths_s.append(length_s)
            result.keys.append(key)
            result.figures.append((parts[0] if len(parts) == 1 else _sum(parts)).statistics())
        pending.clear()

    for one in heapq.merge(*(_lines(paths, i, result.problems, progress) for i in range(len(paths)))):
        result.first_s = min(result.first_s, one.start_s)
        result.last_s = max(result.last_s, one.start_s + one.length_s)
        if not from_s <= one.start_s < to_s or not where(one.tag):
            continue
        try:
            part = decoded(one.encoded)
        except _BROKEN as error:
            what = "a histogram that cannot be decoded" if str(error) == "" else f"a histogram: {error}"
            result.problems.add(paths[one.source], what, one.number)
            continue
        result.lines += 1
        result.layouts.setdefault(part.layout, paths[one.source])
        key = tuple(getattr(one.tag, name) for name in by)
        if one.beyond:
            result.beyond[key] = result.beyond.get(key, 0) + one.beyond
        if abs(one.start_s - slot) >= one.length_s / 2:
            finish()
            slot = one.start_s
        pending.setdefault(key, (slot, one.length_s, []))[2].append(part)
        result.merged.setdefault(key, Merged(part.layout)).add(*part)
    finish()
    return result


def load(
    paths: str | Path | Sequence[str | Path],
    by: tuple[str, ...] = Tag._fields,
    from_s: float = -math.inf,
    to_s: float = math.inf,
) -> Any:
    """Return latency logs as a table: a pandas DataFrame where pandas is installed, else a dict of arrays.

    One row per interval and tag (or per interval and what of the tag ``by``
    names, histograms merged): ``start`` (datetime64[ns], UTC), ``length_s``,
    the fields of the tag as text, ``count``, and ``min_ns``, ``p50_ns``,
    ``p90_ns``, ``p99_ns``, ``p99_9_ns``, ``p99_99_ns``, ``max_ns`` as int64.
    A row with a ``symbol`` repeats what its tier's row holds of it; without
    ``symbol`` in ``by`` there are none.
    What cannot be read is left out with a warning. Raises LogError.
    """
    several = [paths] if isinstance(paths, str | Path) else list(paths)

    def wanted(tag: Tag) -> bool:
        return "symbol" in by or not tag.symbol

    found = read([Path(path) for path in several], by, wanted, from_s, to_s)
    for problem in found.problems:
        warnings.warn(problem, stacklevel=2)
    figures = np.array(found.figures, np.int64).reshape(len(found.figures), len(FIGURES))
    table: dict[str, Any] = {
        "start": (np.array(found.times_s, np.float64) * 1000)
        .round()
        .astype("datetime64[ms]")
        .astype("M8[ns]"),
        "length_s": np.array(found.lengths_s, np.float64),
    }
    table |= {name: np.array([key[i] for key in found.keys], object) for i, name in enumerate(by)}
    table |= {name if name == "count" else f"{name}_ns": figures[:, i] for i, name in enumerate(FIGURES)}
    try:
        import pandas
    except ImportError:
        return table
    return pandas.DataFrame(table)


def _sum(parts: list[Part]) -> Merged:
    merged = Merged(parts[0].layout)
    for part in parts:
        merged.add(*part)
    return merged


def _lines(paths: Sequence[Path], source: int, problems: Problems, progress: Progress) -> Iterator[Line]:
    """Yield the lines of one log, in its own order."""
    path = paths[source]
    try:
        file = path.open("rb")
    except OSError as error:
        raise LogError(f"{path}: {error.strerror or error}") from None
    with file:
        yield from _parsed(file, path, source, problems, progress)


def _parsed(
    file: Iterable[bytes], path: Path, source: int, problems: Problems, progress: Progress
) -> Iterator[Line]:
    start_s = base_s = None
    beyond: dict[str, int] = {}
    tags: dict[str, Tag] = {}  # a few, which each interval has again
    for number, raw in enumerate(file, 1):
        progress(len(raw))
        try:
            text = raw.decode("ascii").rstrip("\r\n")
        except UnicodeDecodeError:
            problems.add(path, "not text: this is no HdrHistogram log", number)
            return
        if text.startswith("#"):
            if found := _TIME.match(text):
                if found[1] == "StartTime":
                    start_s = float(found[2])
                else:
                    base_s = float(found[2])
            elif found := _BEYOND.match(text):
                beyond[found[2]] = int(found[1])
            continue
        if not text or text.startswith('"'):
            continue
        tag, rest = "", text
        if text.startswith("Tag="):
            tag, _, rest = text[4:].partition(",")
        fields = rest.split(",")
        try:
            at_s, length_s, encoded = _seconds(fields[0]), _seconds(fields[1]), fields[3]
        except (ValueError, IndexError):
            last = not raw.endswith(b"\n")
            what = "its last line is cut off" if last else "no HdrHistogram interval"
            problems.add(path, what, number)
            continue
        if not raw.endswith(b"\n") and len(encoded) % 4:
            problems.add(path, "its last line is cut off", number)
            continue
        if base_s is not None:
            at_s += base_s
        elif start_s is not None and at_s < start_s - YEAR_S:
            at_s += start_s  # as the format's own reader: not absolute, then
        if (parsed := tags.get(tag)) is None:
            parsed = tags[tag] = Tag.parse(tag)
        yield Line(at_s, length_s, parsed, encoded, beyond.pop(tag, 0), source, number)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < LATEST_S:  # nor not-a-number, which would be before and after everything
        raise ValueError(f"{text} is no time")
    return value
