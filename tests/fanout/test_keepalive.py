"""Life signs of many sessions: all are looked at within a period, few at a time."""

from __future__ import annotations

import pytest

from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.units import MS
from marketfeed.fanout.interest import Interests, Names
from marketfeed.fanout.keepalive import CHECK_MEMBERS, KeepAlive, Timing
from marketfeed.fanout.subscriber import Subscriber
from marketfeed.fanout.wire import JSON
from tests.support.bench import VIP, Socket

S = 1000 * MS
TIMING = Timing(heartbeat_ns=20 * S, ping_ns=60 * S, stall_ns=10 * S)


def crowd(count):
    interest = Interests(SymbolTable(Rings.private(4, 8).max_symbols)).use(Names())
    return {Subscriber(f"s{i}", Socket(), VIP, JSON, interest, 0): None for i in range(count)}


def test_a_round_takes_a_period_in_looks_that_are_short():
    members, signs = crowd(10 * CHECK_MEMBERS), KeepAlive(TIMING, lambda: 0)
    now_ns, spoken_to_at = 20 * S, list[int]()
    while len(spoken_to_at) < len(members):
        before = sum(bool(member.sink.frames) for member in members)
        signs.check(members, now_ns)
        new = sum(bool(member.sink.frames) for member in members) - before
        assert new <= CHECK_MEMBERS
        spoken_to_at += [now_ns] * new
        now_ns += signs.pause_ns
    assert spoken_to_at[-1] - spoken_to_at[0] < TIMING.period_ns
    assert all(len(member.sink.frames) == 1 for member in members)


def test_few_sessions_are_looked_at_once_a_period():
    members, signs = crowd(3), KeepAlive(TIMING, lambda: 0)
    signs.check(members, 0)
    assert signs.pause_ns == TIMING.period_ns


def test_who_comes_and_goes_meanwhile_disturbs_no_round():
    members, signs = crowd(2 * CHECK_MEMBERS), KeepAlive(TIMING, lambda: 0)
    signs.check(members, 20 * S)
    left, come = next(iter(members)), next(iter(crowd(1)))
    left.end()
    del members[left]
    members[come] = None
    signs.check(members, 20 * S)
    assert not left.sink.frames
    assert not come.sink.frames
    assert all(len(member.sink.frames) == 1 for member in members if member is not come)
    signs.check(members, 20 * S)
    assert len(come.sink.frames) == 1


def test_pings_that_are_due_together_are_sent_a_few_at_a_time():
    members, signs = crowd(4 * CHECK_MEMBERS), KeepAlive(TIMING, lambda: 0)
    for member in members:
        member.sent_ns = 60 * S  # no heartbeat is due
    now_ns = 60 * S
    while not all(member.pings for member in members):
        before = sum(member.pings for member in members)
        signs.check(members, now_ns)
        assert sum(member.pings for member in members) - before <= TIMING.check_pings
        now_ns += signs.pause_ns
    assert TIMING.check_pings < CHECK_MEMBERS // 8
    assert now_ns - 60 * S < TIMING.ping_ns
    assert all(member.pings == 1 for member in members)


@pytest.mark.parametrize("ping_s", [0.02, 1, 5, 60, 3600])
def test_each_session_is_pinged_in_time_however_short_that_is(ping_s):
    timing = Timing(heartbeat_ns=10_000 * S, ping_ns=int(ping_s * S), stall_ns=10_000 * S)
    members, signs = crowd(3 * CHECK_MEMBERS), KeepAlive(timing, lambda: 0)
    now_ns = timing.ping_ns
    while not all(member.pings for member in members):
        signs.check(members, now_ns)
        now_ns += signs.pause_ns
    assert now_ns - timing.ping_ns <= timing.ping_ns + timing.period_ns
