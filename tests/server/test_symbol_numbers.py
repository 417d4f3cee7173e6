"""Numbers of symbols over lives: a name has one, whatever its id in each life."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.server.symbol_numbers import SymbolNumbers

NAMES = st.lists(st.sampled_from("ABCDEFGH"), unique=True)


def packed(ids):
    return np.array(ids, "<u4").tobytes()


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_a_number_names_the_symbol_of_each_life(lives):
    numbers = SymbolNumbers()
    for names in lives:
        translation = numbers.of(names.copy)
        found = np.frombuffer(translation.numbers(packed(range(len(names)))), "<u4")
        assert [numbers.names[number] for number in found] == names
    assert len(set(numbers.names)) == len(numbers.names)


def test_ids_of_the_first_life_are_not_translated():
    names = ["A", "B"]
    translation = SymbolNumbers().of(lambda: names)
    ids = packed([1, 0])
    assert translation.numbers(ids) is ids
    names.append("C")
    ids = packed([2])
    assert translation.numbers(ids) is ids
