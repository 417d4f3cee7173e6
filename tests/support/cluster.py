"""A shard without a network: an origin with its tee, mirrors, and frames for tests to lose or reorder."""

import numpy as np

from marketfeed.cluster.actions import Ask, AskSync, Rebuild
from marketfeed.cluster.follower import Limits
from marketfeed.cluster.frame_log import FrameLog
from marketfeed.cluster.mirror import Mirror
from marketfeed.cluster.repairs import Answerer
from marketfeed.cluster.state import Sizes, state_of, state_parts
from marketfeed.cluster.tee import Tee, TeeWriter
from marketfeed.core.mirror import MirrorWriter
from marketfeed.core.records import BUY, DTYPES, TRADES, Batch
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter

SYMBOLS = 4
DEPTH = 8
TERM = 7
EPOCH = "7abcdef"
MS = 1_000_000
MAX_PAYLOAD = 64 * 9  # eight ticks or 21 names


def batch_of(*ticks, start=0):
    """Make a batch of (channel, symbol) in this order, with contents that depend on ``start``."""
    parts = []
    for channel, dtype in enumerate(DTYPES):
        records = np.zeros(sum(c == channel for c, _ in ticks), dtype)
        records["symbol"] = [symbol for c, symbol in ticks if c == channel]
        records["ts_recv"] = start + 1 + np.arange(len(records))
        parts.append(records)
    parts[TRADES]["side"] = BUY
    quotes, trades = parts
    return Batch(quotes, trades, np.array([c for c, _ in ticks], np.uint8))


class Answering:
    """What an origin and a mirror have in common: they answer requests."""

    rings: Rings
    symbols: SymbolTable
    log: FrameLog
    answerer: Answerer
    max_payload: int

    def state(self):
        """Return the parts of a state."""
        state = state_of(self.rings, self.symbols)
        assert state is not None
        term, epoch = self.answerer.term, self.answerer.epoch
        return list(state_parts(state, self.log, term=term, epoch=epoch, max_payload=self.max_payload))


class Origin(Answering):
    """Rings, tee and log; what it sends is in ``sent`` until a test takes it."""

    def __init__(self, *, log_bytes=1 << 20, term=TERM, epoch=EPOCH, max_payload=MAX_PAYLOAD, depth=DEPTH):
        self.sent: list[bytes] = []
        self._everything: list[bytes] = []
        self.now_ns = 0
        self.max_payload = max_payload
        self.rings = Rings.private(SYMBOLS, depth, epoch)
        self.symbols = SymbolTable(SYMBOLS, self.rings.names)
        self.log = FrameLog(log_bytes)
        self.tee = Tee(
            self.symbols, self.log, self._send, term=term, epoch=epoch,
            wall_ns=lambda: 99, max_payload=max_payload, linger_ns=MS,
        )  # fmt: skip
        self.writer = TeeWriter(RingWriter(self.rings), self.tee, lambda: self.now_ns)
        self.answerer = Answerer(self.log, self.symbols, term=term, epoch=epoch, max_payload=max_payload)

    def write(self, *ticks):
        """Publish (channel, symbol) ticks, with names for their symbols."""
        for symbol in range(max((symbol for _, symbol in ticks), default=-1) + 1):
            self.symbols.intern(f"S{symbol}")
        return self.writer.write(batch_of(*ticks, start=self.rings.head()))

    def _send(self, frame):
        self.sent.append(frame)
        self._everything.append(frame)

    def log_of_sent(self):
        """Return the frames sent since the last call, whatever :meth:`take` has returned."""
        sent, self._everything = self._everything, []
        return sent

    def seal(self):
        """Seal the open frame."""
        self.now_ns += MS
        self.tee.flush(self.now_ns)

    def take(self):
        """Return the frames sent since the last call."""
        sent, self.sent[:] = list(self.sent), []
        return sent


class Node(Answering):
    """A mirror; it does what its mirror asks for, from ``peers`` by name, while ``reachable``."""

    def __init__(self, peers, *, limits=None, depth=DEPTH, log_bytes=1 << 20, term=TERM, epoch=EPOCH):
        self.peers = peers
        self.reachable = True
        self.done = []  # actions
        self.rings = Rings.private(SYMBOLS, depth, epoch)
        self.symbols = SymbolTable(SYMBOLS, self.rings.names)
        self.log = FrameLog(log_bytes)
        self.max_payload = MAX_PAYLOAD
        self.answerer = Answerer(self.log, self.symbols, term=term, epoch=epoch, max_payload=MAX_PAYLOAD)
        self.mirror = Mirror(
            MirrorWriter(self.rings), self.symbols, Sizes(SYMBOLS, depth), self.log,
            term=term, epoch=epoch, now_ns=0, limits=limits or Limits(),
        )  # fmt: skip

    def start(self, now_ns=0):
        self.act(self.mirror.start(now_ns), now_ns)
        return self

    def feed(self, *frames, now_ns=0):
        """Feed frames, and return the actions that this and the answers caused."""
        before = len(self.done)
        for frame in frames:
            self.act(self.mirror.feed(frame, now_ns), now_ns)
        return self.done[before:]

    def tick(self, now_ns):
        before = len(self.done)
        self.act(self.mirror.tick(now_ns), now_ns)
        return self.done[before:]

    def act(self, actions, now_ns):
        for action in actions:
            self.done.append(action)
            if not self.reachable:
                continue
            if isinstance(action, Ask):
                for part in self.peers[action.node].answerer.answer(action.request.encode()):
                    self.act(self.mirror.answer(action.node, part, now_ns), now_ns)
            elif isinstance(action, AskSync):
                for part in self.peers[action.node].state():
                    self.act(self.mirror.state_part(action.number, part, now_ns), now_ns)

    def of(self, kind):
        return [action for action in self.done if isinstance(action, kind)]

    @property
    def rebuilt(self):
        return self.of(Rebuild)


def same_rings(first, second):
    """Return whether both rings hold the same ticks and counters, byte for byte."""
    a, b = first.view, second.view
    parts = ("published_g", "named", "claimed", "published", "names", "slots", "sequence")
    return all(getattr(a, part).tobytes() == getattr(b, part).tobytes() for part in parts)
