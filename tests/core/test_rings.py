"""Reading of rings in one thread; test_rings_protocol.py tests writers that stop midway."""

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.layout import block_bytes
from marketfeed.core.records import QUOTES, TRADES
from marketfeed.core.rings import Rings
from marketfeed.core.writer import RingWriter
from tests.support.rings import (
    BATCHES,
    DEPTH,
    EVERY,
    STEPS,
    SYMBOLS,
    TICKS,
    Ledger,
    Reader,
    batch_of,
    quotes_of,
)


@pytest.mark.slow
@given(STEPS)
def test_a_reader_sees_every_tick_or_is_told_it_did_not(steps):
    rings = Rings.private(SYMBOLS, DEPTH)
    writer, ledger = RingWriter(rings), Ledger()
    readers = [Reader(rings, QUOTES), Reader(rings, TRADES)]
    for ticks, poll in [*steps, ([], True)]:
        ledger.add(ticks)
        assert writer.write(batch_of(*ticks)) == ledger.g
        for reader in readers if poll else []:
            reader.poll()
            for symbol in range(SYMBOLS):
                written = ledger.ticks[reader.channel, symbol]
                assert reader.seen[symbol] == len(written)
                assert len(reader.got[symbol]) + reader.lost[symbol] == len(written)
    for reader in readers:
        for symbol, got in reader.got.items():
            written = ledger.ticks[reader.channel, symbol]
            assert all(written[n - 1] == g for n, g in got)
            assert got == sorted(set(got))


@given(STEPS)
def test_a_reader_that_keeps_up_loses_nothing(steps):
    rings = Rings.private(SYMBOLS, 16)
    writer, reader = RingWriter(rings), Reader(rings, QUOTES)
    for ticks, _ in steps:  # at most 12 per step, fewer than depth
        writer.write(batch_of(*ticks))
        reader.poll()
    assert not reader.lost.any()
    for got in reader.got.values():
        assert [n for n, _ in got] == list(range(1, len(got) + 1))


@pytest.mark.slow
@given(BATCHES)
def test_n_has_no_holes_and_g_is_the_order_of_the_batch(batches):
    writer = RingWriter(Rings.private(SYMBOLS, DEPTH))
    g, reached = 0, dict[tuple[int, int], int]()
    for ticks in batches:
        batch = batch_of(*ticks)
        writer.write(batch)
        rows = [iter(batch.quotes), iter(batch.trades)]
        for channel, symbol in ticks:
            record = next(rows[channel])
            g += 1
            reached[channel, symbol] = reached.get((channel, symbol), 0) + 1
            assert (record["g"], record["n"]) == (g, reached[channel, symbol])


@given(st.lists(TICKS, max_size=30))
def test_without_channels_all_quotes_come_before_all_trades(ticks):
    batch = batch_of(*ticks, ordered=False)
    RingWriter(Rings.private(SYMBOLS, DEPTH)).write(batch)
    assert batch.quotes["g"].tolist() + batch.trades["g"].tolist() == list(range(1, len(ticks) + 1))


@pytest.mark.slow
@given(BATCHES, st.integers(0, 400))
def test_position_is_what_a_search_through_all_ticks_finds(batches, g):
    rings = Rings.private(SYMBOLS, DEPTH)
    writer, ledger = RingWriter(rings), Ledger()
    for ticks in batches:
        ledger.add(ticks)
        writer.write(batch_of(*ticks))
    for channel in (QUOTES, TRADES):
        positions = rings.position(channel, EVERY, g)
        for symbol in range(SYMBOLS):
            stamps = ledger.ticks[channel, symbol]
            floor = max(len(stamps) - DEPTH, 0)
            assert positions[symbol] == max(sum(stamp <= g for stamp in stamps), floor)
        assert (positions + 1 >= rings.oldest(channel, EVERY)).all()


class Overtaken(Rings):
    """Rings whose writer publishes a batch after each load of the head by a reader."""

    meanwhile: Iterable[Callable[[], None]] = ()

    def _overwritten(self, channel, symbols):
        floor = super()._overwritten(channel, symbols)
        for publish in self.meanwhile:
            publish()
            break
        return floor


@pytest.mark.slow
@given(BATCHES, BATCHES, st.integers(0, 400))
def test_position_leaves_nothing_out_although_the_writer_comes_round_meanwhile(before, meanwhile, g):
    rings = Overtaken.create(bytearray(block_bytes(SYMBOLS, DEPTH)), SYMBOLS, DEPTH)
    assert isinstance(rings, Overtaken)
    writer, ledger = RingWriter(rings), Ledger()

    def publish(ticks):
        ledger.add(ticks)
        writer.write(batch_of(*ticks))

    for ticks in before:
        publish(ticks)
    g = min(g, ledger.g)  # like a reader, which loads the head first
    for channel in (QUOTES, TRADES):
        rings.meanwhile = (partial(publish, ticks) for ticks in meanwhile)
        positions = rings.position(channel, EVERY, g)
        rings.meanwhile = ()
        for symbol in range(SYMBOLS):
            stamps = ledger.ticks[channel, symbol]
            true = sum(stamp <= g for stamp in stamps)
            # The ticks between are overwritten; a read from there counts them as lost.
            assert true <= positions[symbol] <= max(true, len(stamps) - DEPTH)


@given(BATCHES)
def test_oldest_is_the_lowest_n_that_can_be_read(batches):
    rings = Rings.private(SYMBOLS, DEPTH)
    writer = RingWriter(rings)
    for ticks in batches:
        writer.write(batch_of(*ticks))
    for channel in (QUOTES, TRADES):
        upto = rings.published(channel)
        assert rings.oldest(channel, EVERY).tolist() == (np.maximum(upto - DEPTH, 0) + 1).tolist()
        ticks = rings.read(channel, EVERY, np.zeros(SYMBOLS, np.int64), upto, rings.head())
        assert (ticks.lost + 1 == rings.oldest(channel, EVERY)).all()


@given(BATCHES, st.lists(st.integers(0, SYMBOLS - 1), max_size=6), st.integers(0, 400))
def test_latest_is_the_newest_at_or_before_head_in_the_order_asked(batches, asked, head):
    rings = Rings.private(SYMBOLS, DEPTH)
    writer, ledger = RingWriter(rings), Ledger()
    for ticks in batches:
        ledger.add(ticks)
        writer.write(batch_of(*ticks))
    for channel in (QUOTES, TRADES):
        records, found = rings.latest(channel, np.array(asked, np.int64), head)
        expected = []
        for symbol in asked:
            stamps = ledger.ticks[channel, symbol]
            n = sum(stamp <= head for stamp in stamps)
            held = n > max(len(stamps) - DEPTH, 0)
            expected.append((symbol, n if held else 0, stamps[n - 1] if held else 0))
        assert found.tolist() == [n for _, n, _ in expected]
        rows = [(int(r["symbol"]), int(r["n"]), int(r["g"])) for r in records]
        assert rows == [row for row in expected if row[1]]


@given(
    st.lists(st.integers(0, SYMBOLS - 1), max_size=20),
    st.lists(st.integers(0, SYMBOLS - 1), unique=True),
    st.data(),
)
def test_read_gives_the_stretch_asked_for_of_the_symbols_asked_for(written, asked, data):
    rings = Rings.private(SYMBOLS, 32)
    RingWriter(rings).write(quotes_of(*written))
    spans = [sorted(data.draw(st.tuples(*[st.integers(0, written.count(s))] * 2))) for s in asked]
    after, upto = np.array(spans, np.int64).reshape(-1, 2).T
    ticks = rings.read(QUOTES, np.array(asked, np.int64), after, upto, rings.head())
    rows = [(int(r["symbol"]), int(r["n"])) for r in ticks.records]
    assert rows == [
        (s, n) for s, (low, high) in zip(asked, spans, strict=True) for n in range(low + 1, high + 1)
    ]
    assert ticks.seen.tolist() == upto.tolist()
    assert not ticks.lost.any()


def test_a_reader_ahead_of_upto_gets_nothing_and_loses_nothing():
    rings = Rings.private(1, DEPTH)
    RingWriter(rings).write(quotes_of(*[0] * 20))
    one = np.zeros(1, np.int64)
    ticks = rings.read(QUOTES, one, one + 20, one + 19, rings.head())
    assert (ticks.counts[0], ticks.lost[0], ticks.seen[0]) == (0, 0, 20)


def test_loss_is_counted_only_up_to_upto():
    rings = Rings.private(1, DEPTH)
    RingWriter(rings).write(quotes_of(*[0] * 100))
    one = np.zeros(1, np.int64)
    ticks = rings.read(QUOTES, one, one + 3, one + 10, rings.head())  # 92 are overwritten
    assert (ticks.counts[0], ticks.lost[0], ticks.seen[0]) == (0, 7, 10)


def test_a_tick_above_head_is_left_for_the_next_time():
    rings = Rings.private(2, DEPTH)
    RingWriter(rings).write(quotes_of(0, 1, 0, 1, 0))
    two = np.arange(2)
    early = rings.read(QUOTES, two, np.zeros(2, np.int64), rings.published(QUOTES)[:2], 3)
    assert early.records["g"].tolist() == [1, 3, 2]
    assert early.seen.tolist() == [2, 1]
    late = rings.read(QUOTES, two, early.seen, rings.published(QUOTES)[:2], rings.head())
    assert late.records["g"].tolist() == [5, 4]


def test_what_a_read_gave_is_a_copy():
    rings = Rings.private(1, DEPTH)
    writer = RingWriter(rings)
    writer.write(quotes_of(0))
    one = np.zeros(1, np.int64)
    records = rings.read(QUOTES, one, one, one + 1, rings.head()).records
    newest = rings.latest(QUOTES, one, rings.head())[0]
    writer.write(quotes_of(*[0] * 100))
    assert records["n"].tolist() == newest["n"].tolist() == [1]


def test_sequence_numbers_wrap_at_32_bits_in_records_only():
    rings = Rings.private(1, DEPTH)
    rings.view.claimed[QUOTES] = rings.view.published[QUOTES] = 2**32 - 3
    writer = RingWriter(rings)
    one = np.zeros(1, np.int64)
    writer.write(quotes_of(*[0] * 6))
    ticks = rings.read(QUOTES, one, one + 2**32 - 3, rings.published(QUOTES), rings.head())
    assert ticks.records["n"].tolist() == [2**32 - 2, 2**32 - 1, 0, 1, 2, 3]
    assert (ticks.seen[0], ticks.lost[0]) == (2**32 + 3, 0)


def test_latest_of_a_symbol_that_has_gone_round_since_head_is_none():
    rings = Rings.private(2, DEPTH)
    writer = RingWriter(rings)
    writer.write(quotes_of(0, 1))
    writer.write(quotes_of(*[0] * 20))
    records, found = rings.latest(QUOTES, np.arange(2), 2)
    assert found.tolist() == [0, 1]
    assert records["symbol"].tolist() == [1]


@pytest.mark.slow
@given(BATCHES)
def test_when_a_symbol_came_first_is_known_however_many_ticks_follow(batches):
    rings = Rings.private(SYMBOLS, DEPTH)
    writer, first, now_ns = RingWriter(rings), [0] * SYMBOLS, 0
    for ticks in batches:
        batch = batch_of(*ticks)
        stamps = []
        for _, symbol in ticks:
            now_ns += 1
            stamps.append(now_ns)
            first[symbol] = first[symbol] or now_ns
        for channel, records in enumerate((batch.quotes, batch.trades)):
            records["ts_recv"] = [at for at, (c, _) in zip(stamps, ticks, strict=True) if c == channel]
        writer.write(batch)
        # Quotes of a batch are read first; the order between channels is not stored.
        assert all((a == 0) == (b == 0) and a <= b for a, b in zip(first, rings.first_ns(), strict=True))
    assert rings.first_ns(2).tolist() == rings.first_ns()[:2].tolist()
