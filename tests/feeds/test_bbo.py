"""Best bid and offer over venues, compared with a brute-force book."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.records import QUOTE
from marketfeed.feeds.replay.bbo import Merge

SIDES = ("bid_px", "bid_sz", "ask_px", "ask_sz")

side = st.one_of(st.just((0, 0)), st.tuples(st.integers(-5, 5), st.integers(1, 3)))
rows = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), side, side), max_size=40)


def best(book, symbol, choose):
    """Return the best price of a side and the total size at it, (0, 0) without quotes."""
    there = [(px, sz) for (name, _), (px, sz) in book.items() if name == symbol and sz]
    top = choose((px for px, _ in there), default=0)
    return top, sum(sz for px, sz in there if px == top)


@pytest.mark.parametrize("whole", [False, True])
@given(rows=rows, cuts=st.lists(st.integers(0, 40), max_size=3))
def test_the_best_of_all_venues_is_that_of_their_books_however_rows_are_cut(whole, rows, cuts):
    books: tuple[dict[Any, Any], dict[Any, Any]] = ({}, {})
    last, wanted = dict[int, tuple[int, ...]](), []
    for symbol, venue, *sides in rows:
        for book, (px, sz) in zip(books, sides, strict=True):
            if sz or whole:  # else the row does not state this side
                book[symbol, venue] = (px, sz)
        found = (*best(books[0], symbol, max), *best(books[1], symbol, min))
        if found != last.get(symbol, (0, 0, 0, 0)):
            last[symbol] = found
            wanted.append((symbol, *found))
    records = np.zeros(len(rows), QUOTE)
    for record, (symbol, venue, bid, ask) in zip(records, rows, strict=True):
        record["symbol"], record["n"] = symbol, venue
        record["bid_px"], record["bid_sz"] = bid
        record["ask_px"], record["ask_sz"] = ask
    merge, got = Merge(over_all=True, whole=whole), []
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    for start, end in pairwise(edges):
        part = records[start:end].copy()
        ticks = merge.apply(part)
        got += [(int(r["symbol"]), *(r[name] for name in SIDES)) for r in part[ticks]]
    assert got == wanted
