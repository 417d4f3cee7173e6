"""The desk counts sessions and symbols of all processes; a model counts them again from a list."""

from __future__ import annotations

from collections import Counter

import trio
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.access.desk import Holder, LocalDesk
from marketfeed.config.schema import TenantConfig

ACME = {"acme": TenantConfig(max_sessions=3, max_symbols=10)}
HOLDERS = [Holder("ann", "acme", 2), Holder("bob", "acme"), Holder("ann", "", 1), Holder("eve", "", 0)]


async def nothing() -> None:
    raise AssertionError("not asked for")


def desk(refresh=nothing) -> LocalDesk:
    return LocalDesk(ACME, None, lambda: 0.0, refresh)


steps = st.lists(
    st.tuples(
        st.sampled_from(["enter", "hold", "leave"]),
        st.integers(0, 5),
        st.integers(0, 3),
        st.integers(0, 12),
    ),
    max_size=40,
)


@given(steps)
def test_no_sequence_exceeds_a_limit_and_none_within_it_is_refused(steps):
    async def run() -> None:
        told = desk()
        there: dict[int, Holder] = {}
        held: Counter[int] = Counter()
        for what, session, holder, symbols in steps:
            if what == "enter":
                wanted = HOLDERS[holder]
                same = sum(one.sub == wanted.sub and one.tenant == wanted.tenant for one in there.values())
                tenant = sum(one.tenant == "acme" for one in there.values())
                over = same >= (99 if wanted.max_sessions is None else wanted.max_sessions)
                over |= wanted.tenant == "acme" and tenant >= 3
                got = await told.enter(str(session), wanted)
                assert (got is not None) == (over and session not in there)
                if got is None:
                    there.setdefault(session, wanted)
            elif what == "hold":
                of_tenant = sum([held[one] for one, who in there.items() if who.tenant == "acme"])
                acme = session in there and there[session].tenant == "acme"
                over = acme and symbols > held[session] and of_tenant - held[session] + symbols > 10
                assert (await told.hold(str(session), symbols) is not None) == over
                if session in there and not over:
                    held[session] = symbols
            else:
                told.leave(str(session))
                there.pop(session, None)
                held.pop(session, None)
            assert len(told) == len(there)

    trio.run(run)


async def test_the_limit_is_named():
    told = desk()
    assert await told.enter("1", HOLDERS[3]) == "max_sessions of the token: 0"
    for session in "123":
        await told.enter(session, HOLDERS[1])
    assert await told.enter("4", HOLDERS[1]) == "max_sessions of the tenant: 3"
    assert await told.hold("1", 11) == "max_symbols of the tenant: 10"


async def test_when_everybody_has_left_nothing_is_kept():
    told = desk()
    await told.enter("1", HOLDERS[0])
    await told.hold("1", 5)
    told.leave("1")
    told.leave("1")
    kept = (told._sessions, told._symbols, told._by_sub, told._by_tenant, told._held)
    assert not any(kept)


async def test_tickets_and_keys_go_through_the_desk():
    asked = []

    async def refresh() -> bool:
        asked.append(1)
        return False

    told = desk(refresh)
    ticket = await told.issue("token", None, "192.0.2.1")
    assert told.tickets == 1
    assert (await told.redeem(ticket, "192.0.2.1", "s", "open")).token == "token"
    assert not await told.refresh_keys()
    assert asked == [1]


async def test_a_session_that_was_replaced_before_it_entered_does_not_enter():
    told = desk()
    ticket = await told.issue("token", None, "192.0.2.1")
    await told.redeem(ticket, "192.0.2.1", "first", "open")
    assert (await told.redeem(ticket, "192.0.2.1", "second", "reopen")).before == "first"
    assert await told.enter("first", Holder("ann", "")) == "its ticket has opened another session"
    assert await told.enter("second", Holder("ann", "")) is None
    assert len(told) == 1
