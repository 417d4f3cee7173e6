"""A quiet shard: a few ticks are sent one by one and at once, and sessions cannot tell the difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.clock import now_ns
from marketfeed.core.few import FEW
from marketfeed.core.units import MS
from marketfeed.fanout import lane as lane_module
from marketfeed.fanout import shard as shard_module
from marketfeed.fanout.lane import Lane
from marketfeed.fanout.wire import BINARY, JSON, PROBE, SSE, Encoding
from tests.support.bench import PREMIUM, SLOW_EVERY, VIP, Bench, Socket

if TYPE_CHECKING:
    from marketfeed.fanout.tiers import Tier

TICK = st.tuples(st.sampled_from("qt"), st.sampled_from(["A", "AB", "B", "C"]))
SESSIONS: list[tuple[Tier, Encoding, str, str]] = [
    (VIP, JSON, "A*", "A"),
    (VIP, JSON, "B", "A* B"),
    (VIP, BINARY, "A* B", "A* B"),
    (VIP, SSE, "C", "C"),
    (PREMIUM, JSON, "A B", "A"),  # it has the encoder cache the newest fragments
    (SLOW_EVERY, BINARY, "A*", ""),
]


def frames_after(batches, few):
    """Return what each session is sent for ``batches``, and the rows of the latency histograms."""

    async def main():
        bench = Bench()
        sockets = []
        for number, (tier, encoding, quotes, trades) in enumerate(SESSIONS):
            member, socket = bench.enter(f"s{number}", tier, encoding)
            await bench.subscribe(member, quotes, trades)
            sockets.append(socket)
        for batch in batches:
            bench.publish(*batch)
            await trio.sleep(0.03)
            await bench.cycle()
        bench.balanced()
        hops = {
            (tag.tier, tag.hop, tag.symbol): (histogram.total, histogram.counts.tolist())
            for tag, histogram in bench.recorder.rotate(*bench.shard.ticks())
            if histogram.total
        }
        return [socket.frames for socket in sockets], hops

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lane_module, "FEW", few)
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(TICK, min_size=1, max_size=9), min_size=1, max_size=8))
def test_ticks_one_by_one_make_the_frames_and_the_latencies_that_arrays_make(batches):
    assert frames_after(batches, FEW) == frames_after(batches, 0)


async def running(bench, nursery):
    """Start the shard's loop; return when it rests."""
    nursery.start_soon(bench.shard.run)
    await trio.testing.wait_all_tasks_blocked()


async def with_session(bench, name="s1"):
    bench.publish(("q", "A"))
    member, socket = bench.enter(name)
    await bench.subscribe(member, quotes="A")
    socket.take()
    return member, socket


async def test_a_tick_of_a_quiet_shard_is_sent_before_its_feed_goes_on(autojump_clock):
    bench = Bench()
    _, socket = await with_session(bench)
    async with trio.open_nursery() as nursery:
        await running(bench, nursery)
        bench.publish(("q", "A"))
        bench.shard.ticked()
        assert [message["n"] for message in socket.take()] == [2]
        bench.publish(("q", "A"))
        bench.shard.ticked()  # in quick succession: the loop sends what came together
        bench.publish(("q", "A"))
        bench.shard.ticked()
        assert not socket.frames
        await trio.testing.wait_all_tasks_blocked()
        assert [[m["n"] for m in socket.decoder.decode(frame)] for frame in socket.frames] == [[3, 4]]
        nursery.cancel_scope.cancel()
    bench.balanced()


async def test_the_first_tick_of_a_new_symbol_is_sent_at_once_too(autojump_clock):
    bench = Bench()
    member, socket = bench.enter()
    await bench.subscribe(member, quotes="A*")
    socket.take()
    async with trio.open_nursery() as nursery:
        await running(bench, nursery)
        await trio.sleep(0.01)
        bench.publish(("q", "AB"))
        bench.shard.ticked()
        await trio.testing.wait_all_tasks_blocked()
        assert [(message["S"], message["n"]) for message in socket.take()] == [("AB", 1)]
        nursery.cancel_scope.cancel()


async def test_a_session_whose_socket_fills_at_once_goes_on_when_it_has_drained(autojump_clock):
    bench = Bench()
    member, socket = await with_session(bench)
    async with trio.open_nursery() as nursery:
        await running(bench, nursery)
        socket.room = 0
        for _ in range(3):
            bench.publish(("q", "A"))
            bench.shard.ticked()
            await trio.sleep(2 * MS / 1e9)
        bench.open(member, socket)
        await trio.sleep(0.1)
        assert [message["n"] for message in socket.take()] == [2, 3, 4]
        nursery.cancel_scope.cancel()
    bench.balanced()


async def test_many_sessions_are_left_to_the_loop(autojump_clock, monkeypatch):
    monkeypatch.setattr(shard_module, "FEW_SESSIONS", 1)
    bench = Bench()
    (_, first), (_, second) = await with_session(bench), await with_session(bench, "s2")
    async with trio.open_nursery() as nursery:
        await running(bench, nursery)
        await trio.sleep(0.01)
        first.take()
        bench.publish(("q", "A"))
        bench.shard.ticked()
        assert not first.frames
        await trio.testing.wait_all_tasks_blocked()
        assert (
            [message["n"] for message in first.take()] == [message["n"] for message in second.take()] == [3]
        )
        nursery.cancel_scope.cancel()


async def test_clients_are_sent_a_tick_before_the_engines_own_probes(autojump_clock):
    bench = Bench()
    order: list[str] = []

    class Noting(Socket):
        """A socket that notes the kind of its session."""

        def __init__(self, kind):
            super().__init__()
            self.kind = kind

        def offer(self, frame):
            order.append(self.kind)
            return True

    for number, encoding in enumerate((PROBE, JSON, PROBE)):
        member = bench.shard.enter(f"s{number}", Noting(encoding.transport), VIP, encoding)
        await bench.subscribe(member, quotes="A")
    bench.publish(("q", "A"))
    await bench.cycle()
    order.clear()
    bench.publish(("q", "A"))
    await bench.cycle()
    assert order == ["websocket", "probe", "probe"]


async def test_a_fault_in_the_fan_out_is_not_the_feeds(autojump_clock, monkeypatch):
    bench = Bench()
    await with_session(bench)

    def broken(lane, head):
        raise RuntimeError("a bug")

    async def publishing():
        async with trio.open_nursery() as nursery:
            await running(bench, nursery)
            await trio.sleep(0.01)
            bench.publish(("q", "A"))
            monkeypatch.setattr(Lane, "collect", broken)
            bench.shard.ticked()  # returns

    with pytest.raises(ExceptionGroup) as caught:
        await publishing()
    assert [str(error) for error in caught.value.exceptions] == ["a bug"]


async def test_an_idle_interval_tier_sleeps_until_a_tick_and_keeps_to_its_grid(autojump_clock, monkeypatch):
    """Premium sends at multiples of 100 ms, shifted by its phase; the loop does not run in between."""
    bench = Bench()
    bench.publish(("q", "A"))
    member, socket = bench.enter(tier=PREMIUM)
    await bench.subscribe(member, quotes="A")
    await trio.sleep(0.25)
    async with trio.open_nursery() as nursery:
        await running(bench, nursery)
        socket.take()
        cycles = []
        cycle = bench.shard.cycle

        async def counted(now_ns):
            cycles.append(now_ns)
            await cycle(now_ns)

        monkeypatch.setattr(bench.shard, "cycle", counted)
        await trio.sleep(10.03)
        assert len(cycles) <= 11  # the keepalive's, once a second
        phase = member.lane_key[1]
        due_ns = PREMIUM.next_flush_ns(phase, now_ns())
        bench.publish(("q", "A"))
        bench.shard.ticked()
        assert not socket.frames
        await trio.sleep(due_ns / 1e9 - trio.current_time() - 0.001)
        assert not socket.frames
        await trio.sleep(0.002)
        assert [message["n"] for message in socket.take()] == [2]
        hops = {tag.hop: h for tag, h in bench.recorder.rotate(*bench.shard.ticks()) if tag.tier == "premium"}
        assert hops["late"].max_ns < 50 * MS  # it is not late: it slept on purpose
        nursery.cancel_scope.cancel()
