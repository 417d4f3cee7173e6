"""For how long a grant is good."""

from __future__ import annotations

from marketfeed.access.claims import Claims
from marketfeed.access.entitlement import UNBOUNDED
from marketfeed.access.grant import GRACE_S, SKEW_S, Grant
from marketfeed.access.material import KeyEntry, Material

LIMITED = Grant(Claims("ann"), UNBOUNDED, expires_s=1000.0)


def test_a_key_is_good_until_it_is_revoked():
    grant = Grant(Claims("ann"), UNBOUNDED)
    assert grant.ttl_s(5.0) is None
    assert grant.ends_s(5.0) is None


def test_the_time_left_is_whole_seconds_and_never_negative():
    assert LIMITED.ttl_s(900.5) == 99
    assert LIMITED.ttl_s(1000.0) == 0
    assert LIMITED.ttl_s(2000.0) == 0


def test_a_session_ends_after_the_time_of_grace():
    assert LIMITED.ends_s(10.0) == 1000 + GRACE_S
    assert LIMITED.ends_s(1000 + GRACE_S - 1) == 1000 + GRACE_S


def test_a_token_presented_after_that_is_good_for_the_skew_of_clocks():
    assert LIMITED.ends_s(1000 + GRACE_S) == 1000 + SKEW_S


def test_no_repr_shows_a_secret():
    shown = repr(
        Material((KeyEntry("1", "HASH", 1, {}),), key=b"SECRET", previous_key=b"SECRET", jwks=b"SECRET")
    )
    assert shown == "Material(1 keys, 0 revocations)"


def test_no_two_pairs_of_tenant_and_sub_are_one_holder():
    pairs = [("", "a"), ("a", "a"), ("a", "b"), ("b", "a"), ('a","b', "c"), ("a", 'b","c'), ("é", "a")]
    holders = [Grant(Claims(sub=sub, tenant=tenant), UNBOUNDED).holder for tenant, sub in pairs]
    assert len({*holders}) == len(pairs)
    assert holders[2] == '["a","b"]'
