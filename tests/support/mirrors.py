"""An origin and its mirror: the same symbols, ticks that arrive in pieces, and states."""

import numpy as np

from marketfeed.core.layout import block_bytes
from marketfeed.core.mirror import MirrorWriter
from marketfeed.core.records import CHANNELS, QUOTES, TRADES, UNKNOWN_SIDE, stamps_of
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter
from tests.support.rings import DEPTH, SYMBOLS, batch_of

NAMES = [chr(ord("A") + number) for number in range(SYMBOLS)]


def valid_batch(ticks, seed=0):
    """Make a batch of (channel, symbol) in this order, with different values that an engine may publish."""
    batch, random = batch_of(*ticks), np.random.default_rng(seed)
    for records in (batch.quotes, batch.trades):
        for name in ("ts_event", "ts_recv", "bid_px", "ask_px", "price", "trade_id", "feed", "flags"):
            if name in records.dtype.names:
                records[name] = random.integers(1, 200, len(records))
        for name in ("bid_sz", "ask_sz", "size"):
            if name in records.dtype.names:
                records[name] = random.random(len(records))
    batch.trades["side"] = UNKNOWN_SIDE
    return batch


class Origin:
    """An engine that numbers ticks, and remembers all of them."""

    def __init__(self, depth=DEPTH, max_symbols=SYMBOLS):
        self.rings = Rings.private(max_symbols, depth, "e1")
        self.symbols = SymbolTable(max_symbols, self.rings.names)
        for name in NAMES:
            self.symbols.intern(name)
        self.writer = RingWriter(self.rings)
        self.all = valid_batch([])  # every tick so far
        self.ticks = {}  # (channel, symbol): the g of tick 1, 2, 3 …

    def publish(self, ticks):
        batch = valid_batch(ticks, seed=self.rings.head())
        g = self.rings.head()
        self.writer.write(batch)
        for channel, symbol in ticks:
            g += 1
            self.ticks.setdefault((channel, symbol), []).append(g)
        self.all = type(batch)(
            np.concatenate([self.all.quotes, batch.quotes]), np.concatenate([self.all.trades, batch.trades])
        )

    def between(self, first_g, last_g):
        """Return the quotes and the trades ``first_g <= g <= last_g``."""
        return [
            records[(stamps_of(records) >= first_g) & (stamps_of(records) <= last_g)]
            for records in (self.all.quotes, self.all.trades)
        ]

    def state(self):
        """Return the newest quotes and trades, and the head."""
        head, symbols = self.rings.head(), np.arange(self.rings.max_symbols)
        return *(self.rings.latest(channel, symbols, head)[0] for channel in (QUOTES, TRADES)), head


def mirror_of(origin, block=None):
    """Create empty rings of the same size, epoch and names; return them and their writer."""
    size = origin.rings.max_symbols, origin.rings.depth
    rings = Rings.create(bytearray(block_bytes(*size)) if block is None else block, *size, "e1")
    symbols = SymbolTable(rings.max_symbols, rings.names)
    for name in origin.symbols.names():
        symbols.intern(name)
    return rings, MirrorWriter(rings, lambda: 7)


def given_to(writer, origin, cuts=()):
    """Write to ``writer`` what it misses, in pieces that end at the ``cuts`` and at the head."""
    head = origin.rings.head()
    for last_g in [*sorted(cut for cut in cuts if writer.next_g <= cut < head), head]:
        if last_g >= writer.next_g:
            writer.write_given(*origin.between(writer.next_g, last_g), writer.next_g, last_g)


class Account:
    """What one reader was given and told of every symbol; raises AssertionError if that is wrong."""

    def __init__(self, origin):
        self.origin = origin
        self.seen = {}  # (channel, symbol): the highest n that it got or knows to be lost
        self.got = self.lost = 0

    def start(self, channel, symbols, ns):
        for symbol, n in zip(symbols, ns, strict=True):
            self.seen[channel, symbol] = n

    def take(self, channel, symbol, n, g):
        """Count a tick, which must be the next."""
        assert self.origin.ticks[channel, symbol][n - 1] == g
        assert n == self.seen.get((channel, symbol), 0) + 1, (CHANNELS[channel], symbol)
        self.seen[channel, symbol] = n
        self.got += 1

    def lose(self, channel, symbol, lost):
        """Count the next ``lost`` ticks as told to be lost."""
        assert lost > 0
        self.seen[channel, symbol] = self.seen.get((channel, symbol), 0) + lost
        assert self.seen[channel, symbol] <= len(self.origin.ticks[channel, symbol])
        self.lost += lost

    def complete(self):
        """Check that nothing that the origin published is missing."""
        for key, stamps in self.origin.ticks.items():
            assert self.seen.get(key, 0) == len(stamps), key
