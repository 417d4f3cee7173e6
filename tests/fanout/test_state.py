"""The states of a session: every transition of the table, and that no other exists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.fanout.group import Group
from marketfeed.fanout.interest import Interests, Names
from marketfeed.fanout.state import TRANSITIONS, Event, IllegalTransitionError, State, after
from marketfeed.fanout.subscriber import Subscriber
from marketfeed.fanout.wire import JSON
from tests.support.bench import VIP, Socket

RINGS = Rings.private(4, 8)
INTEREST = Interests(SymbolTable(RINGS.max_symbols)).use(Names())
GROUP = Group(INTEREST, JSON)
CALLS = {
    Event.JOIN: lambda member: member.join(GROUP, (0, 0, 0, 0), (0, 0)),
    Event.LEAVE: lambda member: member.leave_group((0, 0), member.seen),
    Event.BLOCK: lambda member: member.block(2),
    Event.DRAIN: Subscriber.drained,
    Event.LAG: Subscriber.lag,
    Event.RECOVER: Subscriber.recover,
    Event.END: Subscriber.end,
}


def entered() -> Subscriber:
    return Subscriber("s1", Socket(), VIP, JSON, INTEREST, 0)


def paths() -> dict[State, list[Event]]:
    """Return for each state that can be reached the events that lead to it from a new session."""
    found: dict[State, list[Event]] = {State.CATCHING_UP: []}
    for _ in State:
        for (before, event), following in TRANSITIONS.items():
            if before in found:
                found.setdefault(following, [*found[before], event])
    return found


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_a_session_follows_the_table_and_refuses_everything_else(state, event):
    member = entered()
    for earlier in paths()[state]:
        CALLS[earlier](member)
    assert member.state is state
    if (state, event) in TRANSITIONS:
        CALLS[event](member)
        assert member.state is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransitionError, match=f"{event.name} cannot occur in state {state.name}"):
            CALLS[event](member)
        assert member.state is state


@given(st.lists(st.sampled_from(Event), max_size=40))
def test_whatever_happens_the_state_agrees_with_group_tail_and_lag(events):
    member, blocked_ticks = entered(), 0
    for event in events:
        if (member.state, event) not in TRANSITIONS:
            continue
        delivered = member.ledger.delivered
        CALLS[event](member)
        if event is Event.BLOCK:
            blocked_ticks += 2
        if event is Event.DRAIN:
            assert member.ledger.delivered == delivered + blocked_ticks
            blocked_ticks = 0
        assert member.tail_ticks == blocked_ticks
        if member.state is not State.GONE:
            assert (member.group is not None) is (member.state is State.LIVE)
            assert member.blocked is bool(blocked_ticks)
            assert not member.blocked or member.quiet_until_ns == 0


@given(st.sampled_from(State), st.lists(st.sampled_from(Event), max_size=20))
def test_nothing_leads_back_from_the_end(state, events):
    now = after(state, Event.END)
    for event in events:
        if (now, event) in TRANSITIONS:
            now = after(now, event)
    assert now is State.GONE


def test_every_state_can_be_reached():
    assert set(paths()) == set(State)
