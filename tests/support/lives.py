"""Random sequences of actions on sessions, and the checks after each action."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import strategies as st

from marketfeed.fanout.compression import COMPRESSED
from marketfeed.fanout.wire import BINARY, JSON, SSE
from tests.support.bench import BASIC, PREMIUM, SLOW_EVERY, VIP, Bench, Follower

NAMES = ["A", "B", "AB", "C"]
TIERS = [VIP, SLOW_EVERY, PREMIUM, BASIC]
ticks = st.lists(st.tuples(st.sampled_from("qt"), st.sampled_from(NAMES)), min_size=1, max_size=40)
who = st.integers(0, 2)
steps = st.one_of(
    st.tuples(st.just("publish"), ticks),
    st.tuples(st.just("publish"), ticks),
    st.tuples(st.just("cycle"), st.just(None)),
    st.tuples(st.just("wait"), st.sampled_from([0.005, 0.05, 0.5])),
    st.tuples(st.just("shut"), who),
    st.tuples(st.just("open"), st.tuples(who, st.sampled_from([None, 1, 3]))),
    st.tuples(st.just("subscribe"), st.tuples(who, st.sampled_from([*NAMES, "A*", "*"]))),
    st.tuples(st.just("leave"), who),
    st.tuples(st.just("switch"), st.tuples(who, st.sampled_from([JSON, BINARY, COMPRESSED]))),
)


class Lives:
    """Three sessions by number, and the actions of a script; actions of a session that left do nothing."""

    def __init__(self, bench):
        self._bench = bench
        self.sessions = {}
        self.actions = {
            "publish": self._publish,
            "cycle": self._cycle,
            "wait": self._wait,
            "shut": self._shut,
            "open": self._open,
            "subscribe": self._subscribe,
            "leave": self._leave,
            "switch": self._switch,
        }

    async def enter(self, number, tier, encoding):
        member, socket = self._bench.enter(f"s{number}", tier, encoding)
        self.sessions[number] = (member, socket, Follower(tier.every))
        await self._bench.subscribe(member, quotes="A", trades="A*")

    async def _publish(self, ticks):
        self._bench.publish(*ticks)

    async def _cycle(self, _):
        await self._bench.cycle()

    async def _wait(self, duration_s):
        await trio.sleep(duration_s)
        await self._bench.cycle()

    async def _shut(self, number):
        if number in self.sessions:
            self.sessions[number][1].room = 0

    async def _open(self, detail):
        number, room = detail
        if number in self.sessions:
            member, socket, _ = self.sessions[number]
            self._bench.open(member, socket, room)
            await self._bench.cycle()

    async def _subscribe(self, detail):
        number, pattern = detail
        if number in self.sessions:
            await self._bench.subscribe(self.sessions[number][0], quotes=pattern, trades=pattern)

    async def _leave(self, number):
        if number in self.sessions:
            self._bench.shard.leave(self.sessions.pop(number)[0])
            await self._bench.cycle()

    async def _switch(self, detail):
        number, encoding = detail
        if number in self.sessions:
            member = self.sessions[number][0]
            if member.encoding is not SSE:
                await self._bench.subscribe(member, encoding=encoding)


async def live(depth, tier, encodings, script):
    bench = Bench(depth=depth)
    lives = Lives(bench)
    sessions = lives.sessions
    for number in range(3):
        await lives.enter(number, tier, encodings[number])
    for action, detail in script:
        await lives.actions[action](detail)
        bench.balanced()
        for _, socket, follower in sessions.values():
            follower.follow(socket.take())
    # Read everything: each session ends at the head.
    for _ in range(20):
        for member, socket, _ in sessions.values():
            bench.open(member, socket)
        await trio.sleep(0.5)
        await bench.cycle(2)
    for member, socket, follower in sessions.values():
        follower.follow(socket.take())
        for kind, names in zip("qt", member.names, strict=True):
            for name in names:
                if name in NAMES:
                    assert follower.last.get((kind, name), 0) == len(bench.published.get((kind, name), []))
        assert not follower.lagging
    bench.balanced()
    for ledger in bench.shard.figures.ended.values():
        assert ledger.difference == 0
        assert ledger.pending == 0
