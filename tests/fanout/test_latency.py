"""The shard's recorder: every tick that a group delivered is in every hop of its tier, once per session."""

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.fanout.state import State
from tests.support.bench import BASIC, PREMIUM, VIP, Bench, S


class Clock:
    """A wall clock that goes on by a microsecond each time it is read."""

    def __init__(self):
        self.now_ns = 1_700_000_000 * S

    def __call__(self):
        self.now_ns += 1000
        return self.now_ns


def counts(bench):
    """How many deliveries each hop of each tier holds; ticks of the bench have no time of receipt."""
    found = bench.recorder.rotate(*bench.shard.ticks())
    return {
        (tag.tier, tag.hop): h.total + h.beyond
        for tag, h in found
        if (h.total or h.beyond) and not tag.symbol
    }


async def test_each_session_counts_and_one_that_cannot_be_sent_to_does_not(autojump_clock):
    bench = Bench(wall_ns=Clock())
    sessions = [bench.enter(f"s{i}") for i in range(3)]
    for member, _ in sessions:
        await bench.subscribe(member, quotes="A B")
    await bench.cycle()
    sessions[2][1].room = 0
    bench.publish(("q", "A"), ("q", "B"), ("q", "A"))
    await bench.cycle()
    assert counts(bench) == {("vip", hop): 6 for hop in ("ring", "wait", "encode", "send", "total")}


async def test_how_late_a_flush_began_is_known_of_tiers_that_have_a_grid(autojump_clock):
    bench = Bench(wall_ns=Clock())
    member, _ = bench.enter("s1", PREMIUM)
    await bench.subscribe(member, quotes="A")
    await trio.sleep(1)
    await bench.cycle()
    bench.publish(("q", "A"))
    await trio.sleep(0.25)
    await bench.cycle()
    found = {tag.hop: h for tag, h in bench.recorder.rotate(*bench.shard.ticks())}
    assert found["late"].total == found["wait"].total == 1
    assert 0 < found["late"].max_ns <= 250_000_000


step = st.one_of(
    st.lists(st.tuples(st.sampled_from("qt"), st.sampled_from("ABC")), min_size=1, max_size=6),
    st.sampled_from(["join", "leave", "more", "less", "block", "open"]),
)


@settings(max_examples=60)
@given(st.lists(step, max_size=25), st.sampled_from([VIP, PREMIUM, BASIC]))
def test_every_hop_holds_what_the_groups_of_a_tier_delivered(steps, tier):
    async def play():
        bench, sessions, delivered = Bench(wall_ns=Clock()), [], 0
        for number, one in enumerate(steps):
            if isinstance(one, list):
                bench.publish(*one)
            elif one == "join":
                sessions.append(bench.enter(f"s{number}", tier))
                await bench.subscribe(sessions[-1][0], quotes="A B*", trades="*")
            elif sessions:
                member, socket = sessions[number % len(sessions)]
                if one == "leave":
                    sessions.remove((member, socket))
                    bench.shard.leave(member)
                elif one == "more":
                    await bench.subscribe(member, quotes="C")
                elif one == "less":
                    await bench.unsubscribe(member, quotes="A")
                elif one == "block":
                    socket.room = 0
                else:
                    bench.open(member, socket)
            await trio.sleep(0.6)
            grouped = [m for m, _ in sessions if m.state is State.LIVE]
            before = {m: bench.shard.figures.ledgers(m)[tier.name].delivered for m in grouped}
            await bench.cycle()
            # Sessions that catch up are sent to one by one, and are in no histogram.
            delivered += sum(
                bench.shard.figures.ledgers(m)[tier.name].delivered - n for m, n in before.items()
            )
        found = counts(bench)
        assert {n for (_, hop), n in found.items() if hop not in ("venue", "late")} == ({delivered} - {0})

    trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))
