"""Gaps are counted by tick numbers, for any division into frames."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.records import FLAG_SNAPSHOT, QUOTE, QUOTES, TRADE, TRADES
from marketfeed.recordings.gaps import GapCounter


def records(ticks, dtype=QUOTE, flags=0):
    found = np.zeros(len(ticks), dtype)
    found["symbol"] = [symbol for symbol, _ in ticks]
    found["n"] = [n for _, n in ticks]
    found["flags"] = flags
    return found


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60), st.lists(st.integers(0, 60)))
def test_what_is_left_out_is_counted(sent, cuts):
    ns, kept, left_out = dict[tuple[int, int], int](), [], dict[tuple[int, int], int]()
    missing = 0
    for symbol, keep in sent:
        ns[symbol] = ns.get(symbol, 0) + 1
        if keep:
            kept.append((symbol, ns[symbol]))
            missing += left_out.pop(symbol, 0)
        else:
            left_out[symbol] = left_out.get(symbol, 0) + 1
    gaps = GapCounter()
    edges = [0, *sorted(cut for cut in cuts if cut < len(kept)), len(kept)]
    found = [gaps.take(QUOTES, records(kept[a:b])) for a, b in pairwise(edges)]
    assert sum(found) == missing


def test_a_snapshot_begins_a_symbol_and_what_a_later_one_skips_is_missing():
    gaps = GapCounter()
    assert gaps.take(QUOTES, records([(1, 500)], flags=FLAG_SNAPSHOT)) == 0
    assert gaps.take(QUOTES, records([(1, 501), (1, 502)])) == 0
    assert gaps.take(QUOTES, records([(1, 502)], flags=FLAG_SNAPSHOT)) == 0
    assert gaps.take(QUOTES, records([(1, 510)], flags=FLAG_SNAPSHOT)) == 7
    assert gaps.take(QUOTES, records([(1, 511)])) == 0


def test_channels_are_apart_doubles_are_no_holes_and_an_epoch_is_forgotten():
    gaps = GapCounter()
    assert gaps.take(QUOTES, records([(1, 1), (1, 2), (1, 3)])) == 0
    assert gaps.take(QUOTES, records([(1, 2), (1, 3), (1, 4)])) == 0
    assert gaps.take(TRADES, records([(1, 1)], TRADE)) == 0
    assert gaps.take(QUOTES, records([(1, 6)])) == 1
    gaps.forget()
    assert gaps.take(QUOTES, records([(1, 1)])) == 0
