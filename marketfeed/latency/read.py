"""Read latency logs back: ours, and those of other HdrHistogram tools.

A log is read line by line, several logs at once in the order of time, so that
what belongs together (the workers of one engine, the engines of one cluster)
is merged interval by interval: histograms are added, percentiles never
averaged. A day of 10-second intervals with 30 tags takes less than a minute.

What cannot be read is left out, counted and said; it never stops the rest.
Longer than most files here: the lines, what they say and their sums are one format.
"""

from __future__ import annotations

import base64
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
from hdrh.codec import HdrCookieException, HdrHistogramSettingsException, HdrLengthException, decode
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from marketfeed.errors import LogError
from marketfeed.latency.histogram import PERCENTILES, Values, filled, rank
from marketfeed.latency.intervals import Tag
from marketfeed.latency.log import BEYOND

FIGURES: Final = ("count", "min", "p50", "p90", "p99", "p99_9", "p99_99", "max")
YEAR_S: Final = 365 * 86_400
LATEST_S: Final = 253_402_300_800  # the year 10000
_TIME: Final = re.compile(r"#\[(StartTime|BaseTime): *([0-9.]+)")
_BEYOND: Final = re.compile(re.escape(BEYOND) + r"([0-9]+) (.*)\]$")
HEADER_BYTES: Final = 40  # of the payload: cookie, length, offset, digits, lowest, highest, ratio
_OUTER: Final = struct.Struct(">II")  # cookie and length of what is compressed
_COMPRESSED: Final = 0x1C849314
_BROKEN: Final = (
    HdrCookieException, HdrLengthException, HdrHistogramSettingsException,
    binascii.Error, zlib.error, struct.error, ValueError, IndexError, MemoryError, OverflowError,
)  # fmt: skip


class Layout(NamedTuple):
    """How a histogram's buckets are laid out; only histograms of one layout can be added bucket by bucket."""

    unit_bits: int
    half_bits: int
    digits: int

    def lowest(self, buckets: Values) -> Values:
        """Return the lowest value of each bucket."""
        doubling = np.maximum((buckets >> self.half_bits) - 1, 0)
        lowest: Values = (buckets - (doubling << self.half_bits)) << (doubling + self.unit_bits)
        return lowest

    def highest(self, buckets: Values) -> Values:
        """Return the highest value of each bucket."""
        return self.lowest(buckets + 1) - 1

    def bucket(self, values: Values) -> Values:
        """Return the bucket of each value."""
        top = values >> self.unit_bits
        # The exponent of a float is its highest bit; both sides stay below 2**53.
        doubling = np.maximum(np.frexp(np.maximum(top, 1))[1] - 1 - self.half_bits, 0)
        buckets: Values = (doubling << self.half_bits) + (top >> doubling)
        return buckets


class Merged:
    """The sum of many intervals' histograms, as counts by bucket. All values in ns."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.counts: Values = np.zeros(0, np.int64)
        self.beyond = 0

    def add(self, layout: Layout, buckets: Values, counts: Values) -> None:
        """Add ``counts`` of ``buckets``, both of shape ``(k,)``; of two layouts the coarser one stays."""
        if layout != self.layout:
            if (layout.digits, -layout.unit_bits) < (self.layout.digits, -self.layout.unit_bits):
                held = filled(self.counts)
                old, kept = self.layout, self.counts[held]
                self.layout, self.counts = layout, np.zeros(0, np.int64)
                if len(held):
                    self.add(layout, layout.bucket(old.lowest(held)), kept)
            else:
                buckets = self.layout.bucket(layout.lowest(buckets))
        if len(buckets) and int(buckets.max()) >= len(self.counts):
            grown = np.zeros(int(buckets.max()) + 1, np.int64)
            grown[: len(self.counts)] = self.counts
            self.counts = grown
        np.add.at(self.counts, buckets, counts)

    @property
    def total(self) -> int:
        """Return how many values there are."""
        return int(self.counts.sum())

    def statistics(self, percentiles: tuple[float, ...] = PERCENTILES) -> list[int]:
        """Return count, min, each of ``percentiles``, max; of buckets the bounds that HdrHistogram shows."""
        held = filled(self.counts)
        return _statistics(self.layout, held, self.counts[held], percentiles)

    def curve(self) -> tuple[Values, Values]:
        """Return the highest value of each bucket that is filled, and how many values lie at or below it."""
        held = filled(self.counts)
        return self.layout.highest(held), self.counts[held].cumsum()


def _statistics(
    layout: Layout, buckets: Values, counts: Values, percentiles: tuple[float, ...] = PERCENTILES
) -> list[int]:
    if not len(buckets):
        return [0] * (len(percentiles) + 3)
    cumulative = counts.cumsum()
    places = rank(cumulative, percentiles)
    shown = layout.highest(buckets[[*places, -1]]).tolist()
    return [int(cumulative[-1]), int(layout.lowest(buckets[:1])[0]), *shown]


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
    pending: dict[tuple[str, ...], tuple[float, float, list[tuple[Layout, Values, Values]]]] = {}
    decoded = Decoder()
    slot = -math.inf

    def finish() -> None:
        for key, (start_s, length_s, parts) in pending.items():
            result.times_s.append(start_s)
            result.lengths_s.append(length_s)
            result.keys.append(key)
            result.figures.append(_statistics(*parts[0]) if len(parts) == 1 else _sum(parts).statistics())
        pending.clear()

    for one in heapq.merge(*(_lines(paths, i, result.problems, progress) for i in range(len(paths)))):
        result.first_s = min(result.first_s, one.start_s)
        result.last_s = max(result.last_s, one.start_s + one.length_s)
        if not from_s <= one.start_s < to_s or not where(one.tag):
            continue
        try:
            layout, buckets, counts = decoded(one.encoded)
        except _BROKEN as error:
            what = "a histogram that cannot be decoded" if str(error) == "" else f"a histogram: {error}"
            result.problems.add(paths[one.source], what, one.number)
            continue
        result.lines += 1
        result.layouts.setdefault(layout, paths[one.source])
        key = tuple(getattr(one.tag, name) for name in by)
        if one.beyond:
            result.beyond[key] = result.beyond.get(key, 0) + one.beyond
        if abs(one.start_s - slot) >= one.length_s / 2:
            finish()
            slot = one.start_s
        pending.setdefault(key, (slot, one.length_s, []))[2].append((layout, buckets, counts))
        result.merged.setdefault(key, Merged(layout)).add(layout, buckets, counts)
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


def _sum(parts: list[tuple[Layout, Values, Values]]) -> Merged:
    merged = Merged(parts[0][0])
    for part in parts:
        merged.add(*part)
    return merged


class Decoder:
    """Histograms of a log, by the package; those that are like one before in a third of the time.

    For each histogram the package makes an object, with room for all counts there may be. What a
    log holds has the same header nearly always: then its decoder fills the same room again.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Layout, Values]] = {}  # by header: the layout, and room, all zeros

    def __call__(self, encoded: str) -> tuple[Layout, Values, Values]:
        """Return the layout, the filled buckets and their counts; raises what the package raises."""
        raw = base64.b64decode(encoded)
        if len(raw) >= _OUTER.size and _OUTER.unpack_from(raw) == (_COMPRESSED, len(raw) - _OUTER.size):
            payload = zlib.decompress(raw[_OUTER.size :])
            header = payload[:4] + payload[8:HEADER_BYTES]  # all but the payload's length
            if (known := self._known.get(header)) is not None:
                return self._again(payload, *known)
            layout, buckets, counts, room = self._first(encoded)
            if len(payload) >= HEADER_BYTES:
                self._known[header] = layout, np.zeros(room, np.int64)
            return layout, buckets, counts
        return self._first(encoded)[:3]

    @staticmethod
    def _first(encoded: str) -> tuple[Layout, Values, Values, int]:
        hdr = HdrHistogram.decode(encoded)
        counts = np.ctypeslib.as_array(hdr.counts).view(np.int64)
        buckets = filled(counts)
        layout = Layout(hdr.unit_magnitude, hdr.sub_bucket_half_count_magnitude, hdr.significant_figures)
        return layout, buckets, counts[buckets], len(counts)

    @staticmethod
    def _again(payload: bytes, layout: Layout, room: Values) -> tuple[Layout, Values, Values]:
        try:
            found = decode(payload, HEADER_BYTES, room.ctypes.data, len(room), room.itemsize)
            # Upwards from 0, as the package shows no lowest one where there is nothing.
            buckets = filled(room[: found["max_nonzero_index"] + 1])
            counts = room[buckets]
            room[buckets] = 0
        except BaseException:
            room[:] = 0
            raise
        return layout, buckets, counts


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
