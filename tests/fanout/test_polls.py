"""Long polls are sessions for one answer; short polls look at the last flush."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marketfeed.core.cursor import parse_cursor
from marketfeed.core.records import QUOTES, TRADES
from marketfeed.fanout.interest import Names
from marketfeed.fanout.wire import MAX_POLL_BYTES
from tests.support.bench import BASIC, PREMIUM, SLOW_EVERY, VIP, Bench, Follower

WAITING = 10_000 if os.environ.get("MARKETFEED_PROVE") else 2_000


class Polling:
    """A poll that runs in ``nursery``; ``body`` is set once it is answered."""

    def __init__(self, bench, nursery, quotes="", trades="", after=None, tier=VIP, timeout_s=1000.0):
        self.scope = trio.CancelScope()
        self.answer: Any = None  # a PollAnswer, once there is one
        self.at: Any = None  # s, of the answer
        self._names = Names(tuple(quotes.split()), tuple(trades.split()))
        self._about = (tier, after and parse_cursor(after), timeout_s)
        nursery.start_soon(self._run, bench)

    async def _run(self, bench):
        with self.scope:
            self.answer = await bench.shard.poll(self._names, *self._about)
            self.at = trio.current_time()

    @property
    def body(self):
        return self.answer and json.loads(self.answer.body)

    @property
    def ticks(self):
        return [(m["T"], m["S"], m["n"], m.get("snap")) for m in self.body["messages"]]


async def settle(bench):
    await trio.testing.wait_all_tasks_blocked()
    await bench.cycle()
    await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
def bench():
    return Bench(depth=64)


async def test_without_a_cursor_the_snapshot_comes_at_once_on_any_tier(bench, autojump_clock, nursery):
    bench.publish(("q", "A"), ("q", "A"), ("t", "A"), ("q", "B"))
    for tier in (VIP, BASIC):
        poll = Polling(bench, nursery, quotes="A", trades="*", tier=tier)
        await settle(bench)
        assert poll.ticks == [("q", "A", 2, 1), ("t", "A", 1, 1)]
        assert (poll.body["cursor"], poll.body["resumed"], poll.body["reset"]) == ("e1:4", True, [])
        assert poll.answer.cursor == "e1:4"
    assert len(bench.shard.polls) == 0


async def test_an_empty_snapshot_waits_for_the_first_tick(bench, autojump_clock, nursery):
    poll = Polling(bench, nursery, quotes="A")
    await settle(bench)
    assert poll.answer is None
    bench.publish(("q", "B"))
    await settle(bench)
    assert poll.answer is None
    bench.publish(("q", "A"), ("q", "B"))
    await settle(bench)
    assert poll.ticks == [("q", "A", 1, None)]
    assert poll.body["cursor"] == "e1:3"


async def test_what_was_missed_since_the_cursor_comes(bench, autojump_clock, nursery):
    bench.publish(("q", "A"), ("q", "B"), ("t", "A"), ("q", "A"), ("t", "B"))
    poll = Polling(bench, nursery, quotes="A", trades="A", after="e1:1")
    await settle(bench)
    assert poll.ticks == [("t", "A", 1, None), ("q", "A", 2, None)]
    assert poll.body["cursor"] == "e1:5"
    again = Polling(bench, nursery, quotes="A", trades="A", after="e1:5")
    await settle(bench)
    assert again.answer is None
    bench.publish(("q", "A"))
    await settle(bench)
    assert again.ticks == [("q", "A", 3, None)]


async def test_a_poll_on_a_slow_tier_is_answered_at_phase_0_of_its_grid(bench, autojump_clock, nursery):
    bench.publish(("q", "A"))
    first = Polling(bench, nursery, quotes="A", tier=BASIC)
    await settle(bench)
    cursor = first.answer.cursor
    answers = []
    with trio.move_on_after(3.0):
        while True:
            poll = Polling(bench, nursery, quotes="A", tier=BASIC, after=cursor)
            while poll.answer is None:
                bench.publish(("q", "A"))
                await settle(bench)
                await trio.sleep(0.01)
            cursor = poll.answer.cursor
            answers.append((poll.at, poll.ticks))
    moments = [round(at * 1000) for at, _ in answers]
    assert all(moment % 500 <= 10 for moment in moments)  # we look every 10 ms
    assert len(set(moments)) == len(moments)
    assert all(len(ticks) == 1 for _, ticks in answers)


async def test_time_runs_out_with_a_cursor_that_loses_nothing(bench, autojump_clock, nursery):
    bench.publish(("q", "A"))
    poll = Polling(bench, nursery, quotes="A", after="e1:1", timeout_s=5.0)
    await settle(bench)
    bench.publish(("q", "B"), ("q", "B"))
    await settle(bench)
    await trio.sleep(5.0)
    await settle(bench)
    assert (poll.answer.cursor, poll.answer.body) == ("e1:3", None)
    assert len(bench.shard.polls) == 0
    # Before the tier's next flush nothing was looked at: the cursor is the one that came.
    bench.publish(("q", "A"))
    await settle(bench)
    poll = Polling(bench, nursery, quotes="A", after="e1:1", tier=BASIC, timeout_s=0.001)
    await settle(bench)
    await trio.sleep(0.001)
    await settle(bench)
    assert (poll.answer.cursor, poll.answer.body) == ("e1:1", None)


async def test_with_no_time_at_all_it_gets_what_is_there(bench, autojump_clock, nursery):
    bench.publish(("q", "A"), ("q", "A"))
    polls = [
        Polling(bench, nursery, quotes="A", timeout_s=0.0),
        Polling(bench, nursery, quotes="A", tier=BASIC, timeout_s=0.0),
        Polling(bench, nursery, quotes="A", after="e1:1", timeout_s=0.0),
        Polling(bench, nursery, quotes="A", after="e0:1", timeout_s=0.0),
        Polling(bench, nursery, quotes="A", after="e1:2", timeout_s=0.0),
        Polling(bench, nursery, quotes="NEW", timeout_s=0.0),
    ]
    await settle(bench)
    await settle(bench)
    assert [poll.ticks for poll in polls[:4]] == [[("q", "A", 2, snap)] for snap in (1, 1, None, 1)]
    assert polls[3].body["reset"] == ["A"]
    assert [(poll.answer.cursor, poll.answer.body) for poll in polls[4:]] == [("e1:2", None)] * 2
    assert len(bench.shard.polls) == 0


async def test_what_cannot_be_resumed_is_reset_and_said_even_with_nothing_to_send(
    bench, autojump_clock, nursery
):
    poll = Polling(bench, nursery, quotes="NEW", after="e0:5")
    await settle(bench)
    assert poll.body == {"cursor": "e1:0", "messages": [], "resumed": False, "reset": ["NEW"]}
    bench.publish(("q", "A"), ("q", "B"))
    for _ in range(10):
        bench.publish(*[("q", "A")] * 10)
    bench.publish(("q", "B"))
    poll = Polling(bench, nursery, quotes="A B", after="e1:2")
    await settle(bench)
    assert poll.ticks == [("q", "A", 101, 1), ("q", "B", 2, None)]
    assert (poll.body["resumed"], poll.body["reset"]) == (False, ["A"])


async def test_a_client_that_goes_away_is_taken_out(bench, autojump_clock, nursery):
    polls = [Polling(bench, nursery, quotes="A") for _ in range(3)]
    await settle(bench)
    assert len(bench.shard.polls) == 3
    polls[1].scope.cancel()
    await settle(bench)
    assert len(bench.shard.polls) == 2
    bench.publish(("q", "A"))
    await settle(bench)
    assert [poll.answer is not None for poll in polls] == [True, False, True]
    assert len(bench.shard.polls) == len(bench.shard._interests) == 0


async def test_thousands_that_wait_are_answered_within_the_flush_of_their_tick(
    bench, autojump_clock, nursery
):
    bench.publish(("q", "A"))
    polls = [Polling(bench, nursery, quotes="A", after="e1:1") for _ in range(WAITING)]
    await settle(bench)
    bench.publish(("q", "A"))
    frames = bench.shard.figures.frames
    await bench.cycle()
    await trio.testing.wait_all_tasks_blocked()
    assert all(poll.answer is not None for poll in polls)
    assert bench.shard.figures.frames == frames + WAITING
    # One frame: what differs is only what was resumed.
    assert len({poll.answer.body for poll in polls}) == 1
    assert len(bench.shard.polls) == len(bench.shard._interests) == 0
    totals = await bench.shard.figures.totals()
    assert all(ledger.matched == 0 for ledger in totals.values())


async def test_an_answer_is_at_most_a_mebibyte_and_the_next_goes_on_behind_it(autojump_clock, nursery):
    bench = Bench(depth=16384, max_symbols=4096)
    bench.publish(("q", "A"))
    for _ in range(12):
        bench.publish(*[("q", "A"), ("t", "B")] * 1000)
    follower = Follower(every=True)
    follower.last["q", "A"] = 1
    cursor, answers = "e1:1", 0
    while cursor != f"e1:{bench.rings.head()}":
        poll = Polling(bench, nursery, quotes="A", trades="B", after=cursor)
        await settle(bench)
        assert len(poll.answer.body) <= 1 << 20
        follower.follow(poll.body["messages"])
        cursor = poll.answer.cursor
        answers += 1
    assert follower.last == {("q", "A"): 12001, ("t", "B"): 12000}
    assert 3 <= answers <= 6


async def test_a_snapshot_that_is_too_long_is_cut_at_a_g(autojump_clock, nursery, monkeypatch):
    monkeypatch.setattr("marketfeed.fanout.wire.MAX_POLL_BYTES", 2000)
    bench = Bench(max_symbols=256)
    bench.publish(*[("q", f"S{i:03d}") for i in range(100)])
    poll = Polling(bench, nursery, quotes="*")
    await settle(bench)
    follower = Follower(every=True)
    while len(follower.last) < 100:
        assert len(poll.answer.body) < 2200
        follower.follow(poll.body["messages"])
        bench.publish(("q", "S000"))
        poll = Polling(bench, nursery, quotes="*", after=poll.answer.cursor)
        await settle(bench)
    assert follower.count > 70


async def test_a_flush_too_long_for_a_waiting_poll_is_cut_at_a_g(autojump_clock, nursery):
    bench = Bench(depth=16384)
    poll = Polling(bench, nursery, quotes="A")
    await settle(bench)
    for _ in range(10):
        bench.publish(*[("q", "A")] * 1000)
    await settle(bench)
    assert MAX_POLL_BYTES - 300 < len(poll.answer.body) < 1 << 20
    last = poll.body["messages"][-1]
    assert poll.answer.cursor == f"e1:{last['g']}"
    assert last["n"] < 10_000


async def test_a_poll_at_which_the_fan_out_fails_is_told_so(bench, autojump_clock, monkeypatch):
    def broken(*_):
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(bench.shard._catch_up, "gather", broken)
    told = []

    async def poll():
        try:
            await bench.shard.poll(Names(("A",)), VIP, None, 5.0)
        except RuntimeError as error:
            told.append(str(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(poll)
        await settle(bench)
    await settle(bench)
    assert told == ["the fan-out failed at a poll"]
    assert len(bench.shard.polls) == 0


async def test_polls_share_their_tier_with_sessions_and_neither_disturbs_the_other(
    bench, autojump_clock, nursery
):
    member, socket = bench.enter("s1", SLOW_EVERY)
    await bench.subscribe(member, quotes="A")
    polls = [Polling(bench, nursery, quotes="A", tier=SLOW_EVERY) for _ in range(3)]
    follower = Follower(every=True)
    for _ in range(50):
        bench.publish(("q", "A"))
        await settle(bench)
        follower.follow(socket.take())
        bench.balanced()
        await trio.sleep(0.005)
    assert all(poll.answer is not None for poll in polls)
    assert follower.last["q", "A"] >= 30


async def test_a_short_poll_is_what_the_last_flush_of_its_tier_was(bench, autojump_clock):
    bench.publish(("q", "B"), ("q", "A"), ("t", "A"))
    shard = bench.shard
    latest = shard.latest(QUOTES, ["A", "B", "NEW", "A"], PREMIUM)
    fragments = await latest.fragments()
    assert [(m["S"], m["n"]) for m in map(json.loads, fragments)] == [("B", 1), ("A", 1)]
    assert latest.version == 2
    assert shard.latest(TRADES, ["*"], PREMIUM).version == 3
    nothing = shard.latest(QUOTES, ["NEW"], PREMIUM)
    assert (await nothing.fragments(), nothing.version) == ([], 0)
    bench.publish(("q", "A"), ("q", "NEW"))
    await bench.cycle()
    latest = shard.latest(QUOTES, ["A", "B"], PREMIUM)
    assert (await latest.fragments(), latest.version) == (fragments, 2)  # no flush since
    await trio.sleep(0.1)
    await bench.cycle()
    latest = shard.latest(QUOTES, ["A", "B"], PREMIUM)
    fragments = await latest.fragments()
    assert [(m["S"], m["n"]) for m in map(json.loads, fragments)] == [("B", 1), ("A", 2)]
    assert latest.version == 4
    assert shard.latest(QUOTES, ["B"], PREMIUM).version == 1  # only what was asked for
    assert "snap" not in json.loads(fragments[0])


async def test_a_short_poll_of_a_tier_without_interval_is_of_now(bench, autojump_clock):
    bench.publish(("q", "A"))
    assert bench.shard.latest(QUOTES, ["A"], VIP).version == 1
    bench.publish(("q", "A"))
    await bench.cycle()
    assert bench.shard.latest(QUOTES, ["A"], VIP).version == 2


async def test_a_lane_kept_for_polls_is_forgotten_a_minute_after_the_last(bench, autojump_clock):
    bench.shard.latest(QUOTES, ["A"], BASIC)
    for _ in range(50):
        await trio.sleep(1)
        await bench.cycle()
    assert bench.shard.figures.statistics().lanes == 1
    for _ in range(20):
        await trio.sleep(1)
        await bench.cycle()
    assert bench.shard.figures.statistics().lanes == 0


NAMES = ["A", "B", "AB", "C"]
ticks = st.one_of(
    st.lists(st.tuples(st.sampled_from("qt"), st.sampled_from(NAMES)), min_size=1, max_size=30),
    st.builds(list.__mul__, st.lists(st.sampled_from([("q", "A"), ("t", "A")]), min_size=1), st.just(20)),
)
script = st.lists(st.tuples(st.lists(ticks, max_size=2), st.sampled_from([0, 0.05, 0.5])), max_size=20)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@example(  # an answer cut before the snapshot of a name that was reset
    depth=16,
    resume_ticks=5,
    most_bytes=1000,
    tier=SLOW_EVERY,
    quotes="* A",
    script=[
        ([], 0.05),
        ([[("q", "A"), ("q", "A"), ("q", "A"), ("t", "A")] * 20, [("q", "A"), *[("q", "B")] * 3]], 0.05),
        ([[*[("q", "B")] * 7, ("q", "A")]], 0),
    ],
)
@given(
    depth=st.sampled_from([16, 64, 1024]),
    resume_ticks=st.sampled_from([5, 100, 100_000]),
    most_bytes=st.sampled_from([2500, MAX_POLL_BYTES]),
    tier=st.sampled_from([VIP, SLOW_EVERY, PREMIUM]),
    quotes=st.sampled_from(["A", "A*", "* A", "A C"]),
    script=script,
)
def test_what_polls_put_together_is_what_was_published(depth, resume_ticks, most_bytes, tier, quotes, script):
    clock = trio.testing.MockClock(autojump_threshold=0.001)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("wire", "polls"):
            patch.setattr(f"marketfeed.fanout.{module}.MAX_POLL_BYTES", most_bytes)
        trio.run(put_together, depth, resume_ticks, tier, quotes, script, clock=clock)


async def put_together(depth, resume_ticks, tier, quotes, script):
    bench = Bench(depth=depth, resume_ticks=resume_ticks)
    follower = Follower(tier.every)
    async with trio.open_nursery() as nursery:
        poll = Polling(bench, nursery, quotes=quotes, trades="A", tier=tier)
        await settle(bench)
        for at, (batches, wait_s) in enumerate([*script, *[([], 0.5)] * 1000]):
            for batch in batches:
                bench.publish(*batch)
            await trio.sleep(wait_s)
            await settle(bench)
            if poll.answer is None:
                if at >= len(script):
                    break
                continue
            follower.polled(poll.body)
            poll = Polling(bench, nursery, quotes=quotes, trades="A", tier=tier, after=poll.answer.cursor)
            await settle(bench)
        nursery.cancel_scope.cancel()
    for (kind, name), last in follower.last.items():
        assert last == len(bench.published[kind, name])
    if ("q", "A") in bench.published:
        assert ("q", "A") in follower.last
