"""Life signs of many sessions: all are looked at within a period, few at a time."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

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
PINGS_ONLY = Timing(heartbeat_ns=10**6 * S, ping_ns=60 * S, stall_ns=10 * S)


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
        assert sum(member.pings for member in members) - before <= TIMING.check_pings(TIMING.ping_ns)
        now_ns += signs.pause_ns
    assert TIMING.check_pings(TIMING.ping_ns) < CHECK_MEMBERS // 8
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


class Crowd:
    """Sessions that connect at once; a third keeps its round trip, a third doubles, a third halves it."""

    def __init__(self, count: int) -> None:
        self.keepalive = KeepAlive(PINGS_ONLY, lambda: 0)
        interest = Interests(SymbolTable(Rings.private(4, 8).max_symbols)).use(Names())
        self.sent: list[Socket] = []
        self.members = [Subscriber(f"s{i}", Noted(self.sent), VIP, JSON, interest, 0) for i in range(count)]
        self.of = {member.sink: (member, i % 3) for i, member in enumerate(self.members)}
        self.pinged_ns: dict[Subscriber, list[int]] = {member: [] for member in self.members}

    def check(self, now_ns: int) -> Counter[int]:
        """Run one check and answer its pings; return how many were sent, by interval."""
        self.keepalive.check(self.members, now_ns)
        intervals = Counter(PINGS_ONLY.interval_ns(self.of[sink][0].doublings) for sink in self.sent)
        for sink in self.sent:
            member, third = self.of[sink]
            self.pinged_ns[member].append(now_ns)
            sink.received += 14
            exponent = min(len(self.pinged_ns[member]), 5) * (0, 1, -1)[third]
            self.keepalive.ponged(member, member.ping_payload, now_ns + int(64 * MS * 2.0**exponent))
        self.sent.clear()
        return intervals


class Noted(Socket):
    """Appends itself to ``sent`` for each frame."""

    def __init__(self, sent: list[Socket]) -> None:
        super().__init__()
        self._sent = sent

    def offer(self, frame: bytes) -> bool:
        self._sent.append(self)
        return True


@pytest.mark.slow
def test_the_pings_of_10000_sessions_that_connected_at_once_never_bunch():
    crowd, now_ns, per_second = Crowd(10_000), 0, Counter[int]()
    while now_ns < 300 * S:
        sent = crowd.check(now_ns)
        assert all(count <= PINGS_ONLY.check_pings(interval_ns) for interval_ns, count in sent.items())
        per_second[now_ns // S] += sent.total()
        now_ns += crowd.keepalive.pause_ns
    assert PINGS_ONLY.check_pings(60 * S) < CHECK_MEMBERS // 8
    rate_per_s = sum(S / PINGS_ONLY.interval_ns(member.doublings) for member in crowd.members)
    assert max(per_second.values()) <= 2 * rate_per_s
    for member, third in crowd.of.values():
        assert member.doublings == (0, 1, -3)[third]
        pinged_ns = crowd.pinged_ns[member]
        assert max(b - a for a, b in pairwise(pinged_ns)) <= 2 * 120 * S
