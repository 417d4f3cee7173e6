"""New symbols join a few at a time, and nobody misses a tick of them."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.fanout import newcomers
from marketfeed.fanout.wire import BINARY, JSON, SSE
from tests.support import lives
from tests.support.bench import PREMIUM, VIP, Bench
from tests.support.lives import TIERS, live

FLOOD = [f"N{number:04}" for number in range(3000)]


def one_by_one(patch):
    patch.setattr(newcomers, "LEAST", 1)
    patch.setattr(newcomers, "MOST", 1)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    tier=st.sampled_from(TIERS),
    encodings=st.tuples(*[st.sampled_from([JSON, BINARY, SSE])] * 3),
    script=st.lists(lives.steps, max_size=40),
)
def test_every_tick_arrives_also_where_symbols_join_one_by_one(tier, encodings, script):
    with pytest.MonkeyPatch.context() as patch:
        one_by_one(patch)
        trio.run(live, 64, tier, encodings, script, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_flood_of_new_symbols_joins_over_some_cycles_and_each_comes_from_its_first_tick(
    autojump_clock,
):
    bench = Bench(max_symbols=4096)
    bench.publish(("q", "OLD"))
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="*")
    late, late_socket = bench.enter("s2", PREMIUM)
    await bench.subscribe(late, quotes="N*")
    socket.take()
    for start in range(0, 3000, 250):
        bench.publish(*[("q", name) for name in FLOOD[start : start + 250]], ("q", "OLD"))
    found, cycles = list[dict[str, Any]](), 0
    while len(found) < 3012:
        bench.shard._lanes.newcomers._interests._patterned = 100  # as many as 100 sessions match each
        await bench.cycle()
        cycles += 1
        found += socket.take()
    assert cycles == 10
    assert [message["g"] for message in found] == list(range(2, 3014))
    await trio.sleep(0.2)
    await bench.cycle(2)
    quotes = [message for message in late_socket.take() if message["T"] == "q"]
    assert sorted(message["S"] for message in quotes) == FLOOD
    assert all(message["n"] == 1 for message in quotes)
    bench.balanced()


async def test_names_without_ticks_hold_up_nobody_and_join_meanwhile(autojump_clock):
    bench = Bench(max_symbols=65536)
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="*")
    socket.take()
    for number in range(60_000):
        bench.symbols.intern(f"M{number}")
    bench.publish(("q", "NOW"))
    await bench.cycle()
    assert [message["S"] for message in socket.take()] == ["NOW"]
    assert 0 < len(bench.shard._lanes.newcomers.pending) < 60_000
    for _ in range(60_000 // newcomers.MOST + 1):
        await bench.cycle()
    assert not len(bench.shard._lanes.newcomers.pending)
    bench.publish(("q", "M59999"), ("q", "M0"))
    await bench.cycle()
    assert [message["S"] for message in socket.take()] == ["M59999", "M0"]


async def test_who_comes_while_symbols_wait_to_join_gets_each_tick_once(autojump_clock, monkeypatch):
    one_by_one(monkeypatch)
    bench = Bench()
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="*")
    bench.publish(*[("q", name) for name in FLOOD[:6]] * 2)
    await bench.cycle()
    comer, comer_socket = bench.enter("s2", VIP)
    await bench.subscribe(comer, quotes="* N0003", trades="N0004")
    for _ in range(20):
        await bench.cycle()
    ticks = [(m["S"], m["n"]) for m in socket.take() if m["T"] == "q"]
    assert ticks == [(name, n) for n in (1, 2) for name in FLOOD[:6]]
    last = {m["S"]: m["n"] for m in comer_socket.take() if m["T"] == "q"}
    assert last == dict.fromkeys(FLOOD[:6], 2)
    bench.balanced()
