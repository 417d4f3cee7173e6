"""Random lives of sessions: nothing is silently missing, nothing comes twice, every tick is booked."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.fanout.compression import COMPRESSED
from marketfeed.fanout.wire import BINARY, JSON, SSE
from tests.support.bench import everything_packed
from tests.support.lives import TIERS, live, steps


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    depth=st.sampled_from([16, 32, 64]),
    tier=st.sampled_from(TIERS),
    encodings=st.tuples(*[st.sampled_from([JSON, BINARY, SSE, COMPRESSED])] * 3),
    script=st.lists(steps, max_size=60),
)
def test_every_tick_arrives_or_is_accounted_for(depth, tier, encodings, script):
    with everything_packed():
        trio.run(live, depth, tier, encodings, script, clock=trio.testing.MockClock(autojump_threshold=0))
