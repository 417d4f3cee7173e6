"""Recordings for tests of their readers."""

import numpy as np
import zstandard

from marketfeed.core.binary import quotes_frame, symbols_frame, trades_frame
from marketfeed.core.records import QUOTE, TRADE

S = 10**9
START_NS = 1_790_000_000 * S
MS = 10**6


def quotes(count, symbols=3, seed=0, first_g=1):
    """Return quotes with missing sides, negative prices and missing venue times."""
    rng = np.random.default_rng(seed)
    records = np.zeros(count, QUOTE)
    records["ts_recv"] = START_NS + np.arange(count) * MS + rng.integers(0, 1000, count)
    records["ts_event"] = records["ts_recv"] - rng.integers(1, 10**6, count)
    records["bid_px"] = rng.integers(-(10**12), 10**13, count)
    records["ask_px"] = records["bid_px"] + rng.integers(1, 10**9, count)
    records["bid_sz"], records["ask_sz"] = rng.integers(1, 10**6, (2, count)) / 64
    for side, every in (("bid", 5), ("ask", 7)):
        records[f"{side}_px"][::every] = records[f"{side}_sz"][::every] = 0
    records["g"] = first_g + np.arange(count)
    records["n"] = 1 + np.arange(count)
    records["symbol"] = rng.integers(0, symbols, count)
    return records


def trades(count, symbols=3, seed=1, first_g=1):
    rng = np.random.default_rng(seed)
    records = np.zeros(count, TRADE)
    records["ts_recv"] = START_NS + np.arange(count) * MS
    records["ts_event"] = records["ts_recv"] - 77
    records["price"] = rng.integers(1, 10**13, count)
    records["size"] = rng.integers(1, 10**6, count) / 64
    records["side"] = rng.choice(np.frombuffer(b"bs-", np.uint8), count)
    records["trade_id"] = rng.integers(0, 2**62, count)
    records["trade_id"][::11] = 0
    records["g"], records["n"] = first_g + np.arange(count), 1 + np.arange(count)
    records["symbol"] = rng.integers(0, symbols, count)
    records["cond"] = rng.choice([b"", b"@", b"@FTI", b"=A"], count)
    return records


NAMES = {"AAPL": 0, "BTC-USD": 1, "BTC'X": 2}


def recording(path, ticks=1000, names=None, with_quotes=True, with_trades=True, step=37):
    """Write a recording, steps of ``step`` quotes and trades each, interleaved; return both as written."""
    names = NAMES if names is None else names
    q = quotes(ticks if with_quotes else 0, len(names))
    t = trades(ticks if with_trades else 0, len(names))
    q["g"], t["g"] = 2 * q["g"], 2 * t["g"] + 1
    frames = [symbols_frame(names, 1)]
    for number, start in enumerate(range(0, ticks, step)):
        sent_ns = START_NS + number
        if with_trades:
            frames.append(trades_frame(t[start : start + step], sent_ns))
        if with_quotes:
            frames.append(quotes_frame(q[start : start + step], sent_ns))
    write(path, frames)
    return q, t


def write(path, frames):
    """Write frames, compressed according to the suffix, each flushed separately."""
    packer = zstandard.ZstdCompressor().compressobj() if path.suffix == ".zst" else None
    with path.open("wb") as file:
        for frame in frames:
            data = frame
            if packer is not None:
                data = packer.compress(frame) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
            file.write(data)
        if packer is not None:
            file.write(packer.flush())
    return path
