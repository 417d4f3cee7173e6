"""Life signs of many sessions: all are looked at within a period, few at a time."""

from __future__ import annotations

from harness import VIP, Socket

from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.fanout.encoding import JSON
from marketfeed.fanout.interest import Interests, Names
from marketfeed.fanout.lifesigns import LOOK_MEMBERS, LifeSigns, Timing
from marketfeed.fanout.subscriber import Subscriber
from marketfeed.fanout.tiers import MS

S = 1000 * MS
TIMING = Timing(heartbeat_ns=20 * S, ping_ns=60 * S, stall_ns=10 * S)


def crowd(count):
    interest = Interests(SymbolTable(Rings.private(4, 8).max_symbols)).use(Names())
    return {Subscriber(f"s{i}", Socket(), VIP, JSON, interest, 0): None for i in range(count)}


def test_a_round_takes_a_period_in_looks_that_are_short():
    members, signs = crowd(10 * LOOK_MEMBERS), LifeSigns(TIMING, lambda: 0)
    now_ns, spoken_to_at = 20 * S, []
    while len(spoken_to_at) < len(members):
        before = sum(bool(member.sink.frames) for member in members)
        signs.look(members, now_ns)
        new = sum(bool(member.sink.frames) for member in members) - before
        assert new <= LOOK_MEMBERS
        spoken_to_at += [now_ns] * new
        now_ns += signs.pause_ns
    assert spoken_to_at[-1] - spoken_to_at[0] < TIMING.period_ns
    assert all(len(member.sink.frames) == 1 for member in members)


def test_few_sessions_are_looked_at_once_a_period():
    members, signs = crowd(3), LifeSigns(TIMING, lambda: 0)
    signs.look(members, 0)
    assert signs.pause_ns == TIMING.period_ns


def test_who_comes_and_goes_meanwhile_disturbs_no_round():
    members, signs = crowd(2 * LOOK_MEMBERS), LifeSigns(TIMING, lambda: 0)
    signs.look(members, 20 * S)
    left, come = next(iter(members)), next(iter(crowd(1)))
    left.gone = True
    del members[left]
    members[come] = None
    signs.look(members, 20 * S)
    assert not left.sink.frames
    assert not come.sink.frames
    assert all(len(member.sink.frames) == 1 for member in members if member is not come)
    signs.look(members, 20 * S)
    assert len(come.sink.frames) == 1
