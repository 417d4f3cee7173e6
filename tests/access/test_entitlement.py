"""Entitlements against the obvious model: a list of patterns, each compared with each symbol."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.access.claims import Claims
from marketfeed.access.entitlement import UNBOUNDED, Entitlement, entitlement_of, in_order
from marketfeed.config.schema import TenantConfig, TierConfig
from marketfeed.errors import AccessError
from tests.support.tokens import TIERS

CHANNELS = ("quotes", "trades", "alerts")
ORDER = ("vip", "premium", "basic")
UNIVERSE = [a + b + c for a in ("A", "B", "") for b in ("A", "B", "") for c in ("A", "B", "")]
UNIVERSE = sorted({name for name in UNIVERSE if name})
names = st.text("AB", min_size=1, max_size=3)
patterns = st.lists(st.one_of(names, st.text("AB", max_size=3).map(lambda text: f"{text}*")), max_size=6)
channels = st.sets(st.sampled_from(CHANNELS)).map(lambda found: tuple(sorted(found)))


def matches(name: str, some: Any) -> bool:
    return any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in some)


@given(patterns, channels, patterns, channels, patterns)
def test_what_is_left_of_a_subscription_is_asked_for_entitled_and_of_the_tenant(
    held, held_on, of_tenant, tenant_on, asked
):
    claims = Claims("ann", "acme", "vip", tuple(held), held_on)
    tenant = TenantConfig(symbols=tuple(of_tenant), channels=tenant_on)
    found = entitlement_of(claims, {"acme": tenant}, TIERS)
    for number, channel in enumerate(CHANNELS[:2]):
        on = channel in held_on and channel in tenant_on
        may = {name for name in UNIVERSE if on and matches(name, held) and matches(name, of_tenant)}
        left = found.narrow(number, asked)
        assert {name for name in UNIVERSE if matches(name, left)} == {n for n in may if matches(n, asked)}
        plain = [name for name in asked if not name.endswith("*") and name not in may]
        assert found.forbidden(number, asked) == (plain[0] if plain else None)
    alerts = "alerts" in held_on and "alerts" in tenant_on
    for name in UNIVERSE:
        entitled = matches(name, held) and matches(name, of_tenant)
        ticks = any(channel in held_on and channel in tenant_on for channel in CHANNELS[:2])
        assert found.shows(name) == (ticks and entitled)
        assert found.shows_alert(name) == (alerts and entitled)
    assert found.shows_alert("") == alerts


@given(patterns, names)
def test_consumers_and_addressees_are_names_or_prefixes(held, name):
    claims = Claims("ann", channels=("alerts",), consumers=tuple(held), publish=tuple(held))
    found = entitlement_of(claims, {}, TIERS)
    assert found.allows_consumer(name) == matches(name, held)
    assert found.allows_publishing(name) == matches(name, held)
    assert found.allows_publishing(None) == ("*" in held)


def test_consumers_need_the_channel_of_alerts():
    assert not entitlement_of(Claims("ann", consumers=("*",)), {}, TIERS).allows_consumer("risk")


@given(st.sampled_from([None, *ORDER]), st.none() | st.sets(st.sampled_from(ORDER)), st.sampled_from(ORDER))
def test_tiers_are_those_of_the_tenant_from_the_claim_on(best, of_tenant, default):
    tenant = TenantConfig(tiers=None if of_tenant is None else sorted(of_tenant))
    allowed = [
        name
        for name in ORDER[ORDER.index(best or "basic") :]
        if of_tenant is None or name in of_tenant
    ]  # fmt: skip
    claims = Claims("ann", "acme", best)
    if not allowed:
        with pytest.raises(AccessError, match="leave a tier"):
            entitlement_of(claims, {"acme": tenant}, TIERS)
        return
    found = entitlement_of(claims, {"acme": tenant}, TIERS)
    assert [name for name in ORDER if found.allows_tier(name)] == allowed
    # The default, or the best that is allowed, whichever is slower; but never one that is not allowed.
    slower = [name for name in allowed if ORDER.index(name) >= ORDER.index(default)]
    assert found.tier_of(default, ORDER) == (slower[0] if slower else allowed[-1])


def test_tiers_are_ordered_by_interval_then_by_delivery():
    tiers = {
        "slow": TierConfig(500, "every"),
        "latest": TierConfig(0, "latest"),
        "every": TierConfig(0, "every"),
    }
    assert in_order(tiers) == ("every", "latest", "slow")
    assert entitlement_of(Claims("ann", tier="latest"), {}, tiers).tiers == ("latest", "slow")


def test_a_claim_of_an_unknown_tier_is_refused():
    with pytest.raises(AccessError, match=r"tier: no such tier: 'gold\\n'"):
        entitlement_of(Claims("ann", tier="gold\n"), {}, TIERS)


@pytest.mark.parametrize("tenant", ["", "other", "\n"])
def test_where_there_are_tenants_a_claim_must_name_one(tenant):
    with pytest.raises(AccessError, match="no such tenant") as caught:
        entitlement_of(Claims("ann", tenant), {"acme": TenantConfig()}, TIERS)
    assert str(caught.value).isprintable()


def test_where_there_are_none_any_name_is_good():
    assert entitlement_of(Claims("ann", "acme", "vip"), {}, TIERS).tiers == ORDER


def test_without_access_control_everything_may_be_seen_and_done():
    assert Entitlement() == UNBOUNDED
    assert UNBOUNDED.narrow(0, ["B*", "A"]) == ["A", "B*"]
    assert UNBOUNDED.forbidden(1, ["A"]) is None
    assert UNBOUNDED.shows("A")
    assert UNBOUNDED.shows_alert("A")
    assert UNBOUNDED.allows_consumer("risk")
    assert UNBOUNDED.allows_publishing(None)
    assert UNBOUNDED.tier_of("premium", ORDER) == "premium"
