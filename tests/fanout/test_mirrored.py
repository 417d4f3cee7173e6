"""A shard over the rings of a mirror: sessions that a hole concerns are told of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.core.cursor import parse_cursor
from marketfeed.core.mirror import MirrorWriter
from marketfeed.core.records import QUOTES, TRADES
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter
from marketfeed.fanout.interest import Names
from marketfeed.fanout.wire import BINARY, JSON, SSE
from tests.fanout.test_resume import Life, answer_to, ticks_of
from tests.support.bench import BASIC, PREMIUM, SLOW_EVERY, VIP, Bench, Follower


class OriginWriter(RingWriter):
    """Numbers ticks, and calls ``given`` with them and their first and last ``g``."""

    def __init__(self, rings, given):
        super().__init__(rings)
        self._given = given

    def write(self, batch):
        first_g = self.rings.head() + 1
        last_g = super().write(batch)
        self._given(batch, first_g, last_g)
        return last_g


class MirrorBench(Bench):
    """A shard over a mirror; what is published is lost while ``arrives`` is False, until :meth:`adopt`."""

    def __init__(self, depth=64, **options):
        super().__init__(depth=depth, **options)
        self.origin = Rings.private(self.rings.max_symbols, depth, "e1")
        self._names = SymbolTable(self.rings.max_symbols, self.rings.names)
        self.writer = OriginWriter(self.origin, self._give)
        self.mirror = MirrorWriter(self.rings, lambda: 1_700_000_000_000_000_000)
        self.arrives = True

    def _give(self, batch, first_g, last_g):
        for name in self.symbols.names(len(self._names)):
            self._names.intern(name)
        if self.arrives:
            self.mirror.write_given(batch.quotes, batch.trades, first_g, last_g)

    def lose(self, *ticks):
        self.arrives = False
        self.publish(*ticks)

    def adopt(self):
        head, every = self.origin.head(), np.arange(self.origin.max_symbols)
        quotes, trades = (self.origin.latest(channel, every, head)[0] for channel in (QUOTES, TRADES))
        self.mirror.adopt(quotes, trades, head)
        self.arrives = True


def gaps_of(messages):
    return [(m["S"], m["channel"], m["lost"], m["n"]) for m in messages if m["T"] == "gap"]


async def test_a_session_that_gets_every_tick_gets_a_gap_and_the_newest(autojump_clock):
    bench = MirrorBench()
    bench.publish(("q", "A"), ("q", "B"), ("t", "A"), ("q", "C"))
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="*", trades="*")
    socket.take()
    bench.lose(*[("q", "A")] * 5, ("q", "B"), ("t", "A"), ("t", "A"), ("q", "NEW"), ("q", "NEW"))
    bench.adopt()
    await bench.cycle()
    messages = socket.take()
    assert gaps_of(messages) == [("A", "quotes", 4, 6), ("NEW", "quotes", 1, 2), ("A", "trades", 1, 3)]
    assert ticks_of(messages) == [
        ("q", "A", 6, None), ("q", "B", 2, None), ("t", "A", 3, None), ("q", "NEW", 2, None),
    ]  # fmt: skip
    bench.balanced()
    assert bench.shard.figures.ledgers(member)["vip"].lost == 6
    bench.publish(("q", "A"), ("q", "C"))
    await bench.cycle()
    assert ticks_of(socket.take()) == [("q", "A", 7, None), ("q", "C", 2, None)]
    bench.balanced()
    assert await reached(bench, bench.rings.head())


async def reached(bench, g):
    """Return whether no session keeps a feed that can wait from going on."""
    with trio.move_on_after(0):
        await bench.shard.slowest.wait(g)
        return True
    return False


async def test_a_session_that_gets_the_latest_gets_the_newest_without_a_gap(autojump_clock):
    bench = MirrorBench()
    bench.publish(("q", "A"), ("t", "A"))
    member, socket = bench.enter("s1", PREMIUM)
    await bench.subscribe(member, quotes="A", trades="A")
    await trio.sleep(0.1)
    await bench.cycle()
    socket.take()
    bench.lose(*[("q", "A"), ("t", "A")] * 100)
    bench.adopt()
    await trio.sleep(0.1)
    await bench.cycle()
    messages = socket.take()
    assert gaps_of(messages) == []
    assert ticks_of(messages) == [("q", "A", 101, None), ("t", "A", 101, None)]
    bench.balanced()


@pytest.mark.parametrize("tier", [VIP, PREMIUM, BASIC])
async def test_a_cursor_of_before_the_hole_is_reset_where_ticks_are_lost(tier, autojump_clock):
    bench = MirrorBench(depth=8)
    bench.publish(*[("q", "A")] * 2, ("q", "B"), ("q", "C"))
    bench.publish(("q", "A"), ("q", "B"))
    bench.lose(*[("q", "A")] * 15, ("q", "B"))
    bench.adopt()
    for g in range(1, 21):
        answer, rest = await answer_to(bench, f"e1:{g}", quotes="A B C", tier=tier)
        assert answer["reset"] == ["A"]
        assert ("q", "A", 18, 1) in ticks_of(rest)
    # From the adopted tick on, nothing is missing.
    for g in (21, 22):
        answer, rest = await answer_to(bench, f"e1:{g}", quotes="A B C", tier=tier)
        assert (answer["resumed"], answer["reset"]) == (True, [])
    assert ticks_of(rest) == []


async def test_a_poll_with_a_cursor_of_before_the_hole_is_reset(autojump_clock):
    bench = MirrorBench()
    bench.publish(("q", "A"), ("q", "B"))
    bench.lose(*[("q", "A")] * 3, ("q", "B"))
    bench.adopt()
    async with trio.open_nursery() as nursery:
        answers = []

        async def poll():
            names, after = Names(("A", "B")), parse_cursor("e1:2")
            answers.append(await bench.shard.poll(names, VIP, after, 1.0))

        nursery.start_soon(poll)
        await trio.testing.wait_all_tasks_blocked()
        await bench.cycle(2)
    follower = Follower(every=True)
    follower.last |= {("q", "A"): 1, ("q", "B"): 1}
    assert answers[0].body is not None
    body = json.loads(answers[0].body)
    assert body["reset"] == ["A"]
    follower.polled(body)
    assert follower.last == {("q", "A"): 4, ("q", "B"): 2}


async def test_a_session_whose_socket_was_full_is_told_of_the_hole(autojump_clock):
    bench = MirrorBench()
    bench.publish(("q", "A"))
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="A")
    follower = Follower(every=True)
    follower.follow(socket.take())
    socket.room = 0
    bench.publish(("q", "A"))
    await bench.cycle()
    bench.publish(("q", "A"))
    await bench.cycle()
    bench.lose(*[("q", "A")] * 9)
    assert not await reached(bench, 3)
    bench.adopt()
    await bench.cycle()
    bench.open(member, socket)
    await bench.cycle()
    messages = socket.take()
    assert gaps_of(messages) == [("A", "quotes", 9, 12)]
    follower.follow(messages)
    assert follower.last == {("q", "A"): 12}
    assert await reached(bench, 12)
    bench.balanced()


async def test_a_wide_hole_is_crossed_in_steps_that_tell_it_once(autojump_clock):
    bench = MirrorBench()
    bench.publish(("q", "A"), ("q", "B"))
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="A B")
    socket.take()
    for _ in range(40):
        bench.lose(*[("q", "A")] * 1000)
    bench.lose(("q", "B"), ("q", "B"))
    bench.adopt()
    for _ in range(5):
        await bench.cycle()
    messages = socket.take()
    assert gaps_of(messages) == [("A", "quotes", 39_999, 40_001), ("B", "quotes", 1, 3)]
    assert ticks_of(messages) == [("q", "A", 40_001, None), ("q", "B", 3, None)]
    bench.balanced()


TICK = st.tuples(st.sampled_from("qt"), st.sampled_from(["A", "B", "AB", "C"]))
TICK_LIST = st.lists(TICK, min_size=1, max_size=20)
ACTION = st.one_of(
    st.tuples(st.just("publish"), TICK_LIST),
    st.tuples(st.just("publish"), TICK_LIST),
    st.tuples(st.just("wait"), st.sampled_from([0.05, 0.3])),
    st.tuples(st.just("room"), st.sampled_from([None, 0, 1])),
    st.tuples(
        st.just("cut"),
        st.tuples(
            st.integers(0, 2),
            st.lists(TICK_LIST, max_size=4),
            st.integers(0, 1),
            st.sampled_from([JSON, BINARY, SSE]),
        ),
    ),
)


class LosingBench(MirrorBench):
    """Loses batches as ``fates`` say; the next one that arrives follows a state."""

    def __init__(self, depth, fates):
        super().__init__(depth=depth)
        self._fates = iter(fates)

    def publish(self, *ticks):
        arrives = next(self._fates, True)
        if arrives and not self.arrives:
            self.adopt()
        self.arrives = arrives
        super().publish(*ticks)


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.sampled_from([8, 64]),
    st.sampled_from([(VIP, SLOW_EVERY), (BASIC, PREMIUM)]),
    st.lists(ACTION, max_size=15),
    st.lists(st.booleans(), max_size=30),
)
def test_what_a_client_put_together_over_holes_and_cuts_is_what_was_published(depth, tiers, script, fates):
    trio.run(live_over_holes, depth, tiers, script, fates, clock=trio.testing.MockClock(autojump_threshold=0))


async def live_over_holes(depth, tiers, script, fates):
    bench = LosingBench(depth, fates)
    life = Life(bench, "A* B", "A* C", tiers)
    life.follower.every = tiers[0].every
    await life.connect(tiers[0], JSON)
    for action, detail in [*script, ("room", None)]:
        await life.actions[action](detail)
        bench.balanced()
    bench.adopt()
    await life.finish()
