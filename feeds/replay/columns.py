"""Configuration of the formats ``csv`` and ``parquet``, and conversion of table columns to ticks.

A table with ``bid`` or ``ask`` holds quotes, a table with ``price`` trades; none holds both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from marketfeed.core.fixed import DECIMALS
from marketfeed.core.records import QUOTE, QUOTES, TRADE, TRADES, Batch, Records
from marketfeed.core.symbols import SYMBOL_WORDS, is_symbol
from marketfeed.errors import ConfigError, gathered
from marketfeed.feeds.replay.bbo import Merge
from marketfeed.feeds.replay.fields import TEXT_BYTES, fixed_from_text
from marketfeed.feeds.replay.moments import Moments, date_of
from marketfeed.feeds.replay.recording import Decoded, Symbol, symbol_name
from marketfeed.feeds.replay.times import clock_ns
from marketfeed.feeds.replay.words import Where, WhereValue, side_words, where_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Column = Annotated[int, Meta(ge=0, le=1000)] | str
TimedRecords = tuple[Records, NDArray[np.int64]]  # ticks of one channel and their recorded times
MAX_ROWS: Final = 4096  # per yielded batch
NO_SYMBOL: Final = 1 << 16  # above every id


class Columns(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``columns = {…}``: the column of each value, by number from 0 or by name in the header."""

    time: Column
    date: Column | None = None  # of the time of day in `time`
    millisecond: Column | None = None  # added to the second in `time`
    symbol: Column | None = None
    exchange: Column | None = None
    bid: Column | None = None
    bid_size: Column | None = None
    ask: Column | None = None
    ask_size: Column | None = None
    price: Column | None = None
    size: Column | None = None
    side: Column | None = None  # of the aggressor: b, buy, s, sell …
    buyer_maker: Column | None = None  # true or 1: the buyer was the maker, the aggressor sold
    trade_id: Column | None = None
    condition: Column | None = None  # one to four letters, each a condition


class TableKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Keys of the formats ``csv`` and ``parquet``."""

    columns: Columns | None = None
    symbol: str | None = None  # a name or a template of {symbol}, {exchange} and groups of `member`
    member: str | None = None  # regular expression on names of files; selects members of a .zip
    header: bool = False
    delimiter: Annotated[str, Meta(min_length=1, max_length=1)] = ","
    time: Literal["s", "ms", "us", "ns", "iso"] = "ns"
    time_format: str | None = None  # such as %d.%m.%Y %H:%M:%S.%f; replaces `time`
    date_format: str | None = None  # strptime format of columns.date or of the group `day` of `member`
    day: date | None = None  # times count from midnight of this day
    decimal: Literal[".", ","] = "."  # decimal point of numbers
    zone: str = "UTC"
    price_scale: Annotated[int, Meta(ge=1, le=10**18)] = 1
    default_size: Annotated[float, Meta(gt=0, lt=1e18)] = 1.0  # without a size column
    merge: Literal["none", "exchange", "all"] = "none"
    no_price: int | float | str | None = None  # placeholder for a missing price, as in the file
    sides: dict[str, str] = {}  # word = "b", "s" or "-": meaning of the words in columns.side
    where: dict[str, WhereValue] = {}  # column = text, [texts] or { not = … }: rows to keep


@dataclass(frozen=True, slots=True)
class Table:
    """Decoded columns of one chunk, each of shape ``(k,)``. A quote's side of size 0 is missing."""

    time_ns: NDArray[np.int64]
    symbol: tuple[NDArray[np.int64], list[str]] | None  # codes and names
    exchange: tuple[NDArray[np.int64], list[str]] | None
    values: dict[str, NDArray[Any]]  # by field of QUOTE or TRADE


class Layout:
    """Validated configuration of one table; construction raises ConfigError with all mistakes."""

    def __init__(self, keys: TableKeys, format: str) -> None:
        found: list[str] = []
        if keys.columns is None:
            found.append(
                f"columns: {format} needs to know its columns, such as {{ time = 0, bid = 1, ask = 2 }}, "
                "in a [[feeds]] table; on the command line, use --feed"
            )
        self.keys = keys
        self.columns = columns = keys.columns or Columns(time=0)
        self.quotes = columns.bid is not None or columns.ask is not None
        self.dtype = QUOTE if self.quotes else TRADE
        self.wanted = {
            name: column for name, column in msgspec.structs.asdict(columns).items() if column is not None
        }
        self.where: dict[int | str, Where] = {}
        for key, value in keys.where.items():
            with gathered(found):
                column = int(key) if key.isdecimal() and len(key) < 4 else key
                self.where[column] = where_of(key, value, TEXT_BYTES)
        self._no_price: int | None = None
        with gathered(found):
            self._no_price = None if keys.no_price is None else _number(str(keys.no_price), keys.price_scale)
        with gathered(found):
            self.sides = side_words(keys.sides)
        with gathered(found):
            self.member = pattern(keys.member)
            groups = dict.fromkeys(self.member.groupindex, "X") if self.member else {}
            with gathered(found):
                self.zone = _zone(keys.zone)
                if keys.columns is not None:
                    self.moments = Moments(keys, self.zone, "day" in groups)
            self.template = keys.symbol or ("" if columns.symbol is None else "{symbol}")
            if self.template:
                with gathered(found):
                    self._check_template(groups)
        if not keys.delimiter.isascii() or keys.delimiter in '"\r\n':
            found.append(
                f"delimiter: one ASCII character except quotes and line ends, not {keys.delimiter!r}"
            )
        if keys.decimal == keys.delimiter:
            found.append(f"decimal: {keys.decimal!r} is the delimiter")
        if keys.columns is not None:
            found += self._column_mistakes()
        if found:
            raise ConfigError(*found)

    def _column_mistakes(self) -> Iterator[str]:
        """Yield conflicts between columns, and between columns and other keys."""
        keys, columns = self.keys, self.columns
        if self.quotes == (columns.price is not None):
            yield "columns: either bid and ask, or price; not both"
        beside = {"bid_size": "bid", "ask_size": "ask", "size": "price", "condition": "price"}
        for column, price in beside.items():
            if getattr(columns, column) is not None and getattr(columns, price) is None:
                yield f"columns.{column}: needs columns.{price}"
        if keys.sides and columns.side is None:
            yield "sides: needs columns.side"
        if not keys.symbol and columns.symbol is None:
            yield "symbol: set a name for all rows, or columns.symbol"
        if keys.merge != "none" and not self.quotes:
            yield f"merge: {keys.merge!r} merges quotes; this table holds trades"
        if keys.merge == "exchange" and columns.exchange is None:
            yield f"merge: {keys.merge!r} needs columns.exchange"

    def _check_template(self, groups: dict[str, str]) -> None:
        """Raise ConfigError if the template yields no valid symbol; ``groups`` are those of ``member``."""
        merge, columns = self.keys.merge, self.columns
        if merge == "exchange" and columns.exchange is not None and "{exchange" not in self.template:
            raise ConfigError(
                "symbol: with merge = 'exchange' it must contain {exchange}, such as 'IBM.{exchange}'"
            )
        if merge == "all" and "{exchange" in self.template:
            raise ConfigError("symbol: with merge = 'all' quotes have no {exchange}")
        shortest = self.name(
            groups, "X" if columns.symbol is not None else None, "X" if columns.exchange else None
        )
        if not is_symbol(shortest):
            raise ConfigError(f"symbol: {self.template!r} yields no valid symbol: {SYMBOL_WORDS}")

    def size_column(self, price: str) -> str | None:
        """Return the size column of the price column ``price`` (bid, ask or price), None if there is none."""
        name = "size" if price == "price" else f"{price}_size"
        return name if name in self.wanted else None

    def absent(self, price: str, prices: NDArray[np.int64], empty: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the mask of missing prices: empty cells and cells that hold ``no_price``.

        0 is a valid price, with one exception: if rows are merged and the side has no size column, 0
        means no price by default, because nothing else shows which side a row has.
        """
        none = self._no_price
        if none is None and self.keys.merge != "none" and self.size_column(price) is None:
            none = 0
        return empty if none is None else empty | (prices == none)

    def day_ns(self, groups: dict[str, str]) -> int | None:
        """Return the day that times count from, in the form of :func:`clock_ns`; None for the epoch.

        The group ``day`` of ``member`` takes precedence over the key.
        """
        day = self.keys.day
        if self.moments.uses_day and "day" in groups:
            day = date_of(groups["day"], self.keys.date_format)
            if day is None:
                raise ConfigError(f"member: the group day matched {groups['day']!r}, which is no date")
        return None if day is None else clock_ns(day)

    def groups(self, name: str) -> dict[str, str]:
        """Return the groups that ``member`` matches in a file name; empty if it does not match."""
        match = self.member.search(name) if self.member else None
        return {k: v or "" for k, v in match.groupdict().items()} if match else {}

    def name(self, groups: dict[str, str], symbol: str | None, exchange: str | None) -> str:
        """Return the symbol made of the template; raises ConfigError for an unknown placeholder."""
        known = dict(groups)
        if symbol is not None:
            known["symbol"] = symbol
        if exchange is not None:
            known["exchange"] = exchange
        try:
            return symbol_name(self.template.format_map(known))
        except (KeyError, ValueError, IndexError, AttributeError, TypeError):
            may = ", ".join(f"{{{key}}}" for key in known) or "no placeholder"
            raise ConfigError(f"symbol: {self.template!r} may contain {may}") from None


def _number(text: str, scale: int) -> int:
    found = fixed_from_text(text, DECIMALS, scale)
    if found is None:
        raise ConfigError(f"no_price: {text!r} is no valid price")
    return found[0]


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise ConfigError(
            f"zone: {name!r} is not a time zone known on this machine, such as America/New_York"
        ) from None


def pattern(text: str | None) -> re.Pattern[str] | None:
    """Compile the key ``member``; raises ConfigError."""
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise ConfigError(f"member: not a regular expression: {error}") from None


class Builder:
    """Builder of records from the tables of one file. ``exchanges`` numbers the exchanges of all files."""

    def __init__(
        self, layout: Layout, groups: dict[str, str], symbol: Symbol, exchanges: dict[str, int]
    ) -> None:
        self._layout = layout
        self._groups = groups
        self._symbol = symbol
        self._ids: dict[tuple[str | None, str | None], int] = {}
        self._exchanges = exchanges

    def records(self, table: Table) -> TimedRecords:
        """Return ticks and their times, shape ``(m,)``, without rows whose symbol the table refuses.

        ``n`` holds the exchange's number, for :func:`ticks_of`.
        """
        count = len(table.time_ns)
        ids, exchanges = self._numbers(table, count)
        records = np.zeros(count, self._layout.dtype)
        records["ts_event"] = table.time_ns
        for name, values in table.values.items():
            records[name] = values
        records["symbol"] = ids & 0xFFFF
        records["n"] = exchanges
        keep = ids < NO_SYMBOL
        return (records, table.time_ns) if keep.all() else (records[keep], table.time_ns[keep])

    def _numbers(self, table: Table, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the symbol's id and the exchange's number of each row."""
        nobody: tuple[NDArray[np.int64], Sequence[str | None]] = (np.zeros(count, np.int64), [None])
        codes, names = table.symbol or nobody
        places, exchanges = table.exchange or nobody
        numbers = [self._exchanges.setdefault(e or "", len(self._exchanges)) for e in exchanges]
        pairs, which = np.unique(codes * len(exchanges) + places, return_inverse=True)
        ids = [self._id(names[p // len(exchanges)], exchanges[p % len(exchanges)]) for p in pairs.tolist()]
        return np.array(ids, np.int64)[which], np.array(numbers, np.int64)[places]

    def _id(self, name: str | None, exchange: str | None) -> int:
        known = self._ids.get((name, exchange))
        if known is None:
            found = self._symbol(self._layout.name(self._groups, name, exchange))
            known = self._ids[name, exchange] = NO_SYMBOL if found is None else found
        return known


def ticks_of(layout: Layout, chunks: Iterator[TimedRecords]) -> Iterator[Decoded]:
    """Yield ``chunks`` as batches of at most MAX_ROWS ticks, quotes merged as configured."""
    merge = None if layout.keys.merge == "none" else Merge(over_all=layout.keys.merge == "all")
    for records, times in chunks:
        if merge is not None:
            ticks = merge.apply(records)
            records, times = records[ticks], times[ticks]
        records["n"] = 0
        for start in range(0, max(len(records), 1), MAX_ROWS):
            part = records[start : start + MAX_ROWS]
            if layout.quotes:
                batch = Batch(quotes=part, channels=np.full(len(part), QUOTES, np.uint8))
            else:
                batch = Batch(trades=part, channels=np.full(len(part), TRADES, np.uint8))
            yield Decoded(batch, times[start : start + MAX_ROWS])
