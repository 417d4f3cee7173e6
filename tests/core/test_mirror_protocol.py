"""Readers of a mirror's rings between any two stores of its writer, and its death at any store."""

import contextlib
import itertools
import os
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.core.few import FEW
from marketfeed.core.layout import block_bytes
from marketfeed.core.mirror import MirrorWriter
from marketfeed.core.reader import RingReader
from marketfeed.core.records import CHANNELS, QUOTES, TRADES, stamps_of
from marketfeed.core.rings import FEW_SYMBOLS, Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.errors import MirrorError
from tests.support.mirrors import Account, Origin, given_to, mirror_of
from tests.support.ring_steps import Died, Interleaved, writer_noting
from tests.support.rings import DEPTH, EVERY, SYMBOLS, TICKS

# Ticks of the origin, and whether the mirror gets them one piece at a time, or a state without them.
SCRIPT = st.lists(st.tuples(st.lists(TICKS, max_size=24), st.booleans()), max_size=12)
EXAMPLES = 3000 if os.environ.get("MARKETFEED_PROVE") else 40
CHANNEL_NUMBERS = (QUOTES, TRADES)


class ByRead:
    """Reads by position, symbol by symbol."""

    def __init__(self, rings, origin):
        self.rings, self.account, self.g = rings, Account(origin), 0

    def poll(self):
        self.g = head = self.rings.head()
        for channel in CHANNEL_NUMBERS:
            upto = self.rings.published(channel)
            self.take(channel, EVERY, self.seen(channel), upto, head)

    def seen(self, channel):
        return np.array([self.account.seen.get((channel, symbol), 0) for symbol in EVERY.tolist()])

    def take(self, channel, symbols, after, upto, head):
        ticks = self.rings.read(channel, symbols, after, upto, head)
        assert (after + ticks.lost + ticks.counts == ticks.seen).all()
        records = iter(ticks.records)
        for symbol, lost, count, seen in zip(symbols, ticks.lost, ticks.counts, ticks.seen, strict=True):
            if lost:
                self.account.lose(channel, symbol, int(lost))
            for n in range(int(seen - count) + 1, int(seen) + 1):
                record = next(records)
                assert record["symbol"] == symbol
                assert record["g"] <= head
                self.account.take(channel, symbol, n, int(record["g"]))


class BySequence(ByRead):
    """Reads in order of ``g``, as a lane does, at most ``most`` at a time."""

    def __init__(self, rings, origin, most):
        super().__init__(rings, origin)
        self.most = most

    def poll(self):
        head = min(self.rings.head(), self.g + self.most)
        if head - self.g <= FEW:
            found = self.rings.few.between(self.g, head)
            ticks = None if found is None else [(t.channel, t.symbol, t.n, t.fields[2]) for t in found]
        else:
            ticks = self._between(head)
        if ticks is None:
            for channel in CHANNEL_NUMBERS:
                at = self.rings.position(channel, EVERY, head)
                self.take(channel, EVERY, self.seen(channel), np.maximum(at, self.seen(channel)), head)
        else:
            assert [g for *_, g in ticks] == list(range(self.g + 1, head + 1))
            for channel, symbol, n, g in ticks:
                if n > self.account.seen.get((channel, symbol), 0):
                    self.account.take(channel, symbol, n, g)
        self.g = head

    def _between(self, head):
        found = self.rings.between(self.g, head)
        if found is None:
            return None
        rows = [
            (channel, int(record["symbol"]), int(n), int(record["g"]))
            for channel, (records, ns) in enumerate(found)
            for record, n in zip(records, ns, strict=True)
        ]
        return sorted(rows, key=lambda row: row[3])


class ByReader:
    """The reader of the tap and of the alerts."""

    def __init__(self, rings, origin, step_ticks):
        self.rings, self.account = rings, Account(origin)
        self.table = SymbolTable(SYMBOLS, rings.names)
        self.reader = RingReader(rings, lambda: self.table, step_ticks=step_ticks)
        for channel, seen in enumerate(self.reader._seen):
            self.account.start(channel, EVERY.tolist(), seen.tolist())

    @property
    def g(self):
        return self.reader.g

    def poll(self):
        g = self.reader.g
        found = self.reader.take()
        for gap in found.gaps:
            channel, symbol = CHANNELS.index(gap.channel), self.table.find(gap.symbol)
            self.account.lose(channel, symbol, gap.lost)
            assert gap.n == self.account.seen[channel, symbol] + 1
        for channel, records in enumerate((found.quotes, found.trades)):
            stamps = stamps_of(records).tolist()
            assert stamps == sorted(stamps)
            assert all(stamp <= found.head for stamp in stamps)
            for record in records:
                self.account.take(channel, int(record["symbol"]), int(record["n"]), int(record["g"]))
        assert self.reader.g >= g


class ByLook:
    """Looks at the newest ticks, at single ticks and for positions."""

    def __init__(self, rings, origin):
        self.rings, self.origin = rings, origin

    def poll(self):
        head = self.rings.head()
        for channel in CHANNEL_NUMBERS:
            records, ns = self.rings.latest(channel, EVERY, head)
            assert (records["g"] <= head).all()
            for record, n in zip(records, ns[ns > 0], strict=True):
                stamps = self.origin.ticks[channel, int(record["symbol"])]
                assert stamps[int(n) - 1] == record["g"]
            g = max(head - 5, 0)
            for position in (self._at_once, self._one_by_one):
                at = position(channel, EVERY, g)
                floor = self.rings.oldest(channel, EVERY) - 1
                for symbol in EVERY.tolist():
                    stamps = self.origin.ticks.get((channel, symbol), [])
                    true = sum(stamp <= g for stamp in stamps)
                    assert at[symbol] == true or true <= at[symbol] <= floor[symbol], (g, symbol)
                    tick = self.rings.few.tick(channel, symbol, true, g) if true else None
                    assert tick is None or (tick.fields[2], tick.n) == (stamps[true - 1], true)

    def _at_once(self, channel, symbols, g):
        return self.rings.position(channel, np.tile(symbols, FEW_SYMBOLS), g)[: len(symbols)]

    def _one_by_one(self, channel, symbols, g):
        return np.array([self.rings.few.position(channel, symbol, g) for symbol in symbols.tolist()])


def readers_of(rings_of, origin):
    """Make one reader of each kind, over rings of its own."""
    return [
        ByRead(rings_of(), origin),
        BySequence(rings_of(), origin, 1000),
        BySequence(rings_of(), origin, 6),
        ByReader(rings_of(), origin, 1000),
        ByReader(rings_of(), origin, 4),
        ByLook(rings_of(), origin),
    ]


def calls(origin, writer, script, draw):
    """Publish at the origin, and pass it on; yields after each call of the writer."""
    behind = False
    for ticks, arrives in script:
        origin.publish(ticks)
        head = origin.rings.head()
        if not arrives:
            behind = True
        elif behind:
            writer.adopt(*origin.state())
            behind = False
            yield
        else:
            while writer.next_g <= head:
                # Of a symbol, at most what is published in one part.
                last = min(writer.next_g + draw.randrange(DEPTH // 4), head)
                writer.write_given(*origin.between(writer.next_g, last), writer.next_g, last)
                yield
    if behind:
        writer.adopt(*origin.state())
        yield


@pytest.mark.slow
@settings(max_examples=EXAMPLES)
@given(SCRIPT, st.integers(0, 2**32), st.sampled_from([0.4, 1.0, 3.0, 10.0]))
def test_no_interleaving_hides_a_tick_or_a_hole(script, seed, pace):
    draw = random.Random(seed)
    origin = Origin()
    block = bytearray(block_bytes(SYMBOLS, DEPTH))
    rings, writer = mirror_of(origin, block)
    steps = (int(draw.expovariate(1 / pace)) for _ in itertools.count())
    running = Interleaved(rings, writer, calls(origin, writer, script, draw), steps)
    readers = readers_of(lambda: running.watched(block), origin)
    for _ in range(40):
        draw.choice(readers).poll()
    running.finish()
    for reader in readers:
        finish(reader, rings.head())


def finish(reader, head):
    """Have ``reader`` read up to ``head``, and check that it knows of every tick."""
    reader.poll()
    if isinstance(reader, ByLook):
        return
    while reader.g < head:
        reader.poll()
    reader.account.complete()


@pytest.mark.slow
@given(
    st.lists(TICKS, max_size=20), st.lists(TICKS, min_size=1, max_size=20), st.booleans(), st.integers(0, 12)
)
def test_after_a_death_at_any_store_a_state_brings_readers_up_to_date(before, dying, by_state, stores_done):
    origin = Origin()
    origin.publish(before)
    block = bytearray(block_bytes(SYMBOLS, DEPTH))
    rings, first = mirror_of(origin, block)
    given_to(first, origin)
    readers = readers_of(lambda: Rings(block), origin)
    left = [stores_done]

    def note(array):
        if not left[0]:
            raise Died
        left[0] -= 1

    origin.publish(dying)
    second = writer_noting(Rings(block), note, MirrorWriter)
    with contextlib.suppress(Died):
        if by_state:
            second.adopt(*origin.state())
        else:
            given_to(second, origin)
    for reader in readers:
        reader.poll()
    origin.publish(before)
    successor = MirrorWriter(Rings(block))
    assert successor.next_g == rings.head() + 1
    try:
        given_to(successor, origin)
    except MirrorError:  # it died during a publication
        successor.adopt(*origin.state())
    origin.publish(dying)
    given_to(successor, origin)
    assert rings.head() == origin.rings.head()
    for reader in readers:
        finish(reader, rings.head())
