"""Revocations by holder, tenant and token, against a list that is searched."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from marketfeed.access.claims import Claims
from marketfeed.access.entitlement import UNBOUNDED
from marketfeed.access.grant import Grant
from marketfeed.access.revocations import Revocation, Revocations

texts = st.sampled_from(["", "a", "b"])
revocations = st.lists(
    st.builds(Revocation, st.sampled_from(["sub", "tenant", "token"]), texts, st.integers(0, 3).map(float)),
    max_size=6,
)
grants = st.builds(
    lambda sub, tenant, token, issued_s: Grant(Claims(sub or "c", tenant), UNBOUNDED, token, issued_s),
    texts, texts, texts, st.none() | st.integers(0, 4).map(float),
)  # fmt: skip


def revokes(one: Revocation, grant: Grant) -> bool:
    if one.kind == "token":
        return grant.token_id != "" and one.value == grant.token_id
    value = grant.claims.sub if one.kind == "sub" else grant.claims.tenant
    return one.value == value and (grant.issued_s is None or grant.issued_s <= one.at_s)


@given(revocations, grants)
def test_a_grant_is_revoked_if_one_revocation_is_about_it(all_, grant):
    found = Revocations(all_)
    assert found.revokes(grant) == any(revokes(one, grant) for one in all_)
    assert Revocations(found.every()).revokes(grant) == found.revokes(grant)


def test_a_token_issued_after_the_revocation_of_its_holder_is_good():
    found = Revocations([Revocation("sub", "ann", 100.0)])
    assert found.revokes(Grant(Claims("ann"), UNBOUNDED, issued_s=100.0))
    assert not found.revokes(Grant(Claims("ann"), UNBOUNDED, issued_s=100.5))
    assert found.revokes(Grant(Claims("ann"), UNBOUNDED, issued_s=None))


def test_of_two_about_the_same_the_later_one_counts():
    later, earlier = Revocation("sub", "ann", 2.0), Revocation("sub", "ann", 1.0)
    for order in ((later, earlier), (earlier, later)):
        assert Revocations(order).every() == (later,)


def test_what_has_no_more_effect_is_forgotten():
    lasting, ending = Revocation("sub", "ann", 1.0), Revocation("token", "t", 0.0, until_s=10.0)
    found = Revocations([lasting, ending])
    found.expire(10.0)
    assert found.every() == (ending, lasting)
    found.expire(10.5)
    assert found.every() == (lasting,)
    assert len(found) == 1
