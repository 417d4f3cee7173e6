"""The sequence: all ticks since a g in order, or None; never an extra or a missing tick."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.records import QUOTES, TRADES
from marketfeed.core.rings import Rings
from marketfeed.core.sequence import ENTRIES, sequence_entries
from marketfeed.core.writer import RingWriter
from tests.support.rings import BATCHES, DEPTH, SYMBOLS, Ledger, batch_of, quotes_of


def place_of(ledger):
    """Return (channel, symbol, n) of every written tick by g."""
    return {g: (*key, n) for key, gs in ledger.ticks.items() for n, g in enumerate(gs, 1)}


def between(rings, after, upto):
    """Return what lies between, which must be there."""
    found = rings.between(after, upto)
    assert found is not None
    return found


@given(batches=BATCHES, ordered=st.booleans(), back=st.integers(0, 80))
def test_what_lies_between_is_every_tick_in_order_or_nothing(batches, ordered, back):
    rings = Rings.private(SYMBOLS, DEPTH)
    writer, ledger = RingWriter(rings), Ledger()
    for ticks in batches:
        writer.write(batch_of(*ticks, ordered=ordered))
        ledger.add(ticks if ordered else sorted(ticks, key=lambda tick: tick[0]))
        head = rings.head()
        after = max(0, head - back)
        written = place_of(ledger)
        found = rings.between(after, head)
        held = all(
            n > len(ledger.ticks[channel, symbol]) - DEPTH
            for channel, symbol, n in (written[g] for g in range(after + 1, head + 1))
        )
        if found is None:
            assert not held or head - after >= sequence_entries(SYMBOLS, DEPTH)
            continue
        assert held
        got = {}
        for channel, (records, ns) in enumerate(found):
            assert (np.diff(records["g"].astype(np.int64)) > 0).all()
            for record, n in zip(records, ns.tolist(), strict=True):
                got[int(record["g"])] = (channel, int(record["symbol"]), n)
        assert got == {g: written[g] for g in range(after + 1, head + 1)}


def test_it_reaches_back_as_far_as_small_rings_do_and_no_further_than_it_says():
    assert sequence_entries(4, 8) == 64
    assert sequence_entries(8192, 1024) == ENTRIES
    rings = Rings.private(2, 16)
    writer = RingWriter(rings)
    for _ in range(20):
        writer.write(quotes_of(0))
    assert rings.between(0, 20) is None  # four are overwritten
    (records, ns), (trades, _) = between(rings, 4, 20)
    assert ns.tolist() == list(range(5, 21))
    assert not len(trades)
    assert records["n"].tolist() == ns.tolist()


def test_an_n_that_has_gone_round_its_field_is_told_whole():
    rings = Rings.private(1, 8)
    for channel in (QUOTES, TRADES):
        rings.view.published[channel][0] = rings.view.claimed[channel][0] = 2**32 - 2
    writer = RingWriter(rings)
    writer.write(quotes_of(0))
    writer.write(quotes_of(0))
    (records, ns), _ = between(rings, 0, 2)
    assert records["n"].tolist() == [2**32 - 1, 0]
    assert ns.tolist() == [2**32 - 1, 2**32]


def test_a_successor_leaves_no_tick_behind_that_was_never_published():
    rings = Rings.private(SYMBOLS, DEPTH)
    writer = RingWriter(rings)
    writer.write(quotes_of(0, 1))
    # Died after storing the records and before advancing the head.
    rings.view.published_g[0] = 0
    RingWriter(rings).write(quotes_of(2))
    assert rings.head() == 3
    (records, _), _ = between(rings, 2, 3)
    assert records["symbol"].tolist() == [2]
