"""When garbage is collected, and what of the process is then looked at."""

from __future__ import annotations

import gc
import time
import weakref
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from marketfeed.server import gc_control
from marketfeed.server.gc_control import OLDER_EVERY_S, ROUND_S, THRESHOLDS, Collector


@asynccontextmanager
async def collecting():
    collector = Collector()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collector.run)
        await trio.testing.wait_all_tasks_blocked()
        yield collector
        nursery.cancel_scope.cancel()


class Link:
    """One end of a cycle."""

    def __init__(self) -> None:
        self.other: Link | None = None


def cycle() -> weakref.ref[Link]:
    one, other = Link(), Link()
    one.other, other.other = other, one
    return weakref.ref(one)


def make(count: int) -> list[list[int]]:
    """Return objects of which the collector keeps track."""
    return [[number] for number in range(count)]


async def test_cycles_are_collected_without_being_asked_for():
    async with collecting():
        gone = cycle()
        kept = make(2 * THRESHOLDS[0])
        assert gone() is None
        assert kept


async def test_what_lives_on_is_not_looked_at_again():
    async with collecting() as collector:
        before = collector.frozen
        kept = make(40 * THRESHOLDS[0])
        assert collector.collections[2] >= 5
        # All but the last few are out of the collector's sight, so that no collection depends on how many.
        assert collector.frozen - before > len(kept) - 10 * THRESHOLDS[0]
        assert sum(len(gc.get_objects(generation=age)) for age in range(3)) < 10 * THRESHOLDS[0]


async def test_a_quiet_process_is_rid_of_its_cycles_too(autojump_clock, monkeypatch):
    # By the clock alone: neither allocations nor CPU time spent bring a full collection, which would freeze
    # the two objects before they are a cycle.
    monkeypatch.setattr(gc_control, "THRESHOLDS", (1_000_000, 1, 1))
    monkeypatch.setattr(time, "thread_time_ns", lambda: 0)
    async with collecting() as collector:
        gone = cycle()
        await trio.sleep(2 * ROUND_S[1])
        assert gone() is None
        one, other = Link(), Link()
        await trio.sleep(2 * ROUND_S[1])  # young no more when it becomes one
        gone = weakref.ref(one)
        one.other, other.other = other, one
        del one, other
        await trio.sleep(OLDER_EVERY_S + 1)
        assert gone() is None
        assert collector.collections[1] >= 1


@pytest.mark.slow
async def test_objects_that_take_the_place_of_frozen_ones_do_not_pile_up(autojump_clock):
    kept = [make(10) for _ in range(100_000)]
    async with collecting() as collector:
        assert collector.frozen > 10 * len(kept)
        most = 0
        for at in range(0, len(kept), 1000):
            for number in range(at, at + 1000):
                kept[number] = make(10)  # as many more as less: Python's own count stays where it is
            await trio.sleep(ROUND_S[1])
            most = max(most, sum(len(gc.get_objects(generation=age)) for age in range(3)))
        assert most < 3 * len(kept)


async def test_every_collection_is_timed_whoever_asked_for_it():
    async with collecting() as collector:
        gc.collect()
        assert collector.collections[2] == 1
        assert sum(collector.seconds) >= collector.longest_s > 0


async def test_the_process_gets_its_collector_back():
    before = gc.get_threshold(), len(gc.callbacks)
    async with collecting():
        assert gc.get_threshold() == THRESHOLDS
    assert (gc.get_threshold(), len(gc.callbacks)) == before
    assert gc.get_freeze_count() == 0
