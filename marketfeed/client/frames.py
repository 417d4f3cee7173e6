"""Ticks as pandas DataFrames, with the columns of exported recordings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from marketfeed.client.messages import Quote, Trade
from marketfeed.core.fixed import SCALE
from marketfeed.core.records import FLAG_SNAPSHOT, QUOTE, TRADE, Records
from marketfeed.core.units import US

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_COLUMNS: Final = {
    "quotes": ("ts_event", "ts_recv", "symbol", "bid_px", "bid_sz", "ask_px", "ask_sz", "flags", "n", "g"),
    "trades": (
        "ts_event", "ts_recv", "symbol", "price", "size", "side", "trade_id", "cond", "flags", "n", "g",
    ),
}  # fmt: skip
_SIZES: Final = {"bid_px": "bid_sz", "ask_px": "ask_sz"}
NO_PANDAS: Final = "pandas is not installed: pip install pandas"


def records_of(messages: Iterable[Any], channel: str) -> tuple[Records, NDArray[np.object_]]:
    """Return the ticks of ``channel`` among ``messages`` as records, and names by their ``symbol``."""
    quotes = channel == "quotes"
    kind: type[Any] = Quote if quotes else Trade
    ticks: list[Any] = [message for message in messages if type(message) is kind]
    names: dict[str, int] = {}
    ids = [names.setdefault(tick.S, len(names)) for tick in ticks]
    records = np.zeros(len(ticks), QUOTE if quotes else TRADE)
    records["symbol"] = ids
    for column, key, scale in _FROM_QUOTE if quotes else _FROM_TRADE:
        values = [getattr(tick, key) or 0 for tick in ticks]
        records[column] = np.rint(np.array(values, float) * scale) if scale == SCALE else values
        if scale == US:
            records[column] *= US
    records["flags"] = [FLAG_SNAPSHOT * (tick.snap == 1) for tick in ticks]
    if not quotes:
        records["side"] = [ord(tick.d[:1] or "-") for tick in ticks]
        records["cond"] = ["".join(tick.c or ()).encode("latin-1", "replace") for tick in ticks]
    return records, np.array(list(names), object)


_FROM: Final = (("ts_event", "t", US), ("ts_recv", "r", US), ("n", "n", 1), ("g", "g", 1))
_FROM_QUOTE: Final = (
    *_FROM, ("bid_px", "bp", SCALE), ("bid_sz", "bs", 1), ("ask_px", "ap", SCALE), ("ask_sz", "as_", 1),
)  # fmt: skip
_FROM_TRADE: Final = (*_FROM, ("price", "p", SCALE), ("size", "s", 1), ("trade_id", "i", 1))


def frame_of(records: Records, names: NDArray[np.object_], channel: str) -> Any:
    """Return ``records``, shape ``(k,)``, of `quotes` or `trades` as a DataFrame.

    Raises ImportError if pandas is not installed, and ValueError for another channel.
    """
    if channel not in _COLUMNS:
        raise ValueError(f"channel: 'quotes' or 'trades', not {channel!r}")
    try:
        import pandas
    except ImportError:
        raise ImportError(NO_PANDAS) from None
    return pandas.DataFrame({column: _column(records, column, names) for column in _COLUMNS[channel]})


def _column(records: Records, column: str, names: NDArray[np.object_]) -> Any:
    import pandas

    values: NDArray[Any] = np.ascontiguousarray(records[column])
    match column:
        case "symbol":
            return names[values] if len(values) else np.empty(0, object)
        case "ts_event" | "ts_recv":
            return pandas.to_datetime(
                np.where(values == 0, np.iinfo(np.int64).min, values), unit="ns", utc=True
            )
        case "price":
            return values / SCALE
        case "bid_px" | "ask_px":
            return np.where(records[_SIZES[column]] == 0, np.nan, values / SCALE)
        case "side":
            return [chr(side) for side in values.tolist()]
        case "cond":
            return [cond.replace(b"\0", b"").decode("latin-1") for cond in values.tolist()]
    return values
