"""Single quotes and trades as records, from values in everyday units. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from marketfeed.core.fixed import price_from_text
from marketfeed.core.records import QUOTE, TRADE

if TYPE_CHECKING:
    from decimal import Decimal

    from marketfeed.core.records import Records

    Price = float | Decimal | str


def quote_record(
    symbol: int,
    bid: Price | None,
    ask: Price | None,
    bid_size: float,
    ask_size: float,
    ts_event_ns: int,
) -> Records:
    """Return a QUOTE record, shape ``(1,)``; a side of which the price is None is missing."""
    record = np.zeros(1, QUOTE)
    record["symbol"], record["ts_event"] = symbol, ts_event_ns
    for side, price, size in (("bid", bid, bid_size), ("ask", ask, ask_size)):
        if price is not None:
            record[f"{side}_px"], record[f"{side}_sz"] = _price(price), size
    return record


def trade_record(
    symbol: int, price: Price, size: float, side: str, trade_id: int, conditions: str, ts_event_ns: int
) -> Records:
    """Return a TRADE record, shape ``(1,)``."""
    if len(side) != 1 or len(conditions) > 4:
        raise ValueError(
            f"a trade has a side of one letter and up to four conditions: {side!r}, {conditions!r}"
        )
    record = np.zeros(1, TRADE)
    record["symbol"], record["ts_event"] = symbol, ts_event_ns
    record["price"], record["size"], record["trade_id"] = _price(price), size, trade_id
    record["side"], record["cond"] = min(ord(side), 255), conditions.encode("latin-1", "replace")
    return record


def _price(price: Price) -> int:
    """Return a price in units of 1e-9, rounded half to even; raises ValueError."""
    return price_from_text(str(price))[0]
