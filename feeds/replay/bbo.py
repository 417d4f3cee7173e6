"""Merges quotes of one side or one exchange into full quotes; a side that a row omits keeps its last value.

``exchange``: each exchange has its own bid and offer, and each row is a tick of
that exchange. ``all``: the best bid and offer over all exchanges, with the
total size at that price; a row that changes neither is no tick.
With ``whole`` rows, each row states both sides of its exchange: a missing
side has been withdrawn.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from marketfeed.core.records import QUOTE, Records

Ints = NDArray[np.int64]
_SIDES: Final = (("bid_px", "bid_sz"), ("ask_px", "ask_sz"))


class Merge:
    """Last bid and offer per symbol, and per exchange when exchanges are merged."""

    def __init__(self, over_all: bool, whole: bool = False) -> None:
        self._over_all = over_all
        self._whole = whole
        # By symbol: the last quote per exchange, shape (exchanges,), and the best, shape (1,).
        self._last: dict[int, Records] = {}
        self._best: dict[int, Records] = {}

    def apply(self, records: Records) -> NDArray[np.bool_]:
        """Complete QUOTE ``records`` in place and return which are ticks; ``n`` holds the exchange number."""
        ticks = np.ones(len(records), bool)
        ids = records["symbol"]
        order = np.argsort(ids, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(ids[order])) + 1):
            if not len(rows):
                continue
            symbol = int(ids[rows[0]])
            mine = records[rows]
            if self._over_all:
                ticks[rows] = self._consolidate(symbol, mine)
            else:
                self._carry(symbol, mine)
            records[rows] = mine
        return ticks

    def _carry(self, symbol: int, rows: Records) -> None:
        last = self._last.setdefault(symbol, np.zeros(1, QUOTE))
        for px, sz in _SIDES:
            rows[px], rows[sz] = _filled(rows[px], rows[sz], rows[sz] > 0, last[px][0], last[sz][0])
        last[:] = rows[-1:]

    def _consolidate(self, symbol: int, rows: Records) -> NDArray[np.bool_]:
        exchanges = rows["n"].astype(np.int64)
        last = self._last.get(symbol, np.zeros(0, QUOTE))
        count = max(int(exchanges.max()) + 1, len(last))
        last = np.concatenate([last, np.zeros(count - len(last), QUOTE)])
        best = self._best.setdefault(symbol, np.zeros(1, QUOTE))
        changed = np.zeros(len(rows), bool)
        for px, sz in _SIDES:
            prices = np.empty((count, len(rows)), np.int64)
            sizes = np.empty((count, len(rows)), np.float64)
            for number in range(count):
                own = exchanges == number
                news = own if self._whole else own & (rows[sz] > 0)
                prices[number], sizes[number] = _filled(
                    rows[px], rows[sz], news, last[px][number], last[sz][number]
                )
            last[px], last[sz] = prices[:, -1], sizes[:, -1]
            worst = np.iinfo(np.int64).min if px == "bid_px" else np.iinfo(np.int64).max
            prices = np.where(sizes > 0, prices, worst)
            top = prices.max(axis=0) if px == "bid_px" else prices.min(axis=0)
            size = np.where(prices == top, sizes, 0).sum(axis=0)
            rows[px], rows[sz] = np.where(size > 0, top, 0), size
            for name in (px, sz):
                changed |= rows[name] != np.concatenate([best[name], rows[name][:-1]])
        self._last[symbol] = last
        best[:] = rows[-1:]
        return changed


def _filled(
    px: Ints, sz: NDArray[np.float64], news: NDArray[np.bool_], last_px: np.int64, last_sz: np.float64
) -> tuple[Ints, NDArray[np.float64]]:
    """Return price and size of one side, carried forward over rows where ``news`` is False."""
    at = np.where(news, np.arange(len(sz)), -1)
    at = np.maximum.accumulate(at)
    return np.where(at >= 0, px[at], last_px), np.where(at >= 0, sz[at], last_sz)
