"""Shared parts of the ring tests: short batches, a counting reader, a brute-force ledger."""

import numpy as np
from hypothesis import strategies as st

from marketfeed.core.records import DTYPES, QUOTES, TRADES, Batch

SYMBOLS = 4
DEPTH = 8
EVERY = np.arange(SYMBOLS)


def batch_of(*ticks, ordered=True):
    """Make a batch of (channel, symbol) in this order; without ``ordered`` quotes go first."""
    quotes, trades = (
        np.zeros(sum(c == channel for c, _ in ticks), dtype) for channel, dtype in enumerate(DTYPES)
    )
    for channel, records in enumerate((quotes, trades)):
        records["symbol"] = [symbol for c, symbol in ticks if c == channel]
    channels = np.array([c for c, _ in ticks], np.uint8) if ordered else None
    return Batch(quotes, trades, channels)


def quotes_of(*symbols):
    return batch_of(*((QUOTES, symbol) for symbol in symbols))


class Ledger:
    """Brute-force record of writes: (channel, symbol) -> the g of tick 1, 2, 3 …"""

    def __init__(self):
        self.g = 0
        self.ticks: dict[tuple[int, int], list[int]] = {
            (c, s): [] for c in (QUOTES, TRADES) for s in range(SYMBOLS)
        }

    def add(self, ticks):
        for tick in ticks:
            self.g += 1
            self.ticks[tick].append(self.g)


class Reader:
    """Reads one channel of all symbols from its position, and counts."""

    def __init__(self, rings, channel):
        self.rings, self.channel = rings, channel
        self.seen = np.zeros(rings.max_symbols, np.int64)
        self.lost = np.zeros(rings.max_symbols, np.int64)
        self.got: dict[int, list[tuple[int, int]]] = {
            symbol: [] for symbol in range(rings.max_symbols)
        }  # (n, g)

    def poll(self):
        head = self.rings.head()
        upto = self.rings.published(self.channel)
        ticks = self.rings.read(self.channel, np.arange(self.rings.max_symbols), self.seen, upto, head)
        assert (self.seen + ticks.lost + ticks.counts == ticks.seen).all()
        assert ticks.counts.sum() == len(ticks.records)
        assert (ticks.records["g"] <= head).all()
        expected_owner = np.arange(self.rings.max_symbols).repeat(ticks.counts)
        assert (ticks.records["symbol"] == expected_owner).all()
        for record in ticks.records:
            self.got[int(record["symbol"])].append((int(record["n"]), int(record["g"])))
        self.seen = ticks.seen
        self.lost += ticks.lost
        return ticks


TICKS = st.tuples(st.integers(0, 1), st.integers(0, SYMBOLS - 1))
BATCHES = st.lists(st.lists(TICKS, max_size=30), max_size=12)
STEPS = st.lists(st.tuples(st.lists(TICKS, max_size=12), st.booleans()), max_size=40)
