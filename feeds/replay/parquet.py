"""Recordings as Parquet: any types that hold times, prices and sizes, by the names of columns.

Times are timestamps, or integers in the unit ``time``. Prices are decimals and 128-bit fixed point
(exact), integers with ``price_scale``, or doubles, each read as the decimal that it stands for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feeds.replay.columns import Builder, Layout, Table, TableKeys, sides_of, ticks_of
from feeds.replay.fields import fixed_from_text
from feeds.replay.recording import Decoded, Symbol, Teller, needs, unreadable
from feeds.replay.times import DECIMALS, FIRST_NS, local_to_utc_ns
from marketfeed.core.fixed import DECIMALS as PRICE_DECIMALS
from marketfeed.core.fixed import MAX_PX, SCALE
from marketfeed.errors import ConfigError

BATCH_ROWS: Final = 4096
_SIDES: Final = (("bid", "bid_px", "bid_sz"), ("ask", "ask_px", "ask_sz"), ("price", "price", "size"))


class Parquet:
    """One Parquet file. One that was cut short has lost its footer, and nobody can read it."""

    def __init__(self, path: Path, keys: TableKeys, symbol: Symbol, teller: Teller) -> None:
        """Look at the schema; raises ConfigError."""
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise needs("pyarrow", "parquet", "format: parquet") from None
        self._pa, self._pq = pyarrow, pyarrow.parquet
        self._path, self._symbol, self._teller = path, symbol, teller
        self._layout = Layout(keys, "parquet")
        if keys.member is not None or keys.header or keys.delimiter != ",":
            raise ConfigError("member, header, delimiter: only with format csv")
        try:
            with self._open() as file:
                schema = file.schema_arrow
        except pyarrow.ArrowInvalid as error:
            why = str(error).partition("\n")[0]
            raise ConfigError(f"path: {path} is no whole Parquet file: {why}") from None
        except OSError as error:
            raise unreadable(path, error) from None
        self._names = [str(c) for c in [*self._layout.wanted.values(), *self._layout.where]]
        for name in self._names:
            if name not in schema.names:
                has = ", ".join(schema.names)[:200]
                raise ConfigError(f"columns: no column {name!r} in {path}; it has {has}")
        self._check_types(schema)

    def chunks(self) -> Iterator[Decoded]:
        """Yield the rows in order of the file."""
        builder = Builder(self._layout, {}, self._symbol, {})
        return ticks_of(self._layout, (builder.records(table) for table in self._tables()))

    def _open(self) -> Any:
        return self._pq.ParquetFile(self._path)

    def _check_types(self, schema: Any) -> None:
        types = self._pa.types
        for name, column in self._layout.wanted.items():
            kind = schema.field(str(column)).type
            if name == "time" and not (types.is_timestamp(kind) or types.is_integer(kind)):
                raise ConfigError(f"columns.time: {column} is {kind}; a timestamp or an integer")
            if name in ("bid", "ask", "price") and not (
                types.is_floating(kind)
                or types.is_decimal(kind)
                or types.is_integer(kind)
                or (types.is_fixed_size_binary(kind) and kind.byte_width == 16)
            ):
                raise ConfigError(
                    f"columns.{name}: {column} is {kind}; a number, a decimal or 16 bytes of fixed point"
                )

    def _tables(self) -> Iterator[Table]:
        base_ns, at = self._layout.base_ns({}), 0
        with self._open() as file:
            batches = file.iter_batches(BATCH_ROWS, columns=sorted(set(self._names)), use_threads=False)
            while True:
                try:
                    batch = next(batches, None)
                except (OSError, self._pa.ArrowException) as error:
                    why = str(error).partition("\n")[0]
                    self._teller.damaged(f"{self._path}:{at}", why, "record")
                    return
                if batch is None:
                    return
                yield self._table(batch, base_ns, at)
                at += batch.num_rows

    def _table(self, batch: Any, base_ns: int, first_row: int) -> Table:
        layout, columns = self._layout, {n: str(c) for n, c in self._layout.wanted.items()}
        rows = np.ones(batch.num_rows, bool)
        for column, text in layout.where.items():
            codes, names = self._texts(batch.column(str(column)))
            rows &= np.array([name == text for name in names], bool)[codes]
        self._teller.events({"filtered": int((~rows).sum())})
        values: dict[str, NDArray[Any]] = {}
        time_ns, broken = self._times(batch.column(columns["time"]), base_ns)
        rounded = 0
        for name, px, sz in _SIDES:
            if name not in columns:
                continue
            empty, prices, bad, inexact = self._prices(batch.column(columns[name]))
            rounded += inexact
            size_name = layout.size_column(name)
            sizes = np.full(len(prices), layout.keys.default_size)
            if size_name is not None:
                sizes = self._floats(batch.column(columns[size_name]))
            bad |= ~((sizes >= 0) & (sizes < np.inf))
            absent = layout.absent(name, prices, empty)
            if name == "price":
                bad |= absent | (sizes == 0)
            broken |= bad
            values[sz] = np.where(absent | bad, 0, sizes)
            values[px] = np.where(values[sz] > 0, prices, 0)
        if not layout.quotes:
            side = sides_of(layout, lambda name: self._texts(batch.column(columns[name])))
            values["side"] = np.full(batch.num_rows, ord("-"), np.uint8) if side is None else side
            if "trade_id" in columns:
                values["trade_id"] = self._trade_ids(batch.column(columns["trade_id"]))
        for row in np.flatnonzero(broken & rows).tolist():
            self._teller.broken(
                f"{self._path}:{first_row + row}", "a row without time, price or size", "record"
            )
        self._teller.events({"rounded_price": rounded})
        keep = rows & ~broken

        def kept(name: str) -> tuple[NDArray[np.int64], list[str]] | None:
            if name not in columns:
                return None
            codes, names = self._texts(batch.column(columns[name]))
            return codes[keep], names

        values = {name: column[keep] for name, column in values.items()}
        return Table(time_ns[keep], kept("symbol"), kept("exchange"), values)

    def _times(self, column: Any, base_ns: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        missing = _nulls(column)
        if not self._pa.types.is_timestamp(column.type):
            values = column.cast(self._pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
            unit = 10 ** DECIMALS.get(self._layout.keys.time, 0)
            missing |= np.abs(values) > MAX_PX // unit
            times = np.where(missing, 0, values) * unit + base_ns
        else:
            in_ns = column.cast(self._pa.timestamp("ns", column.type.tz), safe=False)
            times = in_ns.cast(self._pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
            if column.type.tz is None:
                times = local_to_utc_ns(times, self._layout.zone)
        return times, missing | (times < FIRST_NS)

    def _prices(self, column: Any) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.bool_], int]:
        """Return where there is no price, prices in 1e-9, which are broken, and how many were rounded.

        Broken is what does not fit, and what is not 0 and rounds to 0.
        """
        types, kind, scale = self._pa.types, column.type, self._layout.keys.price_scale
        missing = _nulls(column)
        if types.is_decimal(kind) or types.is_fixed_size_binary(kind):
            if types.is_decimal(kind):
                scale *= 10**kind.scale
                column = column.cast(self._pa.decimal128(38, kind.scale))
            words = np.frombuffer(column.buffers()[1], "<i8").reshape(-1, 2)
            words = words[column.offset : column.offset + len(column)]
            return missing, *_scaled(words[:, 0], words[:, 1], missing, scale)
        if types.is_integer(kind):
            low = column.cast(self._pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
            return missing, *_scaled(low, low >> 63, missing, scale)
        floats = column.to_numpy(zero_copy_only=False)
        missing |= np.isnan(floats)
        if floats.dtype == np.float64 and scale == 1:
            scaled = np.where(missing, 0, floats) * SCALE
            if np.all(np.abs(scaled) < 2**53):
                whole = np.rint(scaled)
                return missing, whole.astype(np.int64), (whole == 0) & (scaled != 0), 0
        prices, broken, rounded = np.zeros(len(floats), np.int64), np.zeros(len(floats), bool), 0
        for row, value in enumerate(floats):
            if missing[row]:
                continue
            found = fixed_from_text(str(value), PRICE_DECIMALS, scale)
            broken[row] = found is None or found == (0, False)
            prices[row], exact = found or (0, True)
            rounded += not exact and not broken[row]
        return missing, prices, broken, rounded

    def _floats(self, column: Any) -> NDArray[np.float64]:
        floats = column.cast(self._pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
        return np.asarray(floats, np.float64)

    def _trade_ids(self, column: Any) -> NDArray[np.uint64]:
        if not self._pa.types.is_integer(column.type):
            texts = column.cast(self._pa.string()).to_pylist()
            return np.array(
                [int(t) if t and t.isdecimal() and int(t) < 2**64 else 0 for t in texts], np.uint64
            )
        values = column.cast(self._pa.int64(), safe=False).fill_null(0).to_numpy(zero_copy_only=False)
        return np.asarray(values, np.int64).astype(np.uint64)

    def _texts(self, column: Any) -> tuple[NDArray[np.int64], list[str]]:
        column = column.cast(self._pa.string()).fill_null("").dictionary_encode()
        codes = column.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        return codes, column.dictionary.to_pylist()


def _nulls(column: Any) -> NDArray[np.bool_]:
    return np.array(column.is_null().to_numpy(zero_copy_only=False), bool)


def _scaled(
    low: NDArray[np.int64], high: NDArray[np.int64], missing: NDArray[np.bool_], scale: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_], int]:
    """Return 128-bit integers over ``scale`` in units of 1e-9, rounded half to even."""
    broken, rounded = np.zeros(len(low), bool), 0
    narrow = high == low >> 63
    up, down = (SCALE // scale, 1) if SCALE % scale == 0 else (1, scale // SCALE)
    quick = narrow & (np.abs(low) <= MAX_PX // up) & (low % down == 0)
    if scale % SCALE and SCALE % scale:
        quick[:] = False
    prices = np.where(quick & ~missing, low, 0) * up // down
    for row in np.flatnonzero(~quick & ~missing).tolist():
        wide = (int(high[row]) << 64) | (int(low[row]) & (2**64 - 1))
        price, rest = divmod(wide * SCALE, scale)
        price += 2 * rest > scale or (2 * rest == scale and price % 2)
        broken[row] = abs(price) > MAX_PX or (price == 0 and wide != 0)
        prices[row] = 0 if broken[row] else price
        rounded += rest != 0 and not broken[row]
    return prices, broken, rounded
