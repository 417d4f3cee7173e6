"""Reading of latency logs, of marketfeed and of other HdrHistogram tools.

Logs are read line by line, several at once in order of time, so that the
workers of an engine, or the engines of a cluster, are merged interval by
interval. Histograms are added; percentiles are never averaged. A day of
10-second intervals with 30 tags takes less than a minute.

Unreadable lines are left out, counted and reported.
"""

from __future__ import annotations

import heapq
import math
import warnings
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from marketfeed.core.histogram import PERCENTILES, Values
from marketfeed.latency.decoding import HistogramDecoder, UndecodableError
from marketfeed.latency.intervals import Tag
from marketfeed.latency.lines import Line, Problems, Progress, lines
from marketfeed.latency.sums import BucketLayout, Merged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

FIGURES: Final = ("count", "min", "p50", "p90", "p99", "p99_9", "p99_99", "max")
MAX_ROWS: Final = 10_000  # keys: hops, tiers, workers, symbols
MAX_ENTRIES: Final = 4_000_000  # buckets that all histograms hold together: 64 MB
_MAX_LAYOUTS: Final = 16  # remembered for a note


@dataclass
class Latencies:
    """Content of logs, merged by some fields of the tag (``by``).

    ``merged`` has one histogram per key over the whole time. The other arrays
    have one row per key and interval: ``times_s`` and ``lengths_s``, its start
    in seconds since the Unix epoch and its length, shape ``(n,)``; ``figures``,
    count, min, p50 … p99.99, max in ns, shape ``(n, 8)``; ``keys``, its key.
    """

    by: tuple[str, ...]
    merged: dict[tuple[str, ...], Merged] = field(default_factory=dict)
    beyond: dict[tuple[str, ...], int] = field(default_factory=dict)
    problems: Problems = field(default_factory=Problems)
    notes: list[str] = field(default_factory=list)
    layouts: dict[BucketLayout, Path] = field(default_factory=dict)
    lines: int = 0  # merged
    wanted: int = 0  # selected, decoded or not
    first_s: float = math.inf  # span of the logs, selected or not
    last_s: float = -math.inf
    # 88 bytes per row, so that a log of many short lines does not take many times its own size.
    _times_s: array[float] = field(default_factory=lambda: array("d"))
    _lengths_s: array[float] = field(default_factory=lambda: array("d"))
    _figures: array[int] = field(default_factory=lambda: array("q"))
    _keys: array[int] = field(default_factory=lambda: array("q"))
    _numbers: dict[tuple[str, ...], int] = field(default_factory=dict)

    def append(self, key: tuple[str, ...], start_s: float, length_s: float, figures: list[int]) -> None:
        """Add a row."""
        self._times_s.append(start_s)
        self._lengths_s.append(length_s)
        self._figures.extend(figures)
        self._keys.append(self._numbers.setdefault(key, len(self._numbers)))

    @property
    def times_s(self) -> list[float]:
        """Start of each row."""
        return self._times_s.tolist()

    @property
    def lengths_s(self) -> list[float]:
        """Length of each row."""
        return self._lengths_s.tolist()

    @property
    def keys(self) -> list[tuple[str, ...]]:
        """Key of each row."""
        keys = list(self._numbers)
        return [keys[number] for number in self._keys]

    @property
    def figures(self) -> list[list[int]]:
        """Figures of each row."""
        figures: list[list[int]] = _rows(self._figures).tolist()
        return figures

    def values(self) -> Values:
        """Return a copy of the figures of all rows, shape ``(k, 8)``."""
        return np.array(_rows(self._figures))

    @property
    def span_s(self) -> tuple[float, float, int]:
        """Start and end of all rows, and the number of different starts."""
        starts = np.frombuffer(self._times_s, np.float64)
        ends = starts + np.frombuffer(self._lengths_s, np.float64)
        return float(starts.min()), float(ends.max()), len(np.unique(starts))

    def series(self, key: tuple[str, ...]) -> tuple[NDArray[np.float64], Values]:
        """Return the starts, shape ``(k,)``, and figures, shape ``(k, 8)``, of one key."""
        rows = np.flatnonzero(np.frombuffer(self._keys, np.int64) == self._numbers.get(key, -1))
        return np.frombuffer(self._times_s, np.float64)[rows], _rows(self._figures)[rows]

    def lengths_of(self, key: tuple[str, ...]) -> NDArray[np.float64]:
        """Return the lengths of the intervals of :meth:`series`, shape ``(k,)``."""
        rows = np.flatnonzero(np.frombuffer(self._keys, np.int64) == self._numbers.get(key, -1))
        return np.frombuffer(self._lengths_s, np.float64)[rows]


def _rows(figures: array[int]) -> Values:
    return np.frombuffer(figures, np.int64).reshape(-1, len(PERCENTILES) + 3)


def read(
    paths: Sequence[Path],
    by: tuple[str, ...] = Tag._fields,
    where: Callable[[Tag], bool] = lambda tag: True,
    from_s: float = -math.inf,
    to_s: float = math.inf,
    progress: Progress = lambda size: None,
    unit_ns: float = 1.0,
) -> Latencies:
    """Read logs and merge them by the fields ``by`` of the tag, for tags that ``where`` accepts.

    Selects intervals that start at or after ``from_s`` and before ``to_s``,
    seconds since the Unix epoch. ``unit_ns`` is the unit of the values. Raises
    LogError if a file cannot be opened.
    """
    result = Latencies(by)
    merging = _Merging(result, HistogramDecoder(unit_ns))
    logs = (lines(paths, i, result.problems, progress, result.notes) for i in range(len(paths)))
    for one in heapq.merge(*logs):
        result.first_s = min(result.first_s, one.start_s)
        result.last_s = max(result.last_s, one.start_s + one.length_s)
        if not from_s <= one.start_s < to_s or not where(one.tag):
            continue
        result.wanted += 1
        try:
            merging.add(one, paths[one.source])
        except (UndecodableError, OverflowError) as error:
            result.problems.add(paths[one.source], str(error), one.number)
    merging.finish()
    return result


class _Merging:
    """Merges lines with the same key, over the whole time and per interval."""

    def __init__(self, result: Latencies, decoder: HistogramDecoder) -> None:
        self._result = result
        self._decoder = decoder
        # The current interval, by key: its start, length and histogram.
        self._pending: dict[tuple[str, ...], tuple[float, float, Merged]] = {}
        self._slot_s = -math.inf
        self._entries = 0  # buckets of all merged histograms
        self._settled = 0  # the same, when they were last summed

    def add(self, one: Line, path: Path) -> None:
        """Add a line; raises UndecodableError, or OverflowError if a limit of memory would be exceeded."""
        part = self._decoder(one.encoded)
        result = self._result
        key = tuple(getattr(one.tag, name) for name in result.by)
        merged = result.merged.get(key)
        if merged is None:
            if len(result.merged) >= MAX_ROWS:
                raise OverflowError(f"more than {MAX_ROWS:,} rows; choose fewer: --tier, --symbol, --by")
            merged = Merged(part.layout)
        if self._entries + len(part.buckets) > MAX_ENTRIES:
            if self._entries > self._settled:
                self._settle()
            if self._entries + len(part.buckets) > MAX_ENTRIES:
                raise OverflowError(
                    f"more than {MAX_ENTRIES:,} different values in {len(result.merged):,} rows;"
                    " choose fewer: --tier, --symbol, --from, --to"
                )
        before = merged.entries
        merged.add(*part)
        result.merged[key] = merged
        self._entries += merged.entries - before
        if abs(one.start_s - self._slot_s) >= one.length_s / 2:
            self.finish()
            self._slot_s = one.start_s
        if key not in self._pending:
            self._pending[key] = self._slot_s, one.length_s, Merged(part.layout)
        self._pending[key][2].add(*part)
        if one.beyond:
            result.beyond[key] = result.beyond.get(key, 0) + one.beyond
        if len(result.layouts) < _MAX_LAYOUTS:
            result.layouts.setdefault(part.layout, path)
        result.lines += 1

    def _settle(self) -> None:
        for merged in self._result.merged.values():
            merged.part()
        for _, _, merged in self._pending.values():
            merged.part()
        self._entries = self._settled = sum(merged.entries for merged in self._result.merged.values())

    def finish(self) -> None:
        """End the current interval."""
        for key, (start_s, length_s, merged) in self._pending.items():
            self._result.append(key, start_s, length_s, merged.statistics())
        self._pending.clear()


def load(
    paths: str | Path | Sequence[str | Path],
    by: tuple[str, ...] = Tag._fields,
    from_s: float = -math.inf,
    to_s: float = math.inf,
    unit_ns: float = 1.0,
) -> Any:
    """Return latency logs as a table: a pandas DataFrame if pandas is installed, else a dict of arrays.

    One row per interval and tag, merged by the fields ``by`` of the tag:
    ``start`` (datetime64[ns], UTC), ``length_s``, the fields of the tag as
    text, ``count``, and ``min_ns``, ``p50_ns``, ``p90_ns``, ``p99_ns``,
    ``p99_9_ns``, ``p99_99_ns``, ``max_ns`` as int64. Values in a row with a
    ``symbol`` are also in the row of its tier; such rows exist only with
    ``symbol`` in ``by``. ``unit_ns`` is the unit of logs of other tools: 1000
    for µs. Unreadable lines are left out with a warning. Raises LogError.
    """
    several = [paths] if isinstance(paths, str | Path) else list(paths)

    def wanted(tag: Tag) -> bool:
        return "symbol" in by or not tag.symbol

    found = read([Path(path) for path in several], by, wanted, from_s, to_s, unit_ns=unit_ns)
    for problem in found.problems:
        warnings.warn(problem, stacklevel=2)
    figures, keys = found.values(), found.keys
    table: dict[str, Any] = {
        "start": (np.array(found.times_s, np.float64) * 1000)
        .round()
        .astype("datetime64[ms]")
        .astype("M8[ns]"),
        "length_s": np.array(found.lengths_s, np.float64),
    }
    table |= {name: np.array([key[i] for key in keys], object) for i, name in enumerate(by)}
    table |= {name if name == "count" else f"{name}_ns": figures[:, i] for i, name in enumerate(FIGURES)}
    try:
        import pandas
    except ImportError:
        return table
    return pandas.DataFrame(table)
