"""A small invented market for screenshots: stocks, currencies and coins, each with a tick size and rhythm.

    Market.run() ──► quotes and trades, 20 batches a second ──► push feed "venues"
                 └─► four slow symbols, until `pause` is set  ──► push feed "otc", which then is stale

One symbol is halted, one comes with the venue's time 15 minutes ago, one falls silent. Prices are invented.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import numpy as np

from marketfeed.client import publisher
from marketfeed.core.records import BUY, QUOTE, SELL, TRADE

if TYPE_CHECKING:
    from collections.abc import Iterator

STEP_S: Final = 0.05
UNIT: Final = 1_000_000_000
LATE_NS: Final = 15 * 60 * UNIT
# Name, first price, decimals, ticks a second, size of a lot.
STOCKS: Final = """
    AAPL 231.40 2 160 100|MSFT 428.15 2 120 100|NVDA 138.62 2 220 100|AMZN 201.77 2 95 100
    GOOGL 172.90 2 80 100|META 563.21 2 70 100|TSLA 248.55 2 180 100|AVGO 171.08 2 55 100
    JPM 224.10 2 40 100|LLY 889.40 2 16 100|V 281.33 2 24 100|XOM 119.86 2 34 100
    UNH 571.95 2 14 100|MA 508.70 2 15 100|COST 905.18 2 12 100|HD 404.62 2 14 100
    PG 171.25 2 16 100|NFLX 763.89 2 28 100|JNJ 163.44 2 15 100|BAC 42.31 2 38 100
    CRM 292.40 2 17 100|ORCL 175.66 2 18 100|KO 69.92 2 21 100|AMD 156.12 2 85 100
    PEP 172.10 2 12 100|ADBE 498.30 2 10 100|CSCO 54.87 2 22 100|DIS 95.61 2 20 100
    INTC 22.68 2 60 100|BRK.B 462.75 2 7 100|F 11.02 2 30 100|GE 187.50 2 9 100
    IBM 233.27 2 10 100|QCOM 170.38 2 19 100|BA 155.40 2 150 100
"""
OTHERS: Final = """
    EUR/USD 1.08412 5 90 1000000|GBP/USD 1.29877 5 60 1000000|USD/JPY 152.318 3 80 1000000
    USD/CHF 0.86514 5 30 500000|AUD/USD 0.66391 5 34 1000000|USD/CAD 1.38245 5 28 1000000
    EUR/GBP 0.83470 5 22 500000|NZD/USD 0.60155 5 14 500000|BTC-USD 67210.50 2 240 0.01
    ETH-USD 2488.12 2 150 0.1|SOL-USD 172.614 3 90 1|XRP-USD 0.52361 5 44 100
    DOGE-USD 0.14022 5 40 1000|BTC-EUR 61988.10 2 48 0.01|ETH-EUR 2295.40 2 30 0.1
    ADA-USD 0.34810 5 16 100|LTC-USD 70.43 2 12 1|LINK-USD 11.284 3 18 1
    XAU/USD 2738.25 2 50 10|XAG/USD 33.716 3 26 100|WTI 71.64 2 42 100
    BRENT 75.89 2 110 100
"""
OTC: Final = "SIEM-OTC 181.20 2 2 10|ASML-OTC 671.50 2 2 10|NESN-OTC 84.32 2 2 10|ROG-OTC 272.90 2 2 10"
HALTED: Final = "BA"
LATE: Final = "BRENT"
SILENT: Final = "NZD/USD"


class Listing:
    """The symbols of one feed and their walks."""

    def __init__(self, text: str, seed: int) -> None:
        rows = [one.split() for line in text.strip().splitlines() for one in line.strip().split("|")]
        self.names = [row[0] for row in rows]
        self.ids = {name: number for number, name in enumerate(self.names)}
        self.tick = np.array([round(UNIT / 10 ** int(row[2])) for row in rows], np.int64)
        self.bid = np.array([round(float(row[1]) * UNIT) for row in rows], np.int64) // self.tick
        self.rate = np.array([float(row[3]) for row in rows])
        self.lot = np.array([float(row[4]) for row in rows])
        self.rng = np.random.default_rng(seed)
        # A spread of one tick, or of a few tenths of a basis point to three where ticks are small.
        self.spread = np.maximum(
            1, (self.bid * self.rng.choice([2e-5, 4e-5, 9e-5, 3e-4], len(rows))).astype(np.int64)
        )
        self.drift = np.zeros(len(rows))
        self.number = 0

    def step(self, now_ns: int, silent: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return the quotes and trades of one step."""
        rng = self.rng
        count = rng.poisson(self.rate * STEP_S)
        if silent and SILENT in self.names:
            count[self.names.index(SILENT)] = 0
        which = np.repeat(np.arange(len(count)), count)
        rng.shuffle(which)
        self.drift = 0.98 * self.drift + rng.normal(0, 0.02, len(count))
        size = np.maximum(1.0, self.bid * 1.2e-5)
        quotes, trades = np.zeros(len(which), QUOTE), np.zeros(len(which) // 8, TRADE)
        for at, row in enumerate(which):
            self.bid[row] += round(rng.normal(self.drift[row], 1) * size[row] * rng.random())
            wide = self.spread[row] + rng.integers(0, max(2, self.spread[row] // 3))
            quotes[at]["bid_px"], quotes[at]["ask_px"] = self.bid[row], self.bid[row] + wide
        quotes["bid_px"] *= self.tick[which]
        quotes["ask_px"] *= self.tick[which]
        for side in ("bid_sz", "ask_sz"):
            quotes[side] = rng.integers(1, 40, len(which)) * self.lot[which]
        quotes["symbol"], quotes["ts_event"] = which, now_ns
        self._special(quotes, now_ns)
        some = rng.permutation(len(which))[: len(trades)]
        bought = rng.random(len(trades)) < 0.5
        trades["symbol"], trades["ts_event"] = which[some], quotes["ts_event"][some]
        trades["price"] = np.where(bought, quotes["ask_px"][some], quotes["bid_px"][some])
        trades["size"] = rng.integers(1, 12, len(trades)) * self.lot[which[some]]
        trades["side"] = np.where(bought, BUY, SELL)
        trades["trade_id"] = self.number + np.arange(1, len(trades) + 1)
        self.number += len(trades)
        halted = self.names.index(HALTED) if HALTED in self.names else -1
        return quotes, trades[trades["symbol"] != halted]

    def _special(self, quotes: np.ndarray, now_ns: int) -> None:
        for name in {HALTED, LATE}.intersection(self.names):
            of = quotes["symbol"] == self.names.index(name)
            if name == HALTED:
                for field in ("bid_px", "ask_px", "bid_sz", "ask_sz"):
                    quotes[field][of] = 0
            else:
                quotes["ts_event"][of] = now_ns - LATE_NS


class Market(threading.Thread):
    """Publishes until the process ends; ``pause`` lets one feed and one symbol fall silent."""

    def __init__(self, venues: str, otc: str) -> None:
        super().__init__(daemon=True)
        self.pause = threading.Event()
        self.end = threading.Event()
        self._listings = [(venues, Listing(STOCKS.strip() + "|" + OTHERS.strip(), 7)), (otc, Listing(OTC, 8))]

    def run(self) -> None:
        """Publish one step after the other."""
        with ExitStack() as stack:
            feeds = [
                (stack.enter_context(publisher(address, names=listing.ids)), listing)
                for address, listing in self._listings
            ]
            for _ in self._steps():
                for index, (out, listing) in enumerate(feeds):
                    if index == 1 and self.pause.is_set():
                        continue
                    quotes, trades = listing.step(time.time_ns(), self.pause.is_set())
                    out.quotes(quotes)
                    out.trades(trades)

    def _steps(self) -> Iterator[None]:
        at_s = time.monotonic()
        while not self.end.is_set():
            yield
            at_s += STEP_S
            time.sleep(max(0.0, at_s - time.monotonic()))
