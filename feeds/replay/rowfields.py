"""Record fields from the columns of a chunk of rows, the same for delimited text and Parquet.

A :class:`Chunk` reads cells in its format. :class:`RowFields` decides which columns make which field of
QUOTE or TRADE, and which rows are faulty.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np

from marketfeed.core.records import UNKNOWN_SIDE
from marketfeed.feeds.replay.columns import Layout, Table
from marketfeed.feeds.replay.conditions import Conditions, conditions_of
from marketfeed.feeds.replay.words import Sides, sides_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from marketfeed.feeds.replay.fields import Ints, Mask, Numbers, Texts
    from marketfeed.feeds.replay.recording import Reporter

# Price column, and the record fields of its price and size.
PRICE_COLUMNS: Final = (("bid", "bid_px", "bid_sz"), ("ask", "ask_px", "ask_sz"), ("price", "price", "size"))


class Fault(enum.Enum):
    """Why a row is left out."""

    NO_TIME = enum.auto()
    TIME_TOO_EARLY = enum.auto()
    TIME_BEYOND_DAY = enum.auto()
    NO_DATE = enum.auto()
    NO_PRICE = enum.auto()
    PRICE_TOO_FINE = enum.auto()  # not 0, and rounds to 0
    NO_SIZE = enum.auto()
    TRADE_WITHOUT_PRICE = enum.auto()
    TRADE_WITHOUT_SIZE = enum.auto()
    SYMBOL_NOT_UTF8 = enum.auto()
    EXCHANGE_NOT_UTF8 = enum.auto()


class Faulty(NamedTuple):
    """The rows with one fault in one column, a key of ``columns``."""

    rows: Mask  # (k,)
    column: str
    fault: Fault


class Chunk(Protocol):
    """The cells of a chunk of k rows; columns go by their keys in ``columns``. No method counts or logs."""

    def times(self) -> tuple[Ints, list[Faulty]]:
        """Return times in nanoseconds since the epoch, and the rows without one."""
        ...

    def prices(self, column: str) -> Numbers:
        """Return prices in units of 1e-9; vanished prices do not count as rounded."""
        ...

    def sizes(self, column: str) -> tuple[NDArray[np.float64], Mask]:
        """Return sizes, 0 for empty cells, and which cells are broken."""
        ...

    def ids(self, column: str) -> NDArray[np.uint64]:
        """Return trade ids, 0 for none."""
        ...

    def texts(self, column: str) -> Texts:
        """Return the cells as texts."""
        ...


class RowFields:
    """Record fields of all rows of a chunk, faulty ones included.

    Construction reads every cell, and may raise what ``chunk`` raises. Only :meth:`table` counts and logs,
    so a chunk that cannot be read has reported no row.
    """

    def __init__(self, layout: Layout, chunk: Chunk) -> None:
        self._layout = layout
        self._chunk = chunk
        self._values: dict[str, NDArray[Any]] = {}
        self._names: dict[str, Texts] = {}
        self._sides: Sides | None = None
        self._conditions: Conditions | None = None
        self.rounded = 0  # prices finer than 1e-9
        self.time_ns, self._faulty = chunk.times()
        for column, price_field, size_field in PRICE_COLUMNS:
            if column in layout.wanted:
                self._read_price(column, price_field, size_field)
        if not layout.quotes:
            self._read_trade_details()
        for column, fault in (("symbol", Fault.SYMBOL_NOT_UTF8), ("exchange", Fault.EXCHANGE_NOT_UTF8)):
            if column in layout.wanted:
                names = self._names[column] = chunk.texts(column)
                self._blame(names.broken, column, fault)
        self.faulty: Mask = np.logical_or.reduce([found.rows for found in self._faulty])

    def first_fault(self, row: int) -> Faulty:
        """Return the first fault of a faulty row."""
        return next(found for found in self._faulty if found.rows[row])

    def table(self, keep: Mask, reporter: Reporter, at: str) -> Table:
        """Return the rows in ``keep``, none of them faulty; counts rounded prices and unknown words."""
        reporter.events({"rounded_price": self.rounded})
        values, time_ns = self._values, self.time_ns
        names = {column: (texts.codes, texts.names) for column, texts in self._names.items()}
        if not self._layout.quotes:
            values = {**values, "side": np.full(len(keep), UNKNOWN_SIDE, np.uint8)}
            if self._sides is not None:
                values["side"][keep] = self._sides.resolved(keep, reporter, at)
            if self._conditions is not None:
                self._conditions.report(keep, reporter, at)
        if not keep.all():
            time_ns = time_ns[keep]
            values = {field: column[keep] for field, column in values.items()}
            names = {column: (codes[keep], known) for column, (codes, known) in names.items()}
        return Table(time_ns, names.get("symbol"), names.get("exchange"), values)

    def _blame(self, rows: Mask, column: str, fault: Fault) -> None:
        self._faulty.append(Faulty(rows, column, fault))

    def _read_price(self, column: str, price_field: str, size_field: str) -> None:
        """Read one of PRICE_COLUMNS and its sizes."""
        trade = column == "price"
        numbers = self._chunk.prices(column)
        self.rounded += numbers.rounded
        size_column = self._layout.size_column(column)
        if size_column is not None:
            sizes, bad = self._chunk.sizes(size_column)
        else:
            size_column = column
            sizes = np.full(len(numbers.values), self._layout.keys.default_size)
            bad = np.zeros(len(sizes), bool)
        # The price of a side without size is a placeholder: whatever it is, it is no fault.
        priced = bad | (sizes > 0) | trade
        self._blame(numbers.broken & priced, column, Fault.NO_PRICE)
        self._blame(numbers.vanished & priced, column, Fault.PRICE_TOO_FINE)
        self._blame(bad, size_column, Fault.NO_SIZE)
        absent = self._layout.absent(column, numbers.values, numbers.missing)
        if trade:
            self._blame(absent, column, Fault.TRADE_WITHOUT_PRICE)
            self._blame(sizes == 0, size_column, Fault.TRADE_WITHOUT_SIZE)
        sizes = np.where(absent, 0, sizes)
        self._values[size_field] = sizes
        self._values[price_field] = np.where(sizes > 0, numbers.values, 0)

    def _read_trade_details(self) -> None:
        layout, chunk = self._layout, self._chunk
        self._sides = sides_of(layout.wanted, layout.sides, lambda column: chunk.texts(column)[:2])
        if "trade_id" in layout.wanted:
            self._values["trade_id"] = chunk.ids("trade_id")
        if "condition" in layout.wanted:
            self._conditions = conditions_of(*chunk.texts("condition")[:2])
            self._values["cond"] = self._conditions.values
