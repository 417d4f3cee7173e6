"""Conversion of ticks to tables for pyarrow, pandas and CSV.

Times are UTC in nanoseconds; null if the venue sent none. Prices are doubles, exact to 15 digits
(``float``), decimals of nine places (``decimal``) or integers of 1e-9 (``int``). Null are also price and
size of a missing side, an unknown aggressor side or trade id, and missing conditions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from marketfeed.core.cells import as_text
from marketfeed.core.details import valid_conditions
from marketfeed.core.fixed import DECIMALS, SCALE, floats_from_prices
from marketfeed.core.records import BUY, CHANNELS, SELL, Records
from marketfeed.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

PRICES: Final = ("float", "decimal", "int")
SIDES: Final = ("b", "s")
_DIGITS: Final = 19  # of an int64
_TIME, _SYMBOL, _PRICE, _SIZE, _SIDE = "time", "symbol", "price", "size", "side"
_COUNT, _TEXT = "count", "text"
_COMMON: Final = (("ts_event", _TIME), ("ts_recv", _TIME), ("symbol", _SYMBOL))
_LAST: Final = (("flags", _COUNT), ("n", _COUNT), ("g", _COUNT))
COLUMNS: Final = (
    (*_COMMON, ("bid_px", _PRICE), ("bid_sz", _SIZE), ("ask_px", _PRICE), ("ask_sz", _SIZE), *_LAST),
    (
        *_COMMON,
        ("price", _PRICE),
        ("size", _SIZE),
        ("side", _SIDE),
        ("trade_id", _COUNT),
        ("cond", _TEXT),
        *_LAST,
    ),
)
_SIZE_OF: Final = {"bid_px": "bid_sz", "ask_px": "ask_sz", "bid_sz": "bid_sz", "ask_sz": "ask_sz"}


class TableColumn(NamedTuple):
    """One column: its values as in the records, and a mask of nulls."""

    name: str
    kind: str
    values: NDArray[Any]  # (k,)
    null: NDArray[np.bool_]  # (k,)


def columns(records: Records, channel: str) -> Iterator[TableColumn]:
    """Yield the columns of a channel's table."""
    for name, kind in COLUMNS[CHANNELS.index(channel)]:
        values = np.ascontiguousarray(records[name])
        null = np.zeros(len(values), bool)
        if kind == _TIME or name == "trade_id":
            null = values == 0
        elif name in _SIZE_OF:
            null = records[_SIZE_OF[name]] == 0
        elif kind == _TEXT:
            values = _conditions(records)
            null = values == ""
        elif kind == _SIDE:
            null = (values != BUY) & (values != SELL)
        yield TableColumn(name, kind, values, null)


def _conditions(trades: Records) -> NDArray[np.str_]:
    """Return the valid conditions of each trade as a string, shape ``(k,)``."""
    found, rows = np.unique(valid_conditions(trades), return_inverse=True)
    texts = [letters.replace(b"\0", b"").decode("ascii") for letters in found.tolist()]
    return np.array(texts, "U4")[rows]


def arrow_table(records: Records, names: Sequence[str], channel: str, prices: str = "float") -> Any:
    """Return ticks as a pyarrow Table; the symbol is a dictionary column of ``names``."""
    pa = pyarrow()
    _check(prices)
    arrays = {column.name: _arrow(pa, column, names, prices) for column in columns(records, channel)}
    return pa.table(arrays, metadata={"marketfeed.channel": channel, "marketfeed.price": _described(prices)})


def pyarrow() -> Any:
    """Return the package pyarrow; raises RecordingError if it is not installed."""
    try:
        import pyarrow
    except ImportError:
        raise RecordingError("this needs the package pyarrow: pip install 'marketfeed[parquet]'") from None
    return pyarrow


def _check(prices: str) -> None:
    if prices not in PRICES:
        raise ValueError(f"prices must be one of {', '.join(PRICES)}, not {prices!r}")


def _described(prices: str) -> str:
    return "integers of 1e-9" if prices == "int" else "in the quote currency"


def _arrow(pa: Any, column: TableColumn, names: Sequence[str], prices: str) -> Any:
    _, kind, values, null = column
    match kind:
        case "time":
            return pa.array(values.view("M8[ns]"), pa.timestamp("ns", "UTC"), mask=null)
        case "symbol":
            codes = pa.array(values.astype(np.int32))
            return pa.DictionaryArray.from_arrays(codes, pa.array(list(names), pa.string()))
        case "side":
            codes = pa.array((values == SELL).astype(np.int8), mask=null)
            return pa.DictionaryArray.from_arrays(codes, pa.array(SIDES, pa.string()))
        case "text":
            return pa.array(values, pa.string(), mask=null)
        case "price" if prices == "float":
            return pa.array(floats_from_prices(values), mask=null)
        case "price" if prices == "decimal":
            words = np.stack([values, values >> 63], axis=1)
            valid = pa.py_buffer(np.packbits(~null, bitorder="little"))
            kind_of = pa.decimal128(_DIGITS, DECIMALS)
            return pa.Array.from_buffers(kind_of, len(values), [valid, pa.py_buffer(words)])
        case _:
            return pa.array(values, mask=null)


def pandas_frame(records: Records, names: Sequence[str], channel: str, prices: str = "float") -> Any:
    """Return ticks as a pandas DataFrame; symbol and side are categories."""
    try:
        import pandas as pd
    except ImportError:
        raise RecordingError("this needs the package pandas: pip install pandas") from None
    _check(prices)
    if prices == "decimal":
        raise ValueError("prices must be float or int: pandas has no decimals")
    frame: dict[str, Any] = {}
    for name, kind, values, null in columns(records, channel):
        match kind:
            case "time":
                times = np.where(null, np.datetime64("NaT"), values.view("M8[ns]"))
                frame[name] = pd.DatetimeIndex(times).tz_localize("UTC")
            case "symbol":
                frame[name] = pd.Categorical.from_codes(values.astype(np.int32), categories=list(names))
            case "side":
                codes = np.where(null, -1, values == SELL).astype(np.int8)
                frame[name] = pd.Categorical.from_codes(codes, categories=list(SIDES))
            case "price" if prices == "float":
                frame[name] = np.where(null, np.nan, floats_from_prices(values))
            case "text":
                frame[name] = np.array([text or None for text in values.tolist()], object)
            case "size":
                frame[name] = np.where(null, np.nan, values)
            case _ if null.any() or name == "trade_id" or kind == "price":
                frame[name] = pd.array(values, dtype=f"{'UI' if values.dtype.kind == 'u' else 'I'}nt64")
                frame[name][null] = pd.NA
            case _:
                frame[name] = values
    return pd.DataFrame(frame)


def csv_header(channel: str) -> str:
    """Return the first line of a channel's CSV."""
    return ",".join(name for name, _ in COLUMNS[CHANNELS.index(channel)]) + "\n"


def csv_rows(
    records: Records, names: Sequence[str], channel: str, prices: str = "float", raw: bool = False
) -> str:
    """Return ticks as lines of CSV: times in ISO 8601, prices as exact decimals, or integers with ``int``.

    Without ``raw``, names that spreadsheets would read as formulas get a leading ``'``.
    """
    _check(prices)
    cells = [_cells(column, names, prices, raw) for column in columns(records, channel)]
    return "".join([",".join(row) + "\n" for row in zip(*cells, strict=True)])


def _cells(column: TableColumn, names: Sequence[str], prices: str, raw: bool) -> list[str]:
    _, kind, values, null = column
    match kind:
        case "time":
            texts = [f"{text}Z" for text in np.datetime_as_string(values.view("M8[ns]"), unit="ns").tolist()]
        case "symbol":
            shown = [name if raw else as_text(name) for name in names]
            texts = [shown[number] for number in values.tolist()]
        case "side":
            texts = [chr(value) for value in values.tolist()]
        case "text":
            texts = [text if raw else as_text(text) for text in values.tolist()]
        case "price" if prices != "int":
            texts = [_decimal(value) for value in values.tolist()]
        case _:
            texts = [repr(value) for value in values.tolist()]
    for row in np.flatnonzero(null).tolist():
        texts[row] = ""
    return texts


def _decimal(price: int) -> str:
    whole, fraction = divmod(abs(price), SCALE)
    sign = "-" if price < 0 else ""
    return f"{sign}{whole}.{fraction:09d}".rstrip("0").rstrip(".") if fraction else f"{sign}{whole}"
