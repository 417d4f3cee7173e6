"""Lookup of a batch's time of publication by g, while it is retained."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.stamps import ENTRIES, STAMPS_BYTES, Stamps


def fresh():
    return Stamps(np.zeros(STAMPS_BYTES, np.uint8), np.zeros(1, np.uint64))


def times(stamps, gs):
    found = np.full(len(gs), -1, np.int64)
    stamps.fill(np.array(gs, np.uint64), found)
    return found


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.data())
def test_every_tick_has_the_time_of_its_batch(sizes, data):
    stamps, expected, g = fresh(), dict[int, int](), 0
    for number, size in enumerate(sizes):
        expected |= {g + 1 + i: 1000 + number for i in range(size)}
        g += size
        stamps.note(g, 1000 + number)
    asked = sorted(data.draw(st.sets(st.integers(1, g), min_size=1)))
    assert times(stamps, asked).tolist() == [expected[one] for one in asked]


@given(st.integers(0, 3 * ENTRIES), st.integers(1, 3))
def test_what_is_too_long_ago_has_no_time_and_the_rest_still_has_its_own(batches, size):
    stamps = fresh()
    for number in range(1, batches + 1):
        stamps.note(number * size, number)
    asked = np.arange(1, batches * size + 1, dtype=np.uint64)
    found, expected = times(stamps, asked), (asked.astype(np.int64) + size - 1) // size
    known = found > 0
    assert (found[known] == expected[known]).all()
    assert known.sum() >= min(batches, ENTRIES // 2 - 1) * size
    assert not known.any() or known[-1]


def test_a_tick_that_no_batch_was_noted_for_has_no_time():
    stamps = fresh()
    assert times(stamps, [1, 2]).tolist() == [0, 0]
    stamps.note(1, 7)
    assert times(stamps, [1, 2]).tolist() == [7, 0]
    assert times(stamps, []).tolist() == []
