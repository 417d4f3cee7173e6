"""Random lives of sessions, and the checks that each step of one has to pass."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import strategies as st

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
    st.tuples(st.just("switch"), st.tuples(who, st.sampled_from([JSON, BINARY]))),
)


async def live(depth, tier, encodings, script):  # noqa: C901 - one case an action
    bench = Bench(depth=depth)
    sessions = {}
    for number in range(3):
        member, socket = bench.enter(f"s{number}", tier, encodings[number])
        sessions[number] = (member, socket, Follower(tier.every))
        await bench.subscribe(member, quotes="A", trades="A*")
    for action, detail in script:
        match action:
            case "publish":
                bench.publish(*detail)
            case "cycle":
                await bench.cycle()
            case "wait":
                await trio.sleep(detail)
                await bench.cycle()
            case "shut" if detail in sessions:
                sessions[detail][1].room = 0
            case "open" if detail[0] in sessions:
                member, socket, _ = sessions[detail[0]]
                bench.open(member, socket, detail[1])
                await bench.cycle()
            case "subscribe" if detail[0] in sessions:
                await bench.subscribe(sessions[detail[0]][0], quotes=detail[1], trades=detail[1])
            case "switch" if detail[0] in sessions:
                member, _, _ = sessions[detail[0]]
                if member.encoding is not SSE:
                    await bench.subscribe(member, encoding=detail[1])
            case "leave" if detail in sessions:
                bench.shard.leave(sessions.pop(detail)[0])
                await bench.cycle()
        bench.balanced()
        for _, socket, follower in sessions.values():
            follower.follow(socket.take())
    # Let everybody read: at the end each stands at the head.
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
