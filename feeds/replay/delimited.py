"""Recordings as delimited text (CSV): a file, or the members of an archive merged by time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from marketfeed.core.fixed import DECIMALS
from marketfeed.core.records import UNKNOWN_SIDE
from marketfeed.errors import ConfigError
from marketfeed.feeds.replay.archives import Member, members, place_of, refuse_if_wrong, suffix, verify
from marketfeed.feeds.replay.columns import Builder, Layout, Piece, Table, TableKeys, ticks_of
from marketfeed.feeds.replay.conditions import Conditions, conditions_of
from marketfeed.feeds.replay.fields import Fields, Rows, ids, pointed, prices, sizes, texts
from marketfeed.feeds.replay.merging import merged
from marketfeed.feeds.replay.reasons import REASONS, TIME_COLUMNS, TIME_REASONS, Hints
from marketfeed.feeds.replay.recording import NOT_KEPT, NOTHING, DamagedError, Decoded, Symbol, Teller, shown
from marketfeed.feeds.replay.text import MAX_LINE_BYTES, whole_lines
from marketfeed.feeds.replay.words import Where, sides_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

CHUNK_BYTES: Final = 1 << 16  # decoded in one go, about 4 ms
SHOWN_FIELD: Final = 60  # characters of a field in a message
LOOK_BYTES: Final = 1 << 18  # in which there should be a tick, unless `where` leaves rows out


class Delimited:
    """A text file with columns, or an archive of such files."""

    def __init__(
        self, path: Path, keys: TableKeys, symbol: Symbol, teller: Teller, alone: bool = True
    ) -> None:
        """Look at the first rows; raises ConfigError."""
        self._path = path
        self._layout = layout = Layout(keys, "csv")
        self._symbol = symbol
        self._teller = teller
        if not keys.header and any(isinstance(c, str) for c in [*layout.wanted.values(), *layout.where]):
            raise ConfigError("columns: by number, from 0; names need header = true")
        self._members = members(path)
        if layout.member is not None and suffix(path) == ".zip":
            self._members = [m for m in self._members if layout.member.search(m.name)]
            if not self._members:
                raise ConfigError(f"member: no file in {path} matches")
        for member in self._members:
            layout.day_ns(self._layout.groups(member.name))
        refuse_if_wrong(path, self._members)
        self._look(alone)

    def chunks(self) -> Iterator[Decoded]:
        """Yield the rows in order of the file, or of time over the members of an archive."""
        for _ in verify(self._path, self._members):
            yield NOTHING
        exchanges: dict[str, int] = {}
        pieces = [self._pieces(member, exchanges) for member in self._members]
        stream = merged(pieces) if len(pieces) > 1 else pieces[0]
        yield from ticks_of(self._layout, stream)

    def _look(self, alone: bool) -> None:
        """Raise ConfigError, saying why, if the first rows are not as configured.

        A member of an archive may have no row, and so may a file that is not ``alone``.
        """
        teller, read = Teller(None), 0
        for member in self._members:
            groups = self._layout.groups(member.name)
            reader = _Reader(self._path, member, self._layout, groups, teller, looking=True)
            for table in reader.tables():
                if len(table.time_ns):
                    return
                if read + reader.read_bytes >= LOOK_BYTES:
                    break
            read += reader.read_bytes
            filtered = NOT_KEPT in teller.kinds
            if reader.first_broken and (read < LOOK_BYTES or not filtered):
                why = f"line {reader.first_broken}"
                at = place_of(self._path, member)
                raise ConfigError(f"path: {at} does not look like csv with these columns: {why}")
            if read >= LOOK_BYTES:
                return
        if alone:
            filtered = NOT_KEPT in teller.kinds
            what = "holds no tick" if filtered else "does not look like csv with these columns"
            raise ConfigError(f"path: {self._path} {what}: {teller.account()}")

    def _pieces(self, member: Member, exchanges: dict[str, int]) -> Iterator[Piece]:
        groups = self._layout.groups(member.name)
        builder = Builder(self._layout, groups, self._symbol, exchanges)
        for table in _Reader(self._path, member, self._layout, groups, self._teller).tables():
            yield builder.records(table)


class _Reader:
    """Turns one member into tables, chunk by chunk.

    Where it is ``looking``, mistakes of the configuration are raised as ConfigError.
    """

    def __init__(
        self,
        path: Path,
        member: Member,
        layout: Layout,
        groups: dict[str, str],
        teller: Teller,
        looking: bool = False,
    ) -> None:
        self._at = place_of(path, member)
        self._member = member
        self._layout = layout
        self._teller = teller
        self._looking = looking
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
        """Yield the rows, a few milliseconds' work at a time."""
        for text in self._chunks():
            rows = Rows(text, self._layout.keys.delimiter)
            if self._layout.keys.header and not self._columns:
                if not len(rows):
                    self._line += rows.line_count
                    continue
                try:
                    self._name_columns(rows)
                except ConfigError as error:
                    if self._looking:
                        raise
                    self._tell(0, str(error))  # of a later file in an archive: it is passed over
                    return
                rows.keep(np.arange(len(rows)) > 0)
            self._teller.read("rows", len(rows))
            yield self._table(rows)
            self._line += rows.line_count

    def _chunks(self) -> Iterator[bytes]:
        """Yield whole lines."""
        try:
            for text, too_long in whole_lines(self._member.blocks(), CHUNK_BYTES):
                self.read_bytes += len(text)
                if too_long:
                    self._tell(0, f"longer than {MAX_LINE_BYTES} bytes", text)
                    self._line += 1
                else:
                    yield text
        except DamagedError as error:
            at = f"{self._line}: the file is damaged from here on: {error}"
            self.first_broken = self.first_broken or at
            self._teller.damaged(f"{self._at}:{self._line}", str(error))

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

    def _table(self, rows: Rows) -> Table:  # noqa: C901 - one branch an optional column
        layout, columns = self._layout, self._columns
        width = max([*columns.values(), *self._where]) + 1
        self._leave_out(rows, rows.unclosed, "a quote that is not closed on its line")
        self._leave_out(rows, rows.widths < width, f"fewer than {width} columns")
        for column, where in self._where.items():
            codes, names = texts(rows.column(column))
            keep = where.keeps(names)[codes]
            if not keep.all():
                filtered = int((~keep).sum())
                self._teller.events({"filtered": filtered})
                self._teller.passed({NOT_KEPT: filtered})
                rows.keep(keep)
        scale = layout.keys.price_scale
        values: dict[str, NDArray[Any]] = {}
        broken, reasons = np.zeros(len(rows), bool), np.zeros(len(rows), np.int64)
        culprits = np.full(len(rows), -1)  # the column that is to blame, -1: the row as a whole
        rounded = 0

        def blame(mask: NDArray[np.bool_], reason: int, column: str = "") -> None:
            reasons[mask & ~broken] = reason
            culprits[mask & ~broken] = columns.get(column, -1)
            np.logical_or(broken, mask, out=broken)

        def numbers_of(name: str) -> Fields:
            found = rows.column(columns[name])
            return pointed(found) if layout.keys.decimal == "," else found

        time = numbers_of("time") if layout.moments.counted else rows.column(columns["time"])
        if self._looking and self._day_ns is not None and layout.moments.is_hhmmss(time):
            raise ConfigError(
                f"time: {layout.keys.time!r} counts from midnight, and {time.text(0)!r} is a clock; use "
                f"{layout.moments.suggestion(time.text(0))}"
            )
        time_ns, wrong = layout.moments.read(
            time,
            rows.column(columns["date"]) if "date" in columns else None,
            rows.column(columns["millisecond"]) if "millisecond" in columns else None,
            self._day_ns,
        )
        for code, reason in TIME_REASONS.items():
            blame(wrong == code, reason, TIME_COLUMNS.get(code, ""))
        sides = (("bid", "bid_px", "bid_sz"), ("ask", "ask_px", "ask_sz"), ("price", "price", "size"))
        for name, px, sz in sides:
            if name not in columns:
                continue
            numbers = prices(numbers_of(name), DECIMALS, scale)
            rounded += numbers.rounded - int(np.count_nonzero(numbers.vanished))
            size_name = layout.size_column(name)
            if size_name is not None:
                values[sz], bad = sizes(numbers_of(size_name))
            else:
                values[sz], bad = np.full(len(rows), layout.keys.default_size), np.zeros(len(rows), bool)
            # What stands for the price of a side without size says nothing.
            priced = bad | (values[sz] > 0) | (name == "price")
            blame(numbers.broken & priced, 3, name)
            blame(numbers.vanished & priced, 6, name)
            blame(bad, 4, size_name or "")
            values[sz] = np.where(layout.absent(name, numbers.values, numbers.missing), 0, values[sz])
            values[px] = np.where(values[sz] > 0, numbers.values, 0)
        conditions: Conditions | None = None
        if not layout.quotes:
            blame(values["size"] == 0, 5)
            told_sides = sides_of(columns, layout.sides, lambda name: texts(rows.column(columns[name])))
            if "trade_id" in columns:
                values["trade_id"] = ids(rows.column(columns["trade_id"]))
            if "condition" in columns:
                conditions = conditions_of(*texts(rows.column(columns["condition"])))
        named: dict[str, tuple[NDArray[np.int64], list[str]]] = {}
        for name, reason in (("symbol", 7), ("exchange", 10)):
            if name in columns:
                codes, names = named[name] = texts(rows.column(columns[name]))
                blame(np.array(["\ufffd" in name for name in names], bool)[codes], reason)
        if not layout.quotes:
            values["side"] = np.full(len(rows), UNKNOWN_SIDE, np.uint8)
            if told_sides is not None:
                values["side"][~broken] = told_sides.told(~broken, self._teller, self._at)
            if conditions is not None:
                values["cond"] = conditions.values
                conditions.tell(~broken, self._teller, self._at)
        if broken.any():
            for row in np.flatnonzero(broken).tolist():
                culprit = int(culprits[row])
                field = rows.column(culprit).text(row) if culprit >= 0 else ""
                reason = int(reasons[row])
                text = REASONS[reason] + self._hints.hint(reason, field or time.text(row))
                if culprit >= 0 and rows.widths[row] > 1:
                    text += f": '{shown(field, SHOWN_FIELD)}', of the row"
                self._tell(int(rows.lines[row]), text, rows.row(row))
            time_ns, values = time_ns[~broken], {name: v[~broken] for name, v in values.items()}
            named = {name: (codes[~broken], names) for name, (codes, names) in named.items()}
        self._teller.events({"rounded_price": rounded})
        return Table(time_ns, named.get("symbol"), named.get("exchange"), values)

    def _leave_out(self, rows: Rows, bad: NDArray[np.bool_], reason: str) -> None:
        if bad.any():
            for row in np.flatnonzero(bad).tolist():
                self._tell(int(rows.lines[row]), reason, rows.row(row))
            rows.keep(~bad)

    def _tell(self, offset: int, reason: str, text: bytes | None = None) -> None:
        if not self.first_broken:
            there = "" if text is None else f": {shown(text)}"
            self.first_broken = f"{self._line + offset}: {reason}{there}"
        self._teller.broken(f"{self._at}:{self._line + offset}", reason, text=text)
