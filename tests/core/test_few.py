"""The path for a few ticks: what it writes and reads is what the path of arrays writes and reads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core import few
from marketfeed.core.few import FEW, FIELDS, few_of
from marketfeed.core.layout import block_bytes
from marketfeed.core.records import DTYPES, QUOTES, TRADES
from marketfeed.core.rings import FEW_SYMBOLS, Rings
from marketfeed.core.writer import RingWriter
from tests.support.rings import SYMBOLS, TICKS, batch_of, quotes_of

DEPTH = 64


def with_values(batch, seed):
    """Fill every field but the writer's with random bytes."""
    rng = np.random.default_rng(seed)
    for records in (batch.quotes, batch.trades):
        symbols = records["symbol"].copy()
        records.view(np.uint8)[:] = rng.integers(0, 256, 64 * len(records))
        records["symbol"] = symbols
    return batch


def rings_of(blocks):
    block = bytearray(block_bytes(SYMBOLS, DEPTH))
    blocks.append(block)
    return Rings.create(block, SYMBOLS, DEPTH, "e1")


@given(st.lists(st.lists(TICKS, min_size=1, max_size=FEW), max_size=40), st.booleans())
def test_both_writers_leave_the_same_block(batches, ordered):
    blocks: list[bytearray] = []
    one_by_one, arrays = (RingWriter(rings_of(blocks), lambda: 7) for _ in range(2))
    for seed, ticks in enumerate(batches):
        batch = with_values(batch_of(*ticks, ordered=ordered), seed)
        assert one_by_one.write_few(few_of(batch)) == arrays.write(batch)
    assert blocks[0] == blocks[1]


@given(st.lists(TICKS, max_size=FEW), st.booleans())
def test_a_batch_that_is_taken_apart_and_put_together_is_the_same(ticks, ordered):
    batch = with_values(batch_of(*ticks, ordered=ordered), 1)
    again = few.batch_of(few_of(batch))
    assert again.quotes.tobytes() == batch.quotes.tobytes()
    assert again.trades.tobytes() == batch.trades.tobytes()
    assert again.channels is not None
    assert again.channels.tolist() == [
        channel for channel, _ in (ticks if ordered else sorted(ticks, key=lambda t: t[0]))
    ]


@pytest.mark.parametrize("ring", ["too small", "left behind by a writer that died"])
def test_what_the_few_cannot_write_goes_through_arrays(ring):
    rings = Rings.private(SYMBOLS, 8 if ring == "too small" else DEPTH)
    if ring != "too small":
        rings.view.claimed[QUOTES, 0] = 3
    assert RingWriter(rings).write_few(few_of(quotes_of(0, 0, 0))) == 3
    assert rings.head() == 3
    assert rings.published(QUOTES)[0] == 3


@given(st.lists(st.lists(TICKS, min_size=1, max_size=20), max_size=30), st.integers(0, FEW))
def test_both_readers_return_the_same_ticks(batches, back):
    rings = rings_of([])
    writer = RingWriter(rings)
    for seed, ticks in enumerate(batches):
        writer.write(with_values(batch_of(*ticks), seed))
    head = rings.head()
    after = max(head - back, 0)
    found, whole = rings.few.between(after, head), rings.between(after, head)
    assert (found is None) == (whole is None)
    if found is None:
        return
    assert [tick.fields[2] for tick in found] == list(range(after + 1, head + 1))
    for channel, (records, ns) in enumerate(whole):
        mine = [tick for tick in found if tick.channel == channel]
        assert b"".join(tick.record for tick in mine) == records.tobytes()
        assert [(tick.symbol, tick.n) for tick in mine] == list(
            zip(records["symbol"].tolist(), ns.tolist(), strict=True)
        )


def test_ticks_that_are_overwritten_are_not_returned():
    rings = rings_of([])
    writer = RingWriter(rings)
    writer.write(quotes_of(0))
    for _ in range(DEPTH):
        writer.write(quotes_of(0))
    assert rings.few.between(0, 1) is None
    assert [tick.n for tick in rings.few.between(1, 3)] == [2, 3]


def test_n_is_not_taken_modulo_the_field_of_the_record():
    rings = rings_of([])
    writer = RingWriter(rings)
    for counts in (rings.view.claimed, rings.view.published):
        counts[TRADES, 2] = 2**32 - 1
    writer.write(batch_of((TRADES, 2), (TRADES, 2)))
    assert [tick.n for tick in rings.few.between(0, 2)] == [2**32, 2**32 + 1]
    assert [int(n) for _, ns in rings.between(0, 2) for n in ns] == [2**32, 2**32 + 1]


def test_an_unknown_symbol_raises_and_publishes_nothing():
    rings = rings_of([])
    writer = RingWriter(rings)
    with pytest.raises(IndexError):
        writer.write_few(few_of(quotes_of(0, SYMBOLS)))
    assert rings.head() == 0
    assert not rings.view.claimed.any()
    writer.write_few(few_of(quotes_of(1)))
    assert rings.head() == 1


def test_the_fields_are_those_of_the_dtypes():
    for channel, dtype in enumerate(DTYPES):
        record = np.frombuffer(bytes(range(64)), dtype)[0]
        fields = FIELDS[channel].unpack(bytes(range(64)))
        named = {name: record[name] for name in ("ts_event", "ts_recv", "g")}
        assert list(fields[:3]) == [int(value) for value in named.values()]
        assert fields[7:] == tuple(int(record[name]) for name in ("n", "symbol", "feed", "flags"))
        middle = (
            ("bid_px", "ask_px", "bid_sz", "ask_sz") if channel == QUOTES else ("price", "trade_id", "size")
        )
        assert list(fields[3 : 3 + len(middle)]) == [record[name].item() for name in middle]


@given(st.lists(st.lists(TICKS, min_size=1, max_size=40), max_size=20), st.integers(0, 800), st.data())
def test_positions_and_ticks_one_by_one_are_those_of_the_arrays(batches, g, data):
    rings = Rings.private(SYMBOLS, 8)  # most ticks are overwritten
    writer = RingWriter(rings, lambda: 7)
    for seed, ticks in enumerate(batches):
        writer.write(with_values(batch_of(*ticks), seed))
    head = data.draw(st.integers(max(rings.head() - 5, 0), rings.head()))
    symbols = np.tile(np.arange(SYMBOLS), 2 + FEW_SYMBOLS // SYMBOLS)  # too many to be searched one by one
    for channel in (QUOTES, TRADES):
        positions = rings.position(channel, symbols, g).tolist()
        assert [rings.few.position(channel, symbol, g) for symbol in symbols.tolist()] == positions
        for symbol, published in enumerate(rings.published(channel, SYMBOLS).tolist()):
            for n in range(1, published + 1):
                upto = np.array([n], np.int64)
                read = rings.read(channel, np.array([symbol]), upto - 1, upto, head)
                tick = rings.few.tick(channel, symbol, n, head)
                assert (b"" if tick is None else tick.record) == read.records.tobytes()
