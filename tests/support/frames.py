"""Recordings as the binary frames that subscribers receive."""

from __future__ import annotations

import numpy as np

from marketfeed.core.binary import quotes_frame, symbols_frame, trades_frame
from marketfeed.core.records import QUOTE, TRADE

START_NS = 1_723_161_254_000_000_000
MS = 1_000_000


def quotes(*gs, symbol=0, flags=0):
    """Return quotes numbered ``gs``, a millisecond apart."""
    records = np.zeros(len(gs), QUOTE)
    records["g"] = gs
    records["ts_recv"] = START_NS + np.array(gs, np.int64) * MS
    records["ts_event"] = START_NS - 5
    records["bid_px"] = records["ask_px"] = np.array(gs, np.int64) * 10**9
    records["bid_sz"] = records["ask_sz"] = 1
    records["symbol"], records["flags"], records["feed"], records["n"] = symbol, flags, 3, gs
    return records


def trades(*gs, symbol=0):
    records = np.zeros(len(gs), TRADE)
    records["g"] = gs
    records["ts_recv"] = START_NS + np.array(gs, np.int64) * MS
    records["ts_event"] = START_NS - 5
    records["price"] = np.array(gs, np.int64) * 10**9
    records["size"], records["side"], records["trade_id"], records["symbol"] = 2, ord("b"), 77, symbol
    return records


def steps(count, symbol=7):
    """Return a recording of ``count`` steps of ten quotes and five trades, interleaved."""
    frames = [symbols_frame({"A": symbol}, 1)]
    for number in range(count):
        gs = number * 15 + np.arange(1, 16)
        frames.append(quotes_frame(quotes(*gs[gs % 3 != 0], symbol=symbol), number + 2))
        frames.append(trades_frame(trades(*gs[gs % 3 == 0], symbol=symbol), number + 2))
    return frames
