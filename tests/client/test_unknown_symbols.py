"""Names that no symbol has: told, with what is near."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.client.unknown_symbols import near, told, unmatched

KNOWN = ["AAPL", "BTC-USD", "BTC-EUR", "ETH-USD", "SY0000", "SY0001"]


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["AAPL", "NOPE", "BTC*", "XRP*", "NOPE"], ["NOPE", "XRP*"]),
        (["*"], []),
        (["aapl"], ["aapl"]),
    ],
)
def test_names_and_patterns_that_match_nothing(names, missing):
    assert unmatched(names, KNOWN) == missing
    assert unmatched(names, []) == list(dict.fromkeys(names))


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("aapl", ["AAPL"]), ("APPL", ["AAPL"]), ("BTCUSD", ["BTC-USD"]), ("BTX*", ["BTC*"]), ("sy*", ["SY*"]),
        ("*", []), ("ZZZZZZ", []),
    ],
)  # fmt: skip
def test_what_was_perhaps_meant(name, like):
    assert near(name, KNOWN)[: len(like)] == like
    assert bool(near(name, KNOWN)) == bool(like)


def test_it_is_told_in_words():
    assert told("APPL", KNOWN, "the engine") == "the engine has no such symbol; did you mean AAPL?"
    assert told("ZZ", KNOWN, "the recording") == "the recording has no such symbol"
    assert told("BTX*", KNOWN, "it") == "it has no symbol with this prefix; did you mean BTC*?"
    assert told("*", [], "the engine") == "the engine has no symbols"


@given(st.lists(st.text("AB*", max_size=4)), st.lists(st.text("AB", min_size=1, max_size=4)))
def test_a_name_is_missing_or_matches(names, known):
    for name in set(names):
        matches = [one for one in known if one == name or (name[-1:] == "*" and one.startswith(name[:-1]))]
        assert (name in unmatched(names, known)) != bool(matches)
