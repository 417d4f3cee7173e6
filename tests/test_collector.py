"""When garbage is collected, on a virtual clock."""

from __future__ import annotations

import gc

import trio

from marketfeed.collector import FULL_EVERY_S, PATIENCE_S, Collector


async def full_collections_at(quiet_s, until_s):
    """Return when a full collection took place, with ``quiet_s`` since the last flush."""
    collector, seen = Collector(lambda: quiet_s), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collector.run)
        while trio.current_time() < until_s:
            before = collector.collections[2]
            await trio.sleep(0.5)
            if collector.collections[2] > before:
                seen.append(round(trio.current_time()))
        nursery.cancel_scope.cancel()
    assert sum(collector.seconds) >= collector.longest_s >= 0
    return seen


async def test_an_idle_engine_is_collected_often(autojump_clock):
    seen = await full_collections_at(1.0, 60)
    assert [round(at / FULL_EVERY_S) for at in seen] in ([1, 2, 3], [1, 2, 3, 4])


async def test_an_engine_that_is_never_idle_is_collected_all_the_same(autojump_clock):
    seen = await full_collections_at(0.0, 100)
    assert seen[0] in (FULL_EVERY_S + PATIENCE_S, FULL_EVERY_S + PATIENCE_S + 1)
    assert len(seen) == 2


async def test_the_process_gets_its_collector_back(autojump_clock):
    before = gc.get_threshold(), len(gc.callbacks)
    await full_collections_at(1.0, 5)
    assert (gc.get_threshold(), len(gc.callbacks)) == before
