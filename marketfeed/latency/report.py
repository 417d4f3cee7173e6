"""Reports from latency logs: rows of figures, comparison with another run, and budgets.

**Spread.** The intervals of a log show how much a figure varies by itself. A change is outside that spread
if the median of the new log's intervals lies outside the central 90 % of the old log's, the median of the
old log's outside that of the new log's, and the figure itself has changed in the same direction. Intervals
are compared with intervals, because the extremes and high percentiles of a whole log lie beyond those of
nearly all its intervals. With fewer than ten intervals on either side, changes are not judged.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketfeed.core.cells import as_text
from marketfeed.core.counts import amount
from marketfeed.core.histogram import PERCENTILES
from marketfeed.errors import LogError
from marketfeed.latency.intervals import HOPS, Tag
from marketfeed.latency.read import FIGURES, Latencies, read
from marketfeed.latency.units import duration_ns, shown_ns, shown_s

if TYPE_CHECKING:
    from pathlib import Path

    from marketfeed.latency.lines import Progress

TITLES: Final = ("count", "min", "p50", "p90", "p99", "p99.9", "p99.99", "max")
BY: Final = ("tier", "hop", "symbol", "worker")
MIN_INTERVALS: Final = 10
MAX_NAMES: Final = 1000  # values of each field that are remembered for an error
BAND: Final = (5.0, 95.0)  # percent of a log's intervals
LEAST_CHANGE: Final = 0.0005  # as a fraction: less is shown as 0.0 %
_Series = NDArray[np.int64]


class Budget(NamedTuple):
    """An upper limit for one figure of every row."""

    title: str
    limit_ns: int

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Parse a budget such as ``p99=20ms``. Raises LogError."""
        title, equals, limit = text.partition("=")
        title = title.strip().replace("_", ".")
        if not equals or title not in TITLES[1:]:
            raise LogError(f"--budget {text}: must be as p99=20ms, with one of {', '.join(TITLES[1:])}")
        return cls(title, duration_ns(limit))


@dataclass(frozen=True)
class Selection:
    """Which latencies to report, and how to merge them."""

    by: tuple[str, ...] = ()
    hops: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    from_s: float = float("-inf")
    to_s: float = float("inf")
    unit_ns: int = 1  # of the log's values

    @property
    def keys(self) -> tuple[str, ...]:
        """Fields that rows are grouped by. Hops are never merged: they measure different things."""
        by = self.by or ("hop", "tier")
        return ("hop", *(name for name in by if name != "hop"))

    def wants(self, tag: Tag) -> bool:
        """Return whether the selection includes histograms with this tag."""
        by_symbol = "symbol" in self.by or bool(self.symbols)
        return (
            # A symbol's latencies are also in its tier's histogram, and must not count twice.
            bool(tag.symbol) is by_symbol
            and all(
                not wanted or value in wanted
                for wanted, value in zip(
                    (self.hops, self.tiers, self.workers, self.symbols),
                    (tag.hop, tag.tier, tag.worker, tag.symbol),
                    strict=True,
                )
            )
        )


class Comparison(NamedTuple):
    """One figure compared with another log's."""

    before_ns: int
    now_ns: int
    outside: bool | None  # of the spread; None: too few intervals to tell

    @property
    def shown(self) -> str:
        """The change in percent, with an asterisk if it is outside the spread."""
        if not self.before_ns:
            return "new" if self.now_ns else "0 %"
        star = {True: " *", False: "", None: " ?"}[self.outside]
        return f"{(self.now_ns / self.before_ns - 1) * 100:+.1f} %{star}"


@dataclass
class ReportRow:
    """One row of the table: its key, and count, min, percentiles, max."""

    key: tuple[str, ...]
    figures: list[int]
    changes: list[Comparison | None] = field(default_factory=list)  # of min … max, with another log
    broken: list[Budget] = field(default_factory=list)


@dataclass
class Report:
    """Rows, with their logs and selection."""

    paths: list[Path]
    choice: Selection
    latencies: Latencies
    rows: list[ReportRow]
    against: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # unreadable lines, and other warnings

    @property
    def broken(self) -> list[str]:
        """A message for each budget that a row exceeds."""
        return [
            f"{' '.join(filter(None, row.key)) or 'all'}: {budget.title} is "
            f"{shown_ns(row.figures[TITLES.index(budget.title)])}, the budget {shown_ns(budget.limit_ns)}"
            for row in self.rows
            for budget in row.broken
        ]

    @property
    def span(self) -> str:
        """The time range of the rows, and their number of intervals."""
        start_s, end_s, intervals = self.latencies.span_s
        return f"{shown_s(start_s)} to {shown_s(end_s)}, {amount(intervals, 'intervals')}"


def make(
    paths: Sequence[Path],
    choice: Selection,
    against: Sequence[Path] = (),
    budgets: Sequence[Budget] = (),
    progress: Progress = lambda size: None,
) -> Report:
    """Read the logs and make the report. Raises LogError if there is nothing to report."""
    latencies = _read(paths, choice, progress, choice.from_s, choice.to_s)
    rows = [
        ReportRow(key, latencies.merged[key].statistics()) for key in sorted(latencies.merged, key=_order)
    ]
    report = Report(list(paths), choice, latencies, rows, list(against), _notes(latencies, choice.unit_ns))
    if against:
        other = _read(against, choice, progress)
        report.notes += _notes(other, choice.unit_ns)
        for row in rows:
            row.changes = _changes(latencies, other, row)
    for row in rows:
        row.broken = [b for b in budgets if row.figures[TITLES.index(b.title)] > b.limit_ns]
    return report


def _read(
    paths: Sequence[Path],
    choice: Selection,
    progress: Progress,
    from_s: float = float("-inf"),
    to_s: float = float("inf"),
) -> Latencies:
    there: dict[str, set[str]] = {name: set() for name in Tag._fields}
    in_window = False

    def wants(tag: Tag) -> bool:
        nonlocal in_window
        in_window = True
        for name, value in zip(Tag._fields, tag, strict=True):
            if value and len(there[name]) < MAX_NAMES:
                there[name].add(value)
        return choice.wants(tag)

    found = read(paths, choice.keys, wants, from_s, to_s, progress, choice.unit_ns)
    if found.lines:
        return found
    names = ", ".join(map(str, paths))
    problems = "; ".join(found.problems)
    if found.first_s > found.last_s:
        raise LogError(problems or f"{names}: no intervals yet; one is written every latency.interval_s")
    if found.wanted:
        raise LogError(problems)
    if not in_window:
        covered = f"{shown_s(found.first_s)} to {shown_s(found.last_s)}"
        raise LogError(f"{names}: no intervals between --from and --to; the log covers {covered}")
    have = "; ".join(f"{name}: {', '.join(sorted(values)[:20])}" for name, values in there.items() if values)
    raise LogError(f"{names}: no latencies of this selection; the log has {have or 'no tags'}")


def _order(key: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    return (HOPS.index(key[0]) if key[0] in HOPS else len(HOPS), key)


def _notes(found: Latencies, unit_ns: float) -> list[str]:
    notes = [*found.notes, *found.problems]
    digits = {(path, layout.digits): None for layout, path in found.layouts.items()}
    if len({layout._replace(scale=1.0) for layout in found.layouts}) > 1:
        least = min(layout.digits for layout in found.layouts)
        kinds = ", ".join(f"{path} has {number} digits" for path, number in digits)
        notes.append(f"histograms of different precision or range ({kinds}): merged to {least} digits")
    notes += [
        f"{path}: contains DoubleHistograms, whose unit depends on their writer: see --unit"
        for path in {path: None for layout, path in found.layouts.items() if layout.scale != unit_ns}
    ]
    notes += [
        f"{' '.join(filter(None, key))}: {count:,} values above 60 s are not in the histogram"
        for key, count in found.beyond.items()
    ]
    return notes


def _changes(now: Latencies, before: Latencies, row: ReportRow) -> list[Comparison | None]:
    other = before.merged.get(row.key)
    if other is None:
        return [None] * (len(TITLES) - 1)
    old_figures = other.statistics()
    _, new_series = now.series(row.key)
    _, old_series = before.series(row.key)
    changes: list[Comparison | None] = []
    for i in range(1, len(TITLES)):
        old, new = old_figures[i], row.figures[i]
        outside = None
        if min(len(new_series), len(old_series)) >= MIN_INTERVALS:
            outside = _is_outside(old, new, old_series[:, i], new_series[:, i])
        changes.append(Comparison(old, new, outside))
    return changes


def _is_outside(old: int, new: int, before: _Series, now: _Series) -> bool:
    """Return whether a change is outside the spread of the intervals of both logs, shape ``(k,)``."""
    median_before, median_now = float(np.median(before)), float(np.median(now))
    rises = median_now > median_before
    if abs(new - old) <= LEAST_CHANGE * old or rises is not (new > old):
        return False
    return _is_beyond(median_now, before) and _is_beyond(median_before, now)


def _is_beyond(value: float, others: _Series) -> bool:
    low, high = np.percentile(others, BAND)
    return not low <= value <= high


def to_csv(report: Report) -> str:
    """Return the table as CSV, in ns; with another log, also its figures and whether the change is outside.

    Names that spreadsheets would read as formulas get a leading ``'``.
    """
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    units = [name if name == "count" else f"{name}_ns" for name in FIGURES]
    more = [column for name in FIGURES[1:] for column in (f"against_{name}_ns", f"{name}_outside")]
    write([*report.choice.keys, *units, *(more if report.against else [])])
    for row in report.rows:
        changes: list[object] = []
        for change in row.changes:
            changes += ["", ""] if change is None else [change.before_ns, _said(change.outside)]
        write([*map(as_text, row.key), *row.figures, *changes])
    return text.getvalue()


def _said(outside: bool | None) -> str:
    return "" if outside is None else str(outside).lower()


Shown = Callable[[ReportRow], list[str]]
assert len(TITLES) == len(PERCENTILES) + 3


def shown_figures(row: ReportRow) -> list[str]:
    """Return the cells of a row after its key."""
    return [f"{row.figures[0]:,}", *map(shown_ns, row.figures[1:])]


def shown_changes(row: ReportRow) -> list[str]:
    """Return the cells of a row of changes after its key."""
    return ["-" if change is None else change.shown for change in row.changes]


SPREAD_NOTE: Final = (
    "* outside the spread: the median interval of each log is outside the central "
    f"{BAND[1] - BAND[0]:.0f} % of the other's"
    f" · ? fewer than {MIN_INTERVALS} intervals, not judged"
)
