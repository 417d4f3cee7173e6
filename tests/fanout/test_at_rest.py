"""While the shard rests, sessions change their subscriptions and leave in their own tasks."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
import trio.testing

from marketfeed.fanout.change import SubscriptionChange
from marketfeed.fanout.interest import Names
from tests.support.bench import BASIC, Bench, kinds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def at_rest() -> AsyncIterator[Bench]:
    """Run a shard, which rests once the block begins."""
    bench = Bench()
    bench.publish(("q", "A"), ("q", "B"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.shard.run)
        await trio.testing.wait_all_tasks_blocked()
        yield bench
        nursery.cancel_scope.cancel()


def change_of(member, answer: bytes) -> SubscriptionChange:
    return SubscriptionChange(member, Names(("A", "B")), member.tier, member.encoding, lambda _: answer, True)


def answered(payload: bytes = b'[{"T":"pong"}]') -> bytes:
    return b"\x81%c%b" % (len(payload), payload)


async def test_a_change_is_applied_at_once_and_all_that_it_brings_shares_one_send(autojump_clock):
    async with at_rest() as bench:
        member, socket = bench.enter()
        socket.room = 1
        passes = 0

        async def count() -> None:
            nonlocal passes
            while True:
                passes += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            await bench.shard.change(change_of(member, answered()))
            assert passes == 0
            nursery.cancel_scope.cancel()
        assert kinds(socket.take()) == ["pong", "q", "q", "synced"]
        assert member.group is not None
        bench.publish(("q", "A"))
        bench.shard.wake()
        await trio.testing.wait_all_tasks_blocked()
        assert member.blocked  # the room was for one send
        bench.balanced()


async def test_a_session_that_leaves_is_removed_at_once(autojump_clock):
    async with at_rest() as bench:
        member, _ = bench.enter()
        await bench.shard.change(change_of(member, b""))
        bench.shard.leave(member)
        assert member not in bench.shard.members
        assert len(bench.shard.members) == 0
        bench.balanced()


async def test_a_session_on_an_interval_tier_is_answered_at_once_and_served_on_its_grid(autojump_clock):
    async with at_rest() as bench:
        member, socket = bench.enter("s", BASIC)
        await bench.shard.change(change_of(member, answered()))
        assert kinds(socket.take()) == ["pong"]
        await trio.sleep(BASIC.interval_ns / 1e9)
        assert kinds(socket.take()) == ["q", "q", "synced"]


async def test_once_sessions_have_used_a_cycles_time_others_wait_for_the_next(autojump_clock, monkeypatch):
    monkeypatch.setattr("marketfeed.fanout.shard.CHANGES_NS", 0)
    async with at_rest() as bench:
        member, socket = bench.enter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.shard.change, change_of(member, answered()))
            await trio.lowlevel.checkpoint()
            assert member.interest.counts() == (0, 0)
            await trio.testing.wait_all_tasks_blocked()
        assert kinds(socket.take()) == ["pong", "q", "q", "synced"]
        bench.shard.leave(member)
        assert member in bench.shard.members
        await trio.testing.wait_all_tasks_blocked()
        assert member not in bench.shard.members
