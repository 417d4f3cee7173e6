"""Tiers: when their members are served."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.units import MS
from marketfeed.fanout.tiers import MAX_PHASES, PHASE_NS, Tier
from tests.support.bench import BASIC, PREMIUM, VIP


@pytest.mark.parametrize("tier", [PREMIUM, BASIC])
def test_members_are_spread_over_the_interval(tier):
    """10,000 of them, as one of six workers has: no moment has half as many again as the mean."""
    draw = random.Random(7)
    now_ns = 1_000_000 * MS
    served = Counter(
        tier.next_flush_ns(tier.phase_of(f"{draw.getrandbits(64):016x}"), now_ns) for _ in range(10_000)
    )
    assert len(served) == tier.phases == min(MAX_PHASES, tier.interval_ns // PHASE_NS)
    assert max(served) - min(served) < tier.interval_ns
    assert max(served.values()) <= 1.5 * served.total() / len(served)


def test_an_immediate_tier_has_one_phase():
    assert VIP.phases == 1
    assert VIP.phase_of("anyone") == 0


@given(st.integers(1, 10**12), st.integers(1 * MS, 3_600_000 * MS), st.integers(0, MAX_PHASES - 1))
def test_the_grid_does_not_move(now_ns, interval_ns, phase):
    tier = Tier("t", interval_ns, False, 65536)
    phase %= tier.phases
    first = tier.next_flush_ns(phase, now_ns)
    assert now_ns < first <= now_ns + interval_ns
    assert tier.next_flush_ns(phase, first) == first + interval_ns
    assert tier.next_flush_ns(phase, first - 1) == first


@given(st.integers(1, 10**12), st.integers(8 * PHASE_NS, 3_600_000 * MS), st.integers(1, 16))
def test_no_two_workers_flush_in_the_same_moment(now_ns, interval_ns, workers):
    moments = [
        Tier("t", interval_ns, False, 65536, shift=worker / workers).next_flush_ns(phase, now_ns)
        for worker in range(workers)
        for phase in range(MAX_PHASES)
    ]
    assert len(set(moments)) == len(moments)
    assert max(moments) - min(moments) < interval_ns
