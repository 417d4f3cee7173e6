"""Recordings of real venues: every alert of the rules is re-derived by the oracle from the same ticks."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import numpy as np
import pytest

from marketfeed.core.records import QUOTE, QUOTES, TRADE
from tests.support.alert_ticks import S, evaluated, expected, plain, ruleset
from tests.support.replay import replayed

EQUITY = {
    "format": "csv",
    "time": "ms",
    "day": "2013-10-07",
    "zone": "America/New_York",
    "price_scale": 10_000,
}
RECORDINGS: dict[str, dict[str, Any]] = {
    "binance spot": {"format": "binance-raw", "path": "binance_raw_ws/spot_ethusdt_20240808.gz"},
    "binance futures": {"format": "binance-raw", "path": "binance_raw_ws/usdm_btcusdt_20240808.gz"},
    "equity quotes": {
        "path": "us_equity_ticks/ibm_20131007_quote.zip",
        "columns": {"time": 0, "bid": 1, "bid_size": 2, "ask": 3, "ask_size": 4, "exchange": 5},
        "symbol": "IBM.{exchange}",
        "merge": "exchange",
        **EQUITY,
    },
    "equity trades": {
        "path": "us_equity_ticks/ibm_20131007_trade.zip",
        "columns": {"time": 0, "price": 1, "size": 2},
        "symbol": "IBM",
        **EQUITY,
    },
}
RULES = [
    {"type": "move", "percent": 0.1, "window_s": 10.0, "clear_at": 0.05},
    {"type": "move", "name": "trade-move", "percent": 0.2, "window_s": 60.0, "of": "trade"},
    {"type": "spread", "bps": 5.0, "cooldown_s": 1.0},
    {"type": "spread", "name": "wide", "absolute": 0.05, "clear_at": 0.03, "min_duration_s": 0.2},
    {"type": "crossed"},
    {"type": "locked", "min_duration_s": 0.01},
    {"type": "stale", "after_s": 2.0, "inhibited_by": ["rate"]},
    {"type": "price_band", "percent": 0.3},
    {"type": "off_market", "percent": 0.02, "cooldown_s": 0.5},
    {"type": "luld", "percent": 5, "clear_at": 0.2},
    {"type": "size_spike", "factor": 50.0, "half_life_s": 30.0},
    {"type": "anomaly", "field": "return", "z": 8.0, "half_life_s": 60.0, "clear_at": 4.0},
    {"type": "anomaly", "name": "odd-spread", "field": "spread", "z": 6.0, "half_life_s": 60.0},
    {"type": "anomaly", "name": "odd-size", "field": "size", "z": 10.0, "half_life_s": 60.0},
    {"type": "rate", "below": 1.0, "window_s": 3.0, "clear_at": 2.0},
    {"type": "rate", "name": "hot", "above": 500.0, "window_s": 1.0, "cooldown_s": 2.0},
]
MOST_TICKS = 30_000 if os.environ.get("MARKETFEED_PROVE") else 8000


def in_order(intake):
    """Return all ticks of a feed in order: quotes, trades, and the mask of the quotes, one entry per tick."""
    channels = np.concatenate(
        [
            np.repeat([0, 1], [len(b.quotes), len(b.trades)]) if b.channels is None else b.channels
            for b in intake.batches
        ]
    )
    is_quote = channels == QUOTES
    quotes, trades = np.zeros(len(is_quote), QUOTE), np.zeros(len(is_quote), TRADE)
    quotes[is_quote], trades[~is_quote] = intake.quotes, intake.trades
    # Replayed at once, ticks have no times of arrival of their own, and some have no venue time.
    times = np.where(is_quote, quotes["ts_event"], trades["ts_event"])
    times = np.maximum.accumulate(np.maximum(times, times[times > 0][0]))
    for records in (quotes, trades):
        records["g"], records["ts_recv"] = 1 + np.arange(len(records)), times
    return quotes[:MOST_TICKS], trades[:MOST_TICKS], is_quote[:MOST_TICKS]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDINGS)
async def test_alerts_of_a_recording_are_what_the_oracle_derives(realdata, name):
    intake = await replayed(realdata, **RECORDINGS[name])
    drawn, names = in_order(intake), intake.symbols.names()
    count = len(drawn[0])
    assert count >= min(MOST_TICKS, 20_000)
    rng = np.random.default_rng(7)
    cuts = np.cumsum(rng.integers(1, 2048, count)).tolist()
    rules = ruleset(RULES, names, max_symbols=64)
    found, clock_ns = evaluated(rules, drawn, [cut for cut in cuts if cut < count])
    found += plain(rules.tick(clock_ns + 10 * S))
    kinds = Counter(alert.rule for alert, _ in found)
    assert len(kinds) >= 5
    assert len({alert.id for alert, _ in found}) == len(found)
    assert found == expected(RULES, drawn, clock_ns + 10 * S, names)
