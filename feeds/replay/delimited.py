"""Recordings in delimited text (CSV): one file, or the members of an archive merged by time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from marketfeed.core.fixed import DECIMALS
from marketfeed.errors import ConfigError
from marketfeed.feeds.replay.archives import Member, members, place_of, refuse_if_wrong, suffix, verify
from marketfeed.feeds.replay.columns import Builder, Layout, Table, TableKeys, TimedRecords, ticks_of
from marketfeed.feeds.replay.fields import Rows, Texts, ids, pointed, prices, sizes, texts
from marketfeed.feeds.replay.merging import merged
from marketfeed.feeds.replay.reasons import FIELD_FAULTS, REASONS, TIME_FAULTS, Hints
from marketfeed.feeds.replay.recording import (
    NOT_KEPT,
    NOTHING,
    DamagedError,
    Decoded,
    Reporter,
    Symbol,
    shown,
)
from marketfeed.feeds.replay.rowfields import Fault, Faulty, RowFields
from marketfeed.feeds.replay.text import MAX_LINE_BYTES, whole_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from marketfeed.feeds.replay.fields import Fields, Ints, Mask, Numbers
    from marketfeed.feeds.replay.words import Where

CHUNK_BYTES: Final = 1 << 16  # decoded per step, about 4 ms
SHOWN_FIELD: Final = 60  # characters of a field in messages
PROBE_BYTES: Final = 1 << 18  # a tick must occur within these, unless `where` filters rows


class Delimited:
    """Source for a delimited text file, or an archive of such files."""

    def __init__(
        self, path: Path, keys: TableKeys, symbol: Symbol, reporter: Reporter, only_file: bool = True
    ) -> None:
        """Decode the first rows; raises ConfigError if they do not match the configuration."""
        self._path = path
        self._layout = layout = Layout(keys, "csv")
        self._symbol = symbol
        self._reporter = reporter
        if not keys.header and any(isinstance(c, str) for c in [*layout.wanted.values(), *layout.where]):
            raise ConfigError("columns: use numbers from 0; names need header = true")
        self._members = members(path)
        if layout.member is not None and suffix(path) == ".zip":
            self._members = [m for m in self._members if layout.member.search(m.name)]
            if not self._members:
                raise ConfigError(f"member: no file in {path} matches")
        for member in self._members:
            layout.day_ns(self._layout.groups(member.name))
        refuse_if_wrong(path, self._members)
        self._probe(only_file)

    def chunks(self) -> Iterator[Decoded]:
        """Yield the rows in file order; members of an archive are merged by time."""
        for _ in verify(self._path, self._members):
            yield NOTHING
        exchanges: dict[str, int] = {}
        pieces = [self._timed_records(member, exchanges) for member in self._members]
        stream = merged(pieces) if len(pieces) > 1 else pieces[0]
        yield from ticks_of(self._layout, stream)

    def _probe(self, only_file: bool) -> None:
        """Raise ConfigError if the first rows do not match the configuration.

        A member of an archive may be empty, and so may one of several files (``only_file`` is False).
        """
        reporter, read = Reporter(None), 0
        for member in self._members:
            groups = self._layout.groups(member.name)
            reader = _Reader(self._path, member, self._layout, groups, reporter, probing=True)
            for table in reader.tables():
                if len(table.time_ns):
                    return
                if read + reader.read_bytes >= PROBE_BYTES:
                    break
            read += reader.read_bytes
            filtered = NOT_KEPT in reporter.kinds
            if reader.first_broken and (read < PROBE_BYTES or not filtered):
                why = f"line {reader.first_broken}"
                at = place_of(self._path, member)
                raise ConfigError(f"path: {at} does not look like csv with these columns: {why}")
            if read >= PROBE_BYTES:
                return
        if only_file:
            filtered = NOT_KEPT in reporter.kinds
            what = "holds no tick" if filtered else "does not look like csv with these columns"
            raise ConfigError(f"path: {self._path} {what}: {reporter.account()}")

    def _timed_records(self, member: Member, exchanges: dict[str, int]) -> Iterator[TimedRecords]:
        groups = self._layout.groups(member.name)
        builder = Builder(self._layout, groups, self._symbol, exchanges)
        for table in _Reader(self._path, member, self._layout, groups, self._reporter).tables():
            yield builder.records(table)


class _Reader:
    """Reader of one member, table by table.

    With ``probing``, configuration mistakes raise ConfigError.
    """

    def __init__(
        self,
        path: Path,
        member: Member,
        layout: Layout,
        groups: dict[str, str],
        reporter: Reporter,
        probing: bool = False,
    ) -> None:
        self._at = place_of(path, member)
        self._member = member
        self._layout = layout
        self._reporter = reporter
        self._probing = probing
        self.read_bytes = 0
        self._line = 1
        self._day_ns = layout.day_ns(groups)
        self._columns: dict[str, int] = {}
        self._where: dict[int, Where] = {}
        self.first_broken = ""
        self._hints = Hints(layout)
        if not layout.keys.header:
            self._columns = {name: int(column) for name, column in layout.wanted.items()}
            self._where = {int(column): where for column, where in layout.where.items()}

    def tables(self) -> Iterator[Table]:
        """Yield the rows as tables, each decoded within a few milliseconds."""
        for text in self._chunks():
            rows = Rows(text, self._layout.keys.delimiter)
            if self._layout.keys.header and not self._columns:
                if not len(rows):
                    self._line += rows.line_count
                    continue
                try:
                    self._name_columns(rows)
                except ConfigError as error:
                    if self._probing:
                        raise
                    self._report(0, str(error))  # in a later file of an archive, which is skipped
                    return
                rows.keep(np.arange(len(rows)) > 0)
            self._reporter.read("rows", len(rows))
            yield self._table(rows)
            self._line += rows.line_count

    def _chunks(self) -> Iterator[bytes]:
        """Yield blocks of whole lines; overlong lines and damage are reported."""
        try:
            for text, too_long in whole_lines(self._member.blocks(), CHUNK_BYTES):
                self.read_bytes += len(text)
                if too_long:
                    self._report(0, f"longer than {MAX_LINE_BYTES} bytes", text)
                    self._line += 1
                else:
                    yield text
        except DamagedError as error:
            at = f"{self._line}: the file is damaged from here on: {error}"
            self.first_broken = self.first_broken or at
            self._reporter.damaged(f"{self._at}:{self._line}", str(error))

    def _name_columns(self, rows: Rows) -> None:
        names = [rows.column(i).text(0).strip().lstrip("\ufeff") for i in range(int(rows.widths[0]))]

        def index(column: int | str, key: str) -> int:
            if isinstance(column, int):
                return column
            if names.count(column) != 1:
                has, count = shown(", ".join(names), 200), "more than one" if column in names else "no"
                raise ConfigError(f"{key}: {count} column {column!r} in {self._at}; it has {has}")
            return names.index(column)

        self._columns = {n: index(c, f"columns.{n}") for n, c in self._layout.wanted.items()}
        self._where = {index(c, "where"): where for c, where in self._layout.where.items()}

    def _table(self, rows: Rows) -> Table:
        self._select(rows)
        chunk = _TextChunk(rows, self._columns, self._layout, self._day_ns)
        if self._probing:
            chunk.refuse_clock_read_as_count()
        fields = RowFields(self._layout, chunk)
        for row in np.flatnonzero(fields.faulty).tolist():
            self._report_faulty(rows, row, fields.first_fault(row))
        return fields.table(~fields.faulty, self._reporter, self._at)

    def _select(self, rows: Rows) -> None:
        """Drop incomplete rows, which count as broken, and rows that ``where`` filters out."""
        width = max([*self._columns.values(), *self._where]) + 1
        self._leave_out(rows, rows.unclosed, "a quote that is not closed on its line")
        self._leave_out(rows, rows.widths < width, f"fewer than {width} columns")
        for column, where in self._where.items():
            codes, names = texts(rows.column(column))
            keep = where.keeps(names)[codes]
            if not keep.all():
                filtered = int((~keep).sum())
                self._reporter.events({"filtered": filtered})
                self._reporter.passed({NOT_KEPT: filtered})
                rows.keep(keep)

    def _report_faulty(self, rows: Rows, row: int, found: Faulty) -> None:
        quoted = found.fault in FIELD_FAULTS
        field = rows.column(self._columns[found.column if quoted else "time"]).text(row)
        text = REASONS[found.fault] + self._hints.hint(found.fault, field)
        if quoted and rows.widths[row] > 1:
            text += f": '{shown(field, SHOWN_FIELD)}', of the row"
        self._report(int(rows.lines[row]), text, rows.row(row))

    def _leave_out(self, rows: Rows, bad: NDArray[np.bool_], reason: str) -> None:
        if bad.any():
            for row in np.flatnonzero(bad).tolist():
                self._report(int(rows.lines[row]), reason, rows.row(row))
            rows.keep(~bad)

    def _report(self, offset: int, reason: str, text: bytes | None = None) -> None:
        if not self.first_broken:
            there = "" if text is None else f": {shown(text)}"
            self.first_broken = f"{self._line + offset}: {reason}{there}"
        self._reporter.broken(f"{self._at}:{self._line + offset}", reason, text=text)


class _TextChunk:
    """Implements :class:`Chunk` for rows of delimited text."""

    def __init__(self, rows: Rows, columns: dict[str, int], layout: Layout, day_ns: int | None) -> None:
        self._rows = rows
        self._columns = columns
        self._layout = layout
        self._day_ns = day_ns

    def refuse_clock_read_as_count(self) -> None:
        """Raise ConfigError if times that would be read as counts from midnight are clocks (``093000``)."""
        layout, time = self._layout, self._time()
        if self._day_ns is not None and layout.moments.is_hhmmss(time):
            raise ConfigError(
                f"time: {layout.keys.time!r} counts from midnight, and {time.text(0)!r} is a clock; use "
                f"{layout.moments.suggestion(time.text(0))}"
            )

    def times(self) -> tuple[Ints, list[Faulty]]:
        """Return times in nanoseconds since the epoch, and the rows without one."""
        time_ns, codes = self._layout.moments.read(
            self._time(),
            self._fields("date") if "date" in self._columns else None,
            self._fields("millisecond") if "millisecond" in self._columns else None,
            self._day_ns,
        )
        faulty = [
            Faulty(codes == code, "date" if fault is Fault.NO_DATE else "time", fault)
            for code, fault in TIME_FAULTS.items()
        ]
        return time_ns, faulty

    def prices(self, column: str) -> Numbers:
        """Return prices in units of 1e-9; vanished prices do not count as rounded."""
        numbers = prices(self._numbers(column), DECIMALS, self._layout.keys.price_scale)
        return numbers._replace(rounded=numbers.rounded - int(np.count_nonzero(numbers.vanished)))

    def sizes(self, column: str) -> tuple[NDArray[np.float64], Mask]:
        """Return sizes, 0 for empty cells, and which cells are broken."""
        return sizes(self._numbers(column))

    def ids(self, column: str) -> NDArray[np.uint64]:
        """Return trade ids, 0 for none."""
        return ids(self._fields(column))

    def texts(self, column: str) -> Texts:
        """Return the cells as texts."""
        codes, names = texts(self._fields(column))
        return Texts(codes, names, np.array(["\ufffd" in name for name in names], bool)[codes])

    def _fields(self, column: str) -> Fields:
        return self._rows.column(self._columns[column])

    def _numbers(self, column: str) -> Fields:
        found = self._fields(column)
        return pointed(found) if self._layout.keys.decimal == "," else found

    def _time(self) -> Fields:
        return self._numbers("time") if self._layout.moments.counted else self._fields("time")
