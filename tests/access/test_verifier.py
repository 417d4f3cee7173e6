"""From what a client presents to its grant; and what a grant is later."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest

from marketfeed.access import verifier as module
from marketfeed.access.claims import Claims
from marketfeed.access.grant import SKEW_S
from marketfeed.access.material import KeyEntry, Material
from marketfeed.access.revocations import Revocation
from marketfeed.access.secrets import new_key
from marketfeed.access.verifier import Verifier
from marketfeed.config.schema import DefaultsConfig, TenantConfig
from marketfeed.errors import AccessError
from tests.support.tokens import NOW_S, SECRET, config, raw_token, token, verifier

KEY_ID, HASH, KEY = new_key()
ENTRY = KeyEntry(KEY_ID, HASH, int(NOW_S), {"sub": "ann", "tier": "vip", "symbols": ["BTC*"]})


def of_keys(*entries: KeyEntry, revocations: Any = (), **keys: Any) -> Verifier:
    return verifier(
        Material(keys=entries, revocations=tuple(revocations)), mode="keys", algorithm=None, **keys
    )


def revoked(kind: Any, value: str, at_s: float = NOW_S) -> Material:
    return Material(key=SECRET, revocations=(Revocation(kind, value, at_s),))


def test_a_token_gives_its_claims_until_it_expires():
    grant = verifier().verify(token(jti="t1", tier="premium", symbols=["BTC*", "AAPL"]), NOW_S)
    assert grant.claims == Claims("ann", tier="premium", symbols=("BTC*", "AAPL"))
    assert (grant.token_id, grant.issued_s, grant.expires_s) == ("t1", NOW_S, NOW_S + 3600)
    assert grant.entitlement.tiers == ("premium", "basic")
    assert grant.entitlement.narrow(0, ["*"]) == ["BTC*", "AAPL"]


def test_claims_of_a_token_have_the_names_and_defaults_of_the_configuration():
    found = verifier(
        claims={"tier": "https://example.com/tier"}, defaults=DefaultsConfig(symbols=["A"], max_sessions=2)
    )
    named: Any = {"https://example.com/tier": "vip", "tier": "basic"}
    text = token(symbols=..., **named)
    assert found.verify(text, NOW_S).claims == Claims("ann", tier="vip", symbols=("A",), max_sessions=2)


def test_a_key_gives_the_claims_of_its_entry():
    grant = of_keys(ENTRY).verify(KEY, NOW_S)
    assert grant.claims == Claims("ann", tier="vip", symbols=("BTC*",))
    assert (grant.token_id, grant.issued_s, grant.expires_s) == (KEY_ID, NOW_S, None)


def test_keys_have_the_defaults_but_our_own_names():
    found = of_keys(ENTRY, claims={"sub": "email"}, defaults=DefaultsConfig(max_symbols=3))
    assert found.verify(KEY, NOW_S).claims == Claims("ann", tier="vip", symbols=("BTC*",), max_symbols=3)


def test_a_token_is_no_key_and_a_key_no_token():
    with pytest.raises(AccessError, match="not a key"):
        of_keys(ENTRY).verify(token(), NOW_S)
    with pytest.raises(AccessError, match="not a JSON Web Token"):
        verifier().verify(KEY, NOW_S)


def test_a_mebibyte_is_refused_in_either_mode():
    for found in (of_keys(ENTRY), verifier()):
        with pytest.raises(AccessError, match="more than"):
            found.verify("a" * (1 << 20), NOW_S)


@pytest.mark.parametrize("jti", [1, True, ["a"], {}, "a" * 257, "a\n", "\ud800"])
def test_the_id_of_a_token_must_be_printable_text(jti):
    body = json.dumps({"sub": "ann", "exp": NOW_S + 60, "jti": jti}).encode()
    with pytest.raises(AccessError, match=r"jti|not a JSON Web Token"):
        verifier().verify(raw_token(body), NOW_S)


@pytest.mark.parametrize("claim", ["sub", "tenant"])
def test_names_that_could_not_be_printed_are_refused(claim):
    body = json.dumps({"sub": "ann", "exp": NOW_S + 60, claim: "a\ud800"}).encode()
    with pytest.raises(AccessError, match=claim):
        verifier().verify(raw_token(body), NOW_S)


def test_a_token_without_a_holder_is_refused():
    with pytest.raises(AccessError, match="sub"):
        verifier().verify(token(sub=...), NOW_S)


def test_a_token_that_was_verified_expires_all_the_same():
    found, text = verifier(), token(exp=NOW_S + 60)
    assert found.verify(text, NOW_S) is found.verify(text, NOW_S + 60 + SKEW_S)
    with pytest.raises(AccessError, match="has expired"):
        found.verify(text, NOW_S + 61 + SKEW_S)


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "KEPT", 2)
    found = verifier()
    texts = [token(sub=f"s{index}") for index in range(5)]
    first = found.verify(texts[0], NOW_S)
    for text in texts:
        found.verify(text, NOW_S)
    assert len(found._kept) <= 2
    assert len(found._entitlements) <= 2
    assert found.verify(texts[0], NOW_S) == first


def test_sessions_with_the_same_claims_share_an_entitlement():
    found = verifier()
    one, other = (found.verify(token(jti=name), NOW_S) for name in "ab")
    assert one.entitlement is other.entitlement


@pytest.mark.parametrize(("kind", "value"), [("sub", "ann"), ("tenant", "acme"), ("token", "t1")])
def test_what_is_revoked_is_refused_also_if_it_was_verified_before(kind, value):
    text = token(tenant="acme", jti="t1")
    grant = verifier().verify(text, NOW_S)
    after = verifier(revoked(kind, value))
    with pytest.raises(AccessError, match=r"^revoked$"):
        after.verify(text, NOW_S)
    with pytest.raises(AccessError, match=r"^revoked$"):
        after.again(grant, NOW_S)
    assert verifier(revoked(kind, "other")).again(grant, NOW_S) == grant


def test_a_token_issued_after_a_revocation_of_its_holder_is_good():
    assert verifier(revoked("sub", "ann", NOW_S - 1)).verify(token(), NOW_S)


def test_a_grant_follows_the_bounds_of_its_tenant():
    grant = verifier(tenants={"acme": TenantConfig()}).verify(token(tenant="acme"), NOW_S)
    assert grant.entitlement.shows("AAPL")
    narrowed = verifier(tenants={"acme": TenantConfig(symbols=("BTC*",))}).again(grant, NOW_S)
    assert not narrowed.entitlement.shows("AAPL")
    with pytest.raises(AccessError, match="no such tenant"):
        verifier(tenants={"other": TenantConfig()}).again(grant, NOW_S)


def test_a_grant_follows_the_entry_of_its_key():
    grant = of_keys(ENTRY).verify(KEY, NOW_S)
    changed = KeyEntry(KEY_ID, HASH, int(NOW_S), {"sub": "ann", "symbols": ["ETH*"]})
    assert of_keys(changed).again(grant, NOW_S).claims.symbols == ("ETH*",)
    with pytest.raises(AccessError, match="the key was revoked"):
        of_keys().again(grant, NOW_S)


def test_a_grant_of_a_token_expires_when_it_is_looked_at_again():
    grant = verifier().verify(token(exp=NOW_S + 60), NOW_S)
    with pytest.raises(AccessError, match="has expired"):
        verifier().again(grant, NOW_S + 61 + SKEW_S)


def test_a_configuration_without_tokens_needs_no_key():
    assert Verifier(config(mode="none", algorithm=None), Material())


def test_a_token_of_the_previous_key_is_refused_after_its_time_however_often_it_was_presented():
    old = b"the former HS256 secret of 32 bytes"
    until_s = NOW_S + 10
    found = Verifier(config(), Material(key=SECRET, previous_key=old, previous_until_s=until_s))
    former, present = (
        jwt.encode({"sub": "ann", "exp": NOW_S + 3600}, secret, "HS256") for secret in (old, SECRET)
    )
    for now_s in (NOW_S, until_s):
        assert found.verify(former, now_s).claims.sub == found.verify(present, now_s).claims.sub == "ann"
    assert found.verify(present, until_s + 1)
    with pytest.raises(AccessError, match="signature is wrong"):
        found.verify(former, until_s + 1)
