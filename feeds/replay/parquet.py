"""Recordings as Parquet: any types that hold times, prices and sizes, by the names of columns.

Times are timestamps, dates, or integers in the unit ``time``. Prices are decimals and 128-bit fixed point
(exact), integers with ``price_scale``, or floats, each read as the decimal that it stands for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from marketfeed.core.records import UNKNOWN_SIDE
from marketfeed.errors import ConfigError
from marketfeed.feeds.replay.arrow import Cells, Texts, refuse_column
from marketfeed.feeds.replay.columns import Builder, Layout, Table, TableKeys, ticks_of
from marketfeed.feeds.replay.conditions import Conditions, conditions_of
from marketfeed.feeds.replay.recording import (
    LOGGED,
    NOT_KEPT,
    Decoded,
    Symbol,
    Teller,
    needs,
    shown,
    unreadable,
)
from marketfeed.feeds.replay.words import sides_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

BATCH_ROWS: Final = 4096
LOOK_BATCHES: Final = 4  # in which there should be a tick; decoded within about 20 ms
_SIDES: Final = (("bid", "bid_px", "bid_sz"), ("ask", "ask_px", "ask_sz"), ("price", "price", "size"))


class Parquet:
    """One Parquet file. One that was cut short has lost its footer, and nobody can read it."""

    def __init__(
        self, path: Path, keys: TableKeys, symbol: Symbol, teller: Teller, alone: bool = True
    ) -> None:
        """Look at the schema, and for a tick unless it is one of several files; raises ConfigError."""
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise needs("pyarrow", "parquet", "format: parquet") from None
        self._pa, self._pq = pyarrow, pyarrow.parquet
        self._path, self._symbol, self._teller = path, symbol, teller
        self._layout = Layout(keys, "parquet")
        self._hints = 0  # rows that were told of with a way to read their times
        self._cells = Cells(pyarrow, keys, self._layout.zone, self._layout.moments)
        if keys.header or keys.delimiter != "," or keys.decimal != ".":
            raise ConfigError("header, delimiter, decimal: only with format csv")
        self._groups = self._layout.groups(path.name)
        try:
            with self._open() as file:
                schema = file.schema_arrow
                names = list(schema.names)
        except OSError as error:
            if error.errno is None:  # of Arrow itself: it could not make sense of what it read
                raise self._no_parquet(error) from None
            raise unreadable(path, error) from None
        except Exception as error:  # of whatever class: Arrow has many, and bindings that raise Python's own
            raise self._no_parquet(error) from None
        roles = [*self._layout.wanted.items(), *(("where", column) for column in self._layout.where)]
        self._names = [str(column) for _, column in roles]
        for role, column in roles:
            if names.count(str(column)) != 1:
                has = shown(", ".join(names), 200)
                count = "no column" if str(column) not in names else "more than one column"
                raise ConfigError(f"columns: {count} {str(column)!r} in {path}; it has {has}")
            refuse_column(self._cells, role, str(column), schema.field(str(column)).type, path)
        if alone:
            self._refuse_without_ticks()

    def _refuse_without_ticks(self) -> None:
        """Raise ConfigError if all rows of a short file were read, and no tick is in it."""
        told, self._teller = self._teller, Teller(None)
        try:
            for number, table in enumerate(self._tables()):
                if len(table.time_ns) or self._teller.damage or number == LOOK_BATCHES:
                    return
            if not self._teller.damage:
                raise ConfigError(f"path: {self._path}: no tick in it: {self._teller.account()}")
        finally:
            self._teller, self._hints = told, 0

    def chunks(self) -> Iterator[Decoded]:
        """Yield the rows in order of the file."""
        builder = Builder(self._layout, self._groups, self._symbol, {})
        return ticks_of(self._layout, (builder.records(table) for table in self._tables()))

    def _open(self) -> Any:
        return self._pq.ParquetFile(self._path, page_checksum_verification=True)

    def _no_parquet(self, error: Exception) -> ConfigError:
        return ConfigError(f"path: {self._path} is no whole Parquet file: {_said(error)}")

    def _tables(self) -> Iterator[Table]:
        day_ns, at = self._layout.day_ns(self._groups), 0
        with self._open() as file:
            # By the row group: of one that is damaged nothing can be read, of those before it everything.
            for group in range(file.metadata.num_row_groups):
                batches = file.iter_batches(BATCH_ROWS, [group], sorted(set(self._names)), use_threads=False)
                while True:
                    try:
                        batch = next(batches, None)
                    except Exception as error:  # as when it was opened
                        self._teller.damaged(f"{self._path}:{at}", _said(error), "record")
                        return
                    if batch is None:
                        break
                    self._teller.read("rows", batch.num_rows)
                    yield from self._decoded(batch, day_ns, at)
                    at += batch.num_rows

    def _decoded(self, batch: Any, day_ns: int | None, first_row: int) -> Iterator[Table]:
        """Yield the rows of ``batch``; what cannot be decoded as a whole is halved, down to the row."""
        halves = [(batch, first_row)]
        while halves:
            part, at = halves.pop()
            try:
                table = self._table(part, day_ns, at)
            except Exception as error:
                if part.num_rows <= 1:
                    self._teller.broken(f"{self._path}:{at}", _said(error), "record")
                else:
                    middle = part.num_rows // 2
                    halves += [(part.slice(middle), at + middle), (part.slice(0, middle), at)]
                table = self._table(part.slice(0, 0), day_ns, at)
            yield table

    def _table(self, batch: Any, day_ns: int | None, first_row: int) -> Table:  # noqa: C901 - one branch an optional column
        layout, cells = self._layout, self._cells
        columns = {name: cells.plain(batch.column(str(column))) for name, column in layout.wanted.items()}
        rows = np.ones(batch.num_rows, bool)
        for column, where in layout.where.items():
            found = cells.texts(cells.plain(batch.column(str(column))))
            rows &= where.keeps(found.names)[found.codes]
        values: dict[str, NDArray[Any]] = {}
        time_ns, bad = cells.times(columns["time"], day_ns, columns.get("date"), columns.get("millisecond"))
        blamed: list[tuple[NDArray[np.bool_], str, str]] = [(bad, "time", "no time")]
        rounded = 0
        for name, px, sz in _SIDES:
            if name not in columns:
                continue
            empty, prices, bad, inexact = cells.prices(columns[name])
            rounded += inexact
            size_name = layout.size_column(name)
            sizes, bad_size = np.full(len(prices), layout.keys.default_size), np.zeros(len(prices), bool)
            if size_name is not None:
                sizes, bad_size = cells.sizes(columns[size_name])
            # What stands for the price of a side without size says nothing.
            bad = bad & (bad_size | (sizes > 0) | (name == "price"))
            blamed += [(bad, name, "no price"), (bad_size, size_name or name, "no size")]
            bad = bad | bad_size
            absent = layout.absent(name, prices, empty)
            if name == "price":
                blamed.append((absent, name, "a trade without price"))
                blamed.append((sizes == 0, size_name or name, "a trade without size"))
            values[sz] = np.where(absent | bad, 0, sizes)
            values[px] = np.where(values[sz] > 0, prices, 0)
        sides = sides_of(layout.wanted, layout.sides, lambda name: cells.texts(columns[name])[:2])
        if not layout.quotes and "trade_id" in columns:
            values["trade_id"] = cells.ids(columns["trade_id"])
        conditions: Conditions | None = None
        if not layout.quotes and "condition" in columns:
            conditions = conditions_of(*cells.texts(columns["condition"])[:2])
            values["cond"] = conditions.values
        # All that may fail comes before anything is told, so that no row is told of twice.
        texts: dict[str, Texts] = {}
        for name in ("symbol", "exchange"):
            if name in columns:
                texts[name] = cells.texts(columns[name])
                blamed.append((texts[name].broken, name, "no UTF-8"))
        broken = np.logical_or.reduce([mask for mask, _, _ in blamed]) & rows
        for row in np.flatnonzero(broken).tolist():
            name, what = next((name, what) for mask, name, what in blamed if mask[row])
            column = f"{layout.wanted[name]}: {cells.shown(columns[name], row)}"
            if name == "time" and self._hints < LOGGED:
                self._hints += 1
                suggestion = layout.moments.suggestion(cells.shown(columns[name], row).strip("'"))
                if suggestion:
                    column += f" (read by {layout.moments.configured()}); use {suggestion}"
            self._teller.broken(f"{self._path}:{first_row + row}", f"{what}: {column}", "record")
        filtered = int((~rows).sum())
        self._teller.events({"rounded_price": rounded, "filtered": filtered})
        self._teller.passed({NOT_KEPT: filtered} if filtered else {})
        keep = rows & ~broken
        kept = {name: (found.codes[keep], found.names) for name, found in texts.items()}
        values = {name: column[keep] for name, column in values.items()}
        if not layout.quotes:
            values["side"] = np.full(int(keep.sum()), UNKNOWN_SIDE, np.uint8)
            if sides is not None:
                values["side"] = sides.told(keep, self._teller, str(self._path))
            if conditions is not None:
                conditions.tell(keep, self._teller, str(self._path))
        return Table(time_ns[keep], kept.get("symbol"), kept.get("exchange"), values)


def _said(error: Exception) -> str:
    return shown(str(error).partition("\n")[0].encode("utf-8", "replace"), 200) or type(error).__name__
