"""Recordings in Parquet files, with columns by name and of any type that holds times, prices or sizes.

Times are timestamps, dates, or integers in the unit ``time``. Prices are decimals or 128-bit fixed point
(exact), integers with ``price_scale``, or floats, read as their shortest decimals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from marketfeed.errors import ConfigError
from marketfeed.feeds.replay.arrow import Cells, refuse_column
from marketfeed.feeds.replay.columns import Builder, Layout, Table, TableKeys, ticks_of
from marketfeed.feeds.replay.fields import Numbers
from marketfeed.feeds.replay.recording import (
    LOGGED,
    NOT_KEPT,
    Decoded,
    Reporter,
    Symbol,
    needs,
    shown,
    unreadable,
)
from marketfeed.feeds.replay.rowfields import Fault, Faulty, RowFields

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from marketfeed.feeds.replay.fields import Ints, Mask, Texts

BATCH_ROWS: Final = 4096
PROBE_BATCHES: Final = 4  # a short file must hold a tick; decoded within about 20 ms
_REASONS: Final = {
    Fault.NO_TIME: "no time",
    Fault.NO_PRICE: "no price",
    Fault.NO_SIZE: "no size",
    Fault.TRADE_WITHOUT_PRICE: "a trade without price",
    Fault.TRADE_WITHOUT_SIZE: "a trade without size",
    Fault.SYMBOL_NOT_UTF8: "no UTF-8",
    Fault.EXCHANGE_NOT_UTF8: "no UTF-8",
}


class Parquet:
    """Source for one Parquet file. A truncated file has lost its footer and cannot be read."""

    def __init__(
        self, path: Path, keys: TableKeys, symbol: Symbol, reporter: Reporter, only_file: bool = True
    ) -> None:
        """Check the schema, and that an ``only_file`` holds a tick; raises ConfigError."""
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise needs("pyarrow", "parquet", "format: parquet") from None
        self._pa, self._pq = pyarrow, pyarrow.parquet
        self._path, self._symbol, self._reporter = path, symbol, reporter
        self._layout = Layout(keys, "parquet")
        self._hints = 0  # reported rows with a suggestion for their times
        self._cells = Cells(pyarrow, keys, self._layout.zone, self._layout.moments)
        if keys.header or keys.delimiter != "," or keys.decimal != ".":
            raise ConfigError("header, delimiter, decimal: only with format csv")
        self._groups = self._layout.groups(path.name)
        try:
            with self._open() as file:
                schema = file.schema_arrow
                names = list(schema.names)
        except OSError as error:
            if error.errno is None:  # raised by Arrow for invalid data
                raise self._no_parquet(error) from None
            raise unreadable(path, error) from None
        except Exception as error:  # Arrow raises many classes, built-in ones among them
            raise self._no_parquet(error) from None
        roles = [*self._layout.wanted.items(), *(("where", column) for column in self._layout.where)]
        self._names = [str(column) for _, column in roles]
        for role, column in roles:
            if names.count(str(column)) != 1:
                has = shown(", ".join(names), 200)
                count = "no column" if str(column) not in names else "more than one column"
                raise ConfigError(f"columns: {count} {str(column)!r} in {path}; it has {has}")
            refuse_column(self._cells, role, str(column), schema.field(str(column)).type, path)
        if only_file:
            self._refuse_without_ticks()

    def _refuse_without_ticks(self) -> None:
        """Raise ConfigError if the file is short, undamaged and without a tick."""
        reporter, self._reporter = self._reporter, Reporter(None)
        try:
            for number, table in enumerate(self._tables()):
                if len(table.time_ns) or self._reporter.damage or number == PROBE_BATCHES:
                    return
            if not self._reporter.damage:
                raise ConfigError(f"path: {self._path}: no tick in it: {self._reporter.account()}")
        finally:
            self._reporter, self._hints = reporter, 0

    def chunks(self) -> Iterator[Decoded]:
        """Yield one decoded pass, in file order."""
        builder = Builder(self._layout, self._groups, self._symbol, {})
        return ticks_of(self._layout, (builder.records(table) for table in self._tables()))

    def _open(self) -> Any:
        return self._pq.ParquetFile(self._path, page_checksum_verification=True)

    def _no_parquet(self, error: Exception) -> ConfigError:
        return ConfigError(f"path: {self._path} is not a complete Parquet file: {_one_line(error)}")

    def _tables(self) -> Iterator[Table]:
        day_ns, at = self._layout.day_ns(self._groups), 0
        with self._open() as file:
            # By row group: a damaged one cannot be read at all, those before it can.
            for group in range(file.metadata.num_row_groups):
                batches = file.iter_batches(BATCH_ROWS, [group], sorted(set(self._names)), use_threads=False)
                while True:
                    try:
                        batch = next(batches, None)
                    except Exception as error:  # see __init__
                        self._reporter.damaged(f"{self._path}:{at}", _one_line(error), "record")
                        return
                    if batch is None:
                        break
                    self._reporter.read("rows", batch.num_rows)
                    yield from self._decoded(batch, day_ns, at)
                    at += batch.num_rows

    def _decoded(self, batch: Any, day_ns: int | None, first_row: int) -> Iterator[Table]:
        """Yield the rows of ``batch``; a batch that fails is halved until single rows fail."""
        halves = [(batch, first_row)]
        while halves:
            part, at = halves.pop()
            try:
                table = self._table(part, day_ns, at)
            except Exception as error:
                if part.num_rows <= 1:
                    self._reporter.broken(f"{self._path}:{at}", _one_line(error), "record")
                else:
                    middle = part.num_rows // 2
                    halves += [(part.slice(middle), at + middle), (part.slice(0, middle), at)]
                table = self._table(part.slice(0, 0), day_ns, at)
            yield table

    def _table(self, batch: Any, day_ns: int | None, first_row: int) -> Table:
        layout, cells, reporter = self._layout, self._cells, self._reporter
        columns = {name: cells.plain(batch.column(str(column))) for name, column in layout.wanted.items()}
        rows = np.ones(batch.num_rows, bool)
        for column, where in layout.where.items():
            found = cells.texts(cells.plain(batch.column(str(column))))
            rows &= where.keeps(found.names)[found.codes]
        fields = RowFields(layout, _ArrowChunk(cells, columns, day_ns))
        broken = fields.faulty & rows
        for row in np.flatnonzero(broken).tolist():
            self._report_faulty(columns, row, fields.first_fault(row), f"{self._path}:{first_row + row}")
        filtered = int((~rows).sum())
        reporter.events({"filtered": filtered})
        reporter.passed({NOT_KEPT: filtered} if filtered else {})
        return fields.table(rows & ~broken, reporter, str(self._path))

    def _report_faulty(self, columns: dict[str, Any], row: int, found: Faulty, at: str) -> None:
        layout, name = self._layout, found.column
        cell = self._cells.shown(columns[name], row)
        text = f"{_REASONS[found.fault]}: {layout.wanted[name]}: {cell}"
        if name == "time" and self._hints < LOGGED:
            self._hints += 1
            suggestion = layout.moments.suggestion(cell.strip("'"))
            if suggestion:
                text += f" (read by {layout.moments.configured()}); use {suggestion}"
        self._reporter.broken(at, text, "record")


class _ArrowChunk:
    """Implements :class:`Chunk` for Arrow arrays, by keys of ``columns``."""

    def __init__(self, cells: Cells, columns: dict[str, Any], day_ns: int | None) -> None:
        self._cells = cells
        self._columns = columns
        self._day_ns = day_ns

    def times(self) -> tuple[Ints, list[Faulty]]:
        """Return times in nanoseconds since the epoch, and the rows without one."""
        columns = self._columns
        time_ns, bad = self._cells.times(
            columns["time"], self._day_ns, columns.get("date"), columns.get("millisecond")
        )
        return time_ns, [Faulty(bad, "time", Fault.NO_TIME)]

    def prices(self, column: str) -> Numbers:
        """Return prices in units of 1e-9; those that round to 0 are broken."""
        empty, values, broken, rounded = self._cells.prices(self._columns[column])
        return Numbers(values, empty, broken, rounded, np.zeros(len(values), bool))

    def sizes(self, column: str) -> tuple[NDArray[np.float64], Mask]:
        """Return sizes, 0 for empty cells, and which cells are broken."""
        return self._cells.sizes(self._columns[column])

    def ids(self, column: str) -> NDArray[np.uint64]:
        """Return trade ids, 0 for none."""
        return self._cells.ids(self._columns[column])

    def texts(self, column: str) -> Texts:
        """Return the cells as texts."""
        return self._cells.texts(self._columns[column])


def _one_line(error: Exception) -> str:
    return shown(str(error).partition("\n")[0].encode("utf-8", "replace"), 200) or type(error).__name__
