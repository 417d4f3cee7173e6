"""A cursor after a cut: what was missed comes, or the answer says that it cannot."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marketfeed.fanout import newcomers
from marketfeed.fanout.wire import BINARY, JSON, SSE
from tests.support.bench import BASIC, PREMIUM, SLOW_EVERY, VIP, Bench, Follower


def kinds(messages):
    return [message["T"] for message in messages]


def ticks_of(messages):
    return [(m["T"], m["S"], m["n"], m.get("snap")) for m in messages if m["T"] in ("q", "t")]


async def answer_to(bench, after, quotes="", trades="", tier=VIP, encoding=JSON):
    """Open a session, subscribe after a cursor; return the answer and what came behind it."""
    member, socket = bench.enter(f"after {after}", tier, encoding)
    await bench.subscribe(member, quotes=quotes, trades=trades, after=after, request_id=1)
    await trio.sleep(tier.interval_ns / 1e9)
    await bench.cycle()
    bench.balanced()
    answer, *rest = socket.take()
    assert answer["T"] == "subscription"
    return answer, rest


async def test_ticks_missed_since_the_cursor_come_first_and_then_live_ones(autojump_clock):
    bench = Bench()
    bench.publish(("q", "A"), ("q", "B"), ("t", "A"), ("q", "A"), ("q", "A"), ("t", "A"))
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="A", trades="A", after="e1:3", request_id=5)
    answer, *rest = socket.take()
    assert (answer["resumed"], answer["reset"]) == (True, [])
    assert ticks_of(rest) == [("q", "A", 2, None), ("q", "A", 3, None), ("t", "A", 2, None)]
    assert rest[-1] == {"T": "synced", "cursor": "e1:6", "id": 5}
    ledger = bench.shard.figures.ledgers(member)["vip"]
    assert (ledger.matched, ledger.delivered) == (3, 3)  # from the cursor
    bench.publish(("q", "A"))
    await bench.cycle()
    assert ticks_of(socket.take()) == [("q", "A", 4, None)]
    bench.balanced()


async def test_a_latest_tier_gets_the_latest_of_each_symbol_that_changed(autojump_clock):
    bench = Bench()
    bench.publish(*[("q", "A"), ("q", "B"), ("q", "C")] * 2)
    bench.publish(("q", "A"), ("q", "A"), ("q", "B"))
    answer, rest = await answer_to(bench, "e1:6", quotes="A B C", tier=PREMIUM)
    assert answer["resumed"]
    assert ticks_of(rest) == [("q", "A", 4, None), ("q", "B", 3, None)]
    assert rest[-1]["cursor"] == "e1:9"


async def test_symbols_whose_ring_no_longer_reaches_back_are_reset_and_others_resumed(autojump_clock):
    bench = Bench(depth=16)
    bench.publish(("q", "A"), ("q", "B"), ("t", "A"))
    for _ in range(5):
        bench.publish(*[("q", "A")] * 4)
    bench.publish(("q", "B"), ("t", "A"))
    answer, rest = await answer_to(bench, "e1:3", quotes="A B", trades="A")
    assert (answer["resumed"], answer["reset"]) == (False, ["A"])
    # Both channels of A, as the answer names symbols and not channels.
    assert ticks_of(rest) == [("q", "A", 21, 1), ("t", "A", 2, 1), ("q", "B", 2, None)]


async def test_more_than_resume_ticks_in_all_resets_what_was_missed(autojump_clock):
    bench = Bench(resume_ticks=10)
    bench.publish(("q", "A"), ("q", "B"), ("q", "C"))
    bench.publish(*[("q", "A"), ("q", "B")] * 5)
    answer, rest = await answer_to(bench, "e1:3", quotes="A B C")
    assert answer["resumed"]
    assert len(ticks_of(rest)) == 10
    bench.publish(("q", "A"))
    answer, rest = await answer_to(bench, "e1:3", quotes="A B C")
    assert (answer["resumed"], answer["reset"]) == (False, ["A", "B"])
    assert ticks_of(rest) == [("q", "B", 6, 1), ("q", "A", 7, 1)]
    # On a latest tier the same would replay two ticks, not eleven.
    answer, rest = await answer_to(bench, "e1:3", quotes="A B C", tier=BASIC)
    assert answer["resumed"]
    assert len(ticks_of(rest)) == 2


async def test_a_cursor_of_another_epoch_or_of_the_future_resets_all(autojump_clock):
    bench = Bench()
    bench.publish(("q", "A"), ("q", "B"), ("t", "B"))
    for after in ("e0:1", "e1:4"):
        answer, rest = await answer_to(bench, after, quotes="A NEW", trades="B Z*")
        assert (answer["resumed"], answer["reset"]) == (False, ["A", "B", "NEW", "Z*"])
        assert ticks_of(rest) == [("q", "A", 1, 1), ("t", "B", 1, 1)]
        assert rest[-1] == {"T": "synced", "cursor": "e1:3", "id": 1}
    answer, rest = await answer_to(bench, "e1:3", quotes="A NEW", trades="B Z*")
    assert answer["resumed"]
    assert kinds(rest) == ["synced"]


async def test_a_symbol_already_received_is_passed_over(autojump_clock):
    bench = Bench()
    bench.publish(("q", "A"), ("q", "B"))
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="A")
    bench.publish(("q", "A"), ("q", "B"), ("t", "A"))
    await bench.cycle()
    socket.take()
    await bench.subscribe(member, quotes="A B", trades="A", after="e1:2")
    answer, *rest = socket.take()
    assert answer["resumed"]
    assert ticks_of(rest) == [("q", "B", 2, None), ("t", "A", 1, None)]
    await bench.subscribe(member, quotes="A", after="e0:1")
    answer, *rest = socket.take()
    assert (answer["resumed"], kinds(rest)) == (True, ["synced"])
    bench.balanced()


async def test_a_symbol_that_came_after_the_cursor_starts_at_one(autojump_clock):
    bench = Bench()
    bench.publish(("q", "A"))
    bench.publish(("q", "AB"), ("q", "AB"))
    _, rest = await answer_to(bench, "e1:1", quotes="A*")
    assert ticks_of(rest) == [("q", "AB", 1, None), ("q", "AB", 2, None)]


async def test_a_cursor_ahead_of_a_slow_lane_waits_for_it(autojump_clock):
    bench = Bench()
    other, _ = bench.enter("other", BASIC)
    await bench.subscribe(other, quotes="A")
    await trio.sleep(0.5)
    await bench.cycle()
    bench.publish(*[("q", "A")] * 5)
    member, socket = bench.enter("other", BASIC)  # of the same phase
    await bench.subscribe(member, quotes="A", after="e1:4")
    follower = Follower(every=False)
    follower.last["q", "A"], follower.g = 4, 4
    for _ in range(5):
        await trio.sleep(0.3)
        await bench.cycle()
        bench.publish(("q", "A"))
    messages = socket.take()
    follower.follow(messages)
    assert ticks_of(messages)[0] >= ("q", "A", 5)
    bench.balanced()


async def test_a_long_catch_up_goes_in_frames_in_order_of_g_paced_by_the_socket(autojump_clock):
    bench = Bench(depth=8192)
    bench.publish(("q", "A"), ("t", "B"))
    for _ in range(20):
        bench.publish(*[("q", "A"), ("q", "B"), ("t", "B")] * 100)
    member, socket = bench.enter()
    socket.room = 1
    await bench.subscribe(member, quotes="A B", trades="B", after="e1:2")
    follower = Follower(every=True)
    follower.last |= {("q", "A"): 1, ("t", "B"): 1}
    frames = 0
    while member.group is None:
        follower.follow(socket.take())
        bench.balanced()
        assert len(socket.tail) <= 1  # one unsent frame and a position
        bench.open(member, socket, room=1)
        await bench.cycle()
        frames += 1
    follower.follow(socket.take())
    assert follower.last == {("q", "A"): 2001, ("q", "B"): 2000, ("t", "B"): 2001}
    assert 5 < frames < 40  # the first went out with the answer


async def test_ticks_that_lie_unevenly_do_not_come_in_one_step(autojump_clock):
    bench = Bench(depth=4096)
    bench.publish(("q", "A"))
    for _ in range(100):
        bench.publish(*[("q", "X")] * 1000)  # a long time in which A had nothing
    bench.publish(*[("q", "A")] * 4000)
    member, socket = bench.enter()
    socket.room = 1
    await bench.subscribe(member, quotes="A", after="e1:1")
    steps = []
    while member.group is None:
        steps.append(len(ticks_of(socket.take())))
        assert sum(ticks for _, ticks, _ in member.backlog) <= 1024
        bench.open(member, socket, room=1)
        await bench.cycle()
    assert sum(steps) + len(ticks_of(socket.take())) == 4000


async def test_a_catch_up_that_never_reaches_the_head_is_synced_and_lags(autojump_clock):
    bench = Bench(depth=8192, resume_ticks=3000)
    bench.publish(("q", "A"))
    bench.publish(*[("q", "A")] * 1900)
    member, socket = bench.enter()
    socket.room = 1
    await bench.subscribe(member, quotes="A", after="e1:1")
    follower = Follower(every=True)
    follower.last["q", "A"] = 1
    seen = []
    for _ in range(40):
        messages = socket.take()
        follower.follow(messages)
        seen += [kind for kind in kinds(messages) if kind in ("synced", "lag")]
        bench.publish(*[("q", "A")] * 1200)  # more than two frames, of 512 each, that go out meanwhile
        bench.open(member, socket, room=1)
        await bench.cycle()
        await trio.sleep(0.02)
        bench.balanced()
    assert seen[:2] == ["synced", "lag"]


async def test_an_interval_tier_with_every_tick_catches_up_without_waiting_for_its_grid(autojump_clock):
    bench = Bench(depth=8192)
    bench.publish(("q", "A"))
    bench.publish(*[("q", "A")] * 6000)
    member, socket = bench.enter(tier=SLOW_EVERY)
    await bench.subscribe(member, quotes="A", after="e1:1")
    await trio.sleep(0.1)
    for _ in range(20):
        bench.open(member, socket, room=1)
        await bench.cycle()
    assert len(ticks_of(socket.take())) == 6000


async def test_events_of_a_full_resume_have_ids_from_the_first_and_others_from_synced(autojump_clock):
    bench = Bench(depth=16)
    bench.publish(("q", "A"), ("q", "B"))
    bench.publish(("q", "A"), ("q", "A"))
    for after, first in (("e1:2", b"id: e1:4"), ("e1:9", b"data: [{")):
        member, socket = bench.enter(after, encoding=SSE)
        await bench.subscribe(member, quotes="A B", after=after)
        events = [frame for frame in socket.frames if b'"n":' in frame]
        assert events[0].startswith(first)
        assert socket.frames[-1].startswith(b'id: e1:4\ndata: [{"T":"synced"')


async def test_while_some_are_reset_not_even_the_missed_ticks_have_ids(autojump_clock):
    bench = Bench(depth=16)
    bench.publish(("q", "A"), ("q", "B"))
    for _ in range(5):
        bench.publish(*[("q", "A")] * 4)
    bench.publish(("q", "B"))
    member, socket = bench.enter(encoding=SSE)
    await bench.subscribe(member, quotes="A B", after="e1:2")
    events = [frame.partition(b"\n")[0] for frame in socket.frames]
    assert [line.startswith(b"id: ") for line in events] == [False, False, False, True]
    assert ticks_of(socket.take()) == [("q", "A", 21, 1), ("q", "B", 2, None)]


async def test_many_who_come_back_at_once_do_not_hold_up_the_loop(monkeypatch):
    # On the real clock: a run ends with the first advance that exceeds its budget.
    monkeypatch.setattr("marketfeed.fanout.catchup_scheduler.IDLE_BUDGET_NS", 0)
    bench = Bench(depth=1024)
    bench.publish(("q", "A"))
    bench.publish(*[("q", "A")] * 255)
    sockets = []
    for number in range(50):
        member, socket = bench.enter(f"s{number}")
        await bench.subscribe(member, quotes="A", after="e1:1")
        sockets.append(socket)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.shard.run)
        while not all("synced" in kinds(socket.messages()) for socket in sockets):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    for socket in sockets:
        assert len(ticks_of(socket.take())) == 255


async def test_newcomers_without_end_do_not_starve_one_who_has_much_to_catch_up(monkeypatch):
    # On the real clock, never idle: only some cycles advance sessions, and then few.
    monkeypatch.setattr("marketfeed.fanout.catchup_scheduler.IDLE_BUDGET_NS", 0)
    bench = Bench(depth=16384)
    bench.publish(("q", "A"))
    for _ in range(10):
        bench.publish(*[("q", "A")] * 1000)
    member, socket = bench.enter("long")
    await bench.subscribe(member, quotes="A", after="e1:1")
    count = number = 0
    while count < 10_000:
        assert number < 1000
        number += 1
        newcomer, _ = bench.enter(f"s{number}")
        await bench.subscribe(newcomer, quotes="A")
        count += len(ticks_of(socket.take()))
    assert count == 10_000
    bench.balanced()


# Random lives: never a double, never a silent hole, whatever is cut when.

NAMES = ["A", "B", "AB", "C"]
EVERY, LATEST = [VIP, SLOW_EVERY], [PREMIUM, BASIC]
ticks = st.one_of(
    st.lists(st.tuples(st.sampled_from("qt"), st.sampled_from(NAMES)), min_size=1, max_size=40),
    st.builds(
        list.__mul__,
        st.lists(st.sampled_from([("q", "A"), ("t", "A"), ("q", "C")]), min_size=1, max_size=3),
        st.sampled_from([5, 20, 300]),
    ),
)
cuts = st.tuples(
    st.integers(0, 3), st.lists(ticks, max_size=2), st.integers(0, 1), st.sampled_from([JSON, BINARY, SSE])
)
steps = st.one_of(
    st.tuples(st.just("publish"), ticks),
    st.tuples(st.just("publish"), ticks),
    st.tuples(st.just("wait"), st.sampled_from([0, 0, 0.005, 0.5])),
    st.tuples(st.just("room"), st.sampled_from([None, 0, 1, 2])),
    st.tuples(st.just("cut"), cuts),
    st.tuples(st.just("cut"), cuts),
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    depth=st.sampled_from([16, 64, 1024]),
    resume_ticks=st.sampled_from([5, 100, 100_000]),
    tiers=st.sampled_from([EVERY, LATEST]),
    quotes=st.sampled_from(["A", "A*", "* A", "A C"]),
    trades=st.sampled_from(["", "A", "*"]),
    script=st.lists(steps, max_size=40),
    most=st.sampled_from([1, newcomers.MOST]),  # symbols that may join in one cycle
)
@example(  # the lane waits for symbols to join, and the tick that it stands at is overwritten meanwhile
    16, 5, EVERY, "A*", "",
    [
        ("publish", [("q", "A")] * 8 + [("q", "B"), ("q", "AB")]),
        ("cut", (0, [[("q", "A")] * 2] * 5, 0, JSON)),
    ],
    1,
)  # fmt: skip
def test_what_a_client_put_together_over_cuts_is_what_was_published(
    depth, resume_ticks, tiers, quotes, trades, script, most
):
    clock = trio.testing.MockClock(autojump_threshold=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(newcomers, "LEAST", most)
        patch.setattr(newcomers, "MOST", most)
        trio.run(live, depth, resume_ticks, tiers, quotes, trades, script, clock=clock)


class Life:
    """One client over many sessions: what it put together, and the actions of a script."""

    def __init__(self, bench, quotes, trades, tiers):
        self._bench = bench
        self._quotes, self._trades, self._tiers = quotes, trades, tiers
        self._session_count = 0
        self.follower = Follower(tiers is EVERY)
        self.actions = {"publish": self._publish, "wait": self._wait, "room": self._room, "cut": self._cut}

    async def connect(self, tier, encoding):
        bench, cursor = self._bench, self.follower.cursor
        self._session_count += 1
        self.member, self.socket = bench.enter(f"s{self._session_count}", tier, encoding)
        self.socket.decoder.id = cursor
        await bench.subscribe(self.member, quotes=self._quotes, trades=self._trades, after=cursor)

    def read(self):
        self.follower.follow(self.socket.take())
        if self.member.encoding is SSE:
            assert self.socket.decoder.id == self.follower.cursor

    async def _publish(self, ticks):
        self._bench.publish(*ticks)
        await self._bench.cycle()
        self._read_if_open()

    async def _wait(self, duration_s):
        await trio.sleep(duration_s)
        await self._bench.cycle()
        self._read_if_open()

    async def _room(self, frames):
        self._bench.open(self.member, self.socket, frames)
        await self._bench.cycle()
        self._read_if_open()

    async def _cut(self, detail):
        lost, meanwhile, tier, encoding = detail
        if lost:  # frames sent and never read
            del self.socket.frames[-lost:]
        self.read()
        self.follower.cut()
        self._bench.shard.leave(self.member)
        for batch in meanwhile:
            self._bench.publish(*batch)
        await self.connect(self._tiers[tier], encoding)
        self.socket.room = 1 if lost else None

    def _read_if_open(self):
        if self.socket.room is None:
            self.read()

    async def finish(self):
        """Read what is left, and check that it is all that was published."""
        bench = self._bench
        for _ in range(12):
            bench.open(self.member, self.socket)
            await trio.sleep(0.5)
            await bench.cycle(2)
        self.follower.follow(self.socket.take())
        for kind, symbols in zip("qt", self.member.interest.symbols, strict=True):
            for symbol in symbols.tolist():
                name = bench.symbols.name(symbol)
                assert self.follower.last.get((kind, name), 0) == len(bench.published.get((kind, name), []))
        bench.balanced()
        for ledger in bench.shard.figures.ended.values():
            assert (ledger.difference, ledger.pending) == (0, 0)


async def live(depth, resume_ticks, tiers, quotes, trades, script):
    bench = Bench(depth=depth, resume_ticks=resume_ticks)
    life = Life(bench, quotes, trades, tiers)
    await life.connect(tiers[0], JSON)
    for action, detail in [*script, ("room", None)]:
        await life.actions[action](detail)
        bench.balanced()
    await life.finish()
