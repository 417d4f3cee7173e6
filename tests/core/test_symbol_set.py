"""Sets of symbols against a model: the symbols over a small alphabet, one by one."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.symbol_set import SymbolSet

WORLD = ["".join(letters) for size in (1, 2, 3, 4) for letters in itertools.product("AB", repeat=size)]
names = st.text("AB", min_size=1, max_size=4)
patterns = st.lists(st.one_of(names, names.map(lambda name: f"{name[:3]}*"), st.just("*")), max_size=6)


def model(written):
    """Return the symbols of WORLD that one of the patterns matches."""
    return {
        symbol
        for symbol in WORLD
        for pattern in written
        if symbol == pattern or (pattern.endswith("*") and symbol.startswith(pattern[:-1]))
    }


@given(patterns)
def test_a_set_has_what_its_patterns_match(written):
    found = SymbolSet(written)
    assert {symbol for symbol in WORLD if symbol in found} == model(written) == model(found.patterns)
    assert found.everything == ("*" in written)
    assert SymbolSet(reversed(written)) == SymbolSet(found.patterns) == found
    assert hash(SymbolSet(reversed(written))) == hash(found)


@given(patterns, patterns)
def test_an_intersection_matches_what_both_match_and_is_no_larger_than_they_are(held, asked):
    narrowed = SymbolSet(held).narrow(asked)
    assert (
        model(narrowed) == model(held) & model(asked) == model((SymbolSet(held) & SymbolSet(asked)).patterns)
    )
    assert len(narrowed) <= len(set(held)) + len(set(asked))


@given(patterns, patterns)
def test_a_set_covers_another_only_if_it_has_all_of_it(held, other):
    if SymbolSet(held).covers(SymbolSet(other)):
        assert model(other) <= model(held)
    assert SymbolSet(held).covers(SymbolSet(held) & SymbolSet(other))
    assert SymbolSet(["*"]).covers(SymbolSet(held))
