"""The writer's protocol: reads between any two steps, death at any step, overtaking during a copy."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.few import few_of
from marketfeed.core.layout import block_bytes
from marketfeed.core.records import QUOTES, TRADES
from marketfeed.core.rings import Rings
from marketfeed.core.writer import RingWriter
from tests.support.ring_steps import Died, EitherWriter, writer_noting
from tests.support.rings import BATCHES, DEPTH, STEPS, SYMBOLS, TICKS, Ledger, Reader, batch_of, quotes_of


def stores_of(batch, depth=DEPTH):
    rings, order = Rings.private(SYMBOLS, depth), list[str]()
    writer_noting(rings, order.append).write(batch)
    return order


def test_the_writer_claims_scatters_publishes_and_stores_the_head_in_this_order():
    stores = ["_claimed", "_slots", "_published", "_published_g"]
    assert stores_of(quotes_of(0)) == stores
    assert stores_of(quotes_of(0, 1)) == stores
    both = batch_of((QUOTES, 0), (TRADES, 1))
    twice = [*["_claimed"] * 2, *["_slots"] * 2, *["_published"] * 2, "_published_g"]
    assert stores_of(both) == twice
    order = list[str]()
    writer_noting(Rings.private(SYMBOLS, DEPTH), order.append).write_few(few_of(both))
    assert order == twice


def test_more_than_a_quarter_of_depth_of_one_symbol_goes_in_several_steps():
    assert stores_of(quotes_of(0, 0, 1, 1, 2, 2)).count("_published_g") == 1
    assert stores_of(quotes_of(0, 0, 0)).count("_published_g") == 2
    assert stores_of(quotes_of(*[0] * 8)).count("_published_g") == 4
    assert stores_of(quotes_of(*[0] * 8), depth=32).count("_published_g") == 1


@given(st.lists(TICKS, max_size=60))
def test_no_step_claims_more_than_a_quarter_of_depth_of_a_symbol(ticks):
    rings = Rings.private(SYMBOLS, DEPTH)
    most, heads = [], []

    def note(array):
        most.append(int((rings.view.claimed - rings.view.published).max()))
        heads.append(rings.head())

    writer_noting(rings, note).write(batch_of(*ticks))
    assert max(most, default=0) <= DEPTH // 4
    assert heads == sorted(heads)


@pytest.mark.slow
@given(STEPS)
def test_between_any_two_stores_a_reader_sees_only_whole_ticks_up_to_head(steps):
    rings = Rings.private(SYMBOLS, DEPTH)
    readers = [Reader(rings, QUOTES), Reader(rings, TRADES)]
    slow = [Reader(rings, QUOTES), Reader(rings, TRADES)]
    ledger = Ledger()

    def note(array):
        for reader in readers:
            reader.poll()
            for symbol, got in reader.got.items():
                written = ledger.ticks[reader.channel, symbol]
                assert [written[n - 1] for n, _ in got] == [g for _, g in got]

    writer = writer_noting(rings, note, EitherWriter)
    for ticks, poll in [*steps, ([], True)]:
        ledger.add(ticks)
        writer.write(batch_of(*ticks))
        for reader in slow if poll else []:
            reader.poll()
    note("end")
    for reader in readers + slow:
        for symbol in range(SYMBOLS):
            written = ledger.ticks[reader.channel, symbol]
            assert len(reader.got[symbol]) + reader.lost[symbol] == len(written)
    # A reader at each store misses nothing: a step writes at most a quarter of the depth.
    assert not any(reader.lost.any() for reader in readers)


class OvertakenReader(Rings):
    """A reader that calls ``meanwhile``, which writes, between its copy and its check."""

    meanwhile = staticmethod(lambda: None)

    def _survived(self, *arguments):
        self.meanwhile()
        return super()._survived(*arguments)


@given(st.integers(0, 8), st.integers(0, 20), st.integers(0, 3))
def test_what_is_claimed_while_it_is_copied_is_lost(before, during, stop_at):
    block = bytearray(block_bytes(1, DEPTH))
    writer = RingWriter(Rings.create(block, 1, DEPTH))
    writer.write(quotes_of(*[0] * before))
    rings = OvertakenReader(block)
    stores = iter(["_claimed", "_slots", "_published", "_published_g"][stop_at:])
    last = next(stores)

    def note(array):
        if array == last and writer_is_late[0]:
            raise Died

    writer_is_late = [False]
    successor = writer_noting(rings, note, EitherWriter)

    def meanwhile():
        successor.write(quotes_of(*[0] * during))
        writer_is_late[0] = True
        with pytest.raises(Died):
            successor.write(quotes_of(0))

    rings.meanwhile = meanwhile
    one = np.zeros(1, np.int64)
    ticks = rings.read(QUOTES, one, one, one + before, rings.head())
    claimed = before + during + (last != "_claimed")
    assert ticks.lost[0] == min(before, max(claimed - DEPTH, 0))
    assert ticks.records["n"].tolist() == list(range(int(ticks.lost[0]) + 1, before + 1))
    assert ticks.seen[0] == before


@pytest.mark.slow
@given(BATCHES, st.lists(TICKS, min_size=1, max_size=12), st.integers(0, 12), BATCHES)
def test_a_writer_that_dies_at_any_store_leaves_readable_rings_and_a_successor_goes_on(
    before, dying, stores_done, after
):
    block = bytearray(block_bytes(SYMBOLS, DEPTH))
    first = RingWriter(Rings.create(block, SYMBOLS, DEPTH))
    for ticks in before:
        first.write(batch_of(*ticks))
    left = [stores_done]

    def note(array):
        if not left[0]:
            raise Died
        left[0] -= 1

    with contextlib.suppress(Died):
        writer_noting(Rings(block), note, EitherWriter).write(batch_of(*dying))
    rings = Rings(block)
    claimed, head = rings.view.claimed.copy(), rings.head()
    readers = [Reader(rings, QUOTES), Reader(rings, TRADES)]
    for reader in readers:
        reader.poll()
    successor = RingWriter(Rings(block))
    given_before = {
        (channel, n, symbol, g)
        for channel, reader in enumerate(readers)
        for symbol, got in reader.got.items()
        for n, g in got
    }
    g = head
    for ticks in after:
        batch = batch_of(*ticks)
        last = successor.write(batch)
        assert last >= g
        assert (rings.view.claimed >= claimed).all()
        assert not (rings.view.claimed < rings.view.published).any()
        claimed = rings.view.claimed.copy()
        if ticks:
            assert min(batch.quotes["g"].min(initial=2**62), batch.trades["g"].min(initial=2**62)) > g
            g = last
        for reader in readers:
            reader.poll()
    stamps = [g for reader in readers for got in reader.got.values() for _, g in got]
    assert len(stamps) == len(set(stamps))
    for channel, reader in enumerate(readers):
        for got in reader.got.values():
            assert got == sorted(got)
            assert [n for n, _ in got] == sorted({n for n, _ in got})
            assert [stamp for _, stamp in got] == sorted({stamp for _, stamp in got})
        if any(after):
            assert reader.seen.tolist() == rings.published(channel).tolist()
    assert given_before <= {
        (channel, n, symbol, g)
        for channel, reader in enumerate(readers)
        for symbol, got in reader.got.items()
        for n, g in got
    }


def test_a_record_torn_by_a_dying_writer_is_never_read():
    block = bytearray(block_bytes(1, DEPTH))
    rings = Rings.create(block, 1, DEPTH)
    RingWriter(rings).write(quotes_of(*[0] * DEPTH))

    def note(array):
        if array == "_published":
            raise Died

    dying = writer_noting(rings, note, EitherWriter)
    with pytest.raises(Died):
        dying.write(quotes_of(0, 0))
    rings.view.records[QUOTES]["bid_px"][0] = -1  # half of tick 9 in the slot of tick 1
    reader = Reader(rings, QUOTES)
    reader.poll()
    assert [n for n, _ in reader.got[0]] == [3, 4, 5, 6, 7, 8]
    assert reader.lost[0] == 2
    RingWriter(Rings(block)).write(quotes_of(0))
    reader.poll()
    assert reader.got[0][-1] == (9, 9)


def test_a_successor_that_writes_less_does_not_unclaim_what_the_dead_writer_tore():
    block = bytearray(block_bytes(1, DEPTH))
    rings = Rings.create(block, 1, DEPTH)
    RingWriter(rings).write(quotes_of(*[0] * DEPTH))

    def note(array):
        if array == "_slots":
            raise Died

    with pytest.raises(Died):
        writer_noting(rings, note, EitherWriter).write(quotes_of(0, 0))
    rings.view.records[QUOTES]["bid_px"][1] = -1  # tick 10 is partly written; n is still 2
    RingWriter(Rings(block)).write(quotes_of(0))
    reader = Reader(rings, QUOTES)
    reader.poll()
    assert [n for n, _ in reader.got[0]] == [3, 4, 5, 6, 7, 8, 9]
    assert reader.lost[0] == 2
    RingWriter(Rings(block)).write(quotes_of(0, 0))
    reader.poll()
    assert [n for n, _ in reader.got[0]] == [3, 4, 5, 6, 7, 8, 9, 10, 11]
