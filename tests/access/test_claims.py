"""Claims: their names, defaults, and what is refused."""

from __future__ import annotations

import pytest

from marketfeed.access.claims import MAX_PATTERNS, NAMES, Claims, claims_of
from marketfeed.config.rules import CLAIMS
from marketfeed.config.schema import DefaultsConfig
from marketfeed.errors import AccessError

WHOLE = {
    "sub": "ann", "tenant": "acme", "tier": "vip", "symbols": ["BTC*", "AAPL"], "channels": ["alerts"],
    "consumers": ["risk*"], "publish": ["*", "desk-1"], "max_sessions": 0, "max_symbols": 10,
}  # fmt: skip


def test_every_claim_is_read():
    assert claims_of(WHOLE) == Claims(
        "ann", "acme", "vip", ("BTC*", "AAPL"), ("alerts",), ("risk*",), ("*", "desk-1"), 0, 10
    )


def test_the_configuration_knows_the_same_claims():
    assert NAMES == CLAIMS
    assert set(DefaultsConfig.__struct_fields__) == set(NAMES) - {"sub"}


def test_a_holder_without_further_claims_sees_nothing():
    assert claims_of({"sub": "ann", "exp": 1, "other": {}}) == Claims("ann")
    assert Claims("ann").symbols == ()
    assert "alerts" not in Claims("ann").channels


def test_claims_have_the_names_of_the_identity_provider():
    names = {"sub": "email", "tier": "https://example.com/tier"}
    sent = {"email": "ann@example.com", "https://example.com/tier": "vip", "sub": "1", "tier": "basic"}
    assert claims_of(sent, names) == Claims("ann@example.com", tier="vip")


@pytest.mark.parametrize("absent", [{}, {"symbols": None}])
def test_what_is_absent_or_null_is_the_default(absent):
    assert claims_of({"sub": "ann", **absent}, None, {"symbols": ["A"]}).symbols == ("A",)
    assert claims_of({"sub": "ann", "symbols": []}, None, {"symbols": ["A"]}).symbols == ()


@pytest.mark.parametrize(
    "sub",
    ["", None, 5, True, {}, "a" * 257, "\n", "\x00", "\x1b[2J", "\x85", "\u2028", "\u202e", "\ud800"],
)  # fmt: skip
def test_a_holder_must_have_a_name_that_can_be_printed(sub):
    with pytest.raises(AccessError, match=r"^the claims are invalid: "):
        claims_of({"sub": sub})


@pytest.mark.parametrize("wrong", ["A B", "", "*A", "A**", "B*C", "ä", "A" * 25, 'A"', "a\n"])
def test_symbols_must_be_names_or_prefixes(wrong):
    with pytest.raises(AccessError, match="symbols: not a symbol"):
        claims_of({"sub": "ann", "symbols": ["AAPL", wrong]})


@pytest.mark.parametrize("name", ["consumers", "publish"])
@pytest.mark.parametrize("wrong", ["", "a b", "a\n", "ä", "a" * 65])
def test_consumers_must_be_names_or_prefixes(name, wrong):
    with pytest.raises(AccessError, match=f"{name}: not a consumer"):
        claims_of({"sub": "ann", name: [wrong]})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tenant", 5),
        ("tenant", "a\rb"),
        ("tenant", "\udfff"),
        ("tier", ["vip"]),
        ("symbols", "BTC*"),
        ("symbols", {"BTC*": 1}),
        ("symbols", [1]),
        ("symbols", ["A"] * (MAX_PATTERNS + 1)),
        ("channels", "quotes"),
        ("channels", ["quotes", "everything"]),
        ("consumers", True),
        ("max_sessions", -1),
        ("max_sessions", "3"),
        ("max_sessions", True),
        ("max_symbols", 1.5),
        ("max_symbols", 2**64),
    ],
)
def test_claims_of_the_wrong_type_are_refused(name, value):
    with pytest.raises(AccessError, match=name) as caught:
        claims_of({"sub": "ann", name: value})
    assert len(str(caught.value)) < 300


def test_no_claim_can_forge_a_line_of_the_log():
    with pytest.raises(AccessError) as caught:
        claims_of({"sub": "ann", "channels": ["x\nlevel=info msg=forged" + "x" * 5000]})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
