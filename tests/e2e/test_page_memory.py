"""The page's memory while ticks of half an hour come through it, with every view in use."""

from __future__ import annotations

import os

import pytest

from tests.support.chromium import chromium, session_of, until, watched
from tests.support.process import engine

pytestmark = [pytest.mark.alone, pytest.mark.slow]

PROVE = bool(os.environ.get("MARKETFEED_PROVE"))
MINUTE_TICKS = 60 * 1100  # of 1,000 quotes a second with their trades
RATE = 20_000  # quotes a second in this test, so that half an hour takes a minute and a half
MINUTES = 30 if PROVE else 2
# Between samples the browser's own caches vary by 4 MB, without a trend. A leak of 40 bytes a tick is 5 MB.
GROWTH_BYTES = 1_000_000 if PROVE else 5_000_000
VIEWS = (
    "watch",
    "watch/SY0001",
    "tiers/SY0003",
    "latency",
    "alerts",
    "alerts/history",
    "connection",
    "access",
)
CONFIG = f"""
[[feeds]]
name = "demo"
type = "synthetic"
symbols = 1000
rate = {RATE}
"""


def used(devtools):
    """Bytes of scripts after a collection: objects, and what array buffers hold."""
    for _ in range(2):
        devtools.send("HeapProfiler.collectGarbage")
    found = devtools.send("Runtime.getHeapUsage")
    return found["usedSize"] + found["backingStorageSize"]


def round_of_views(page, address):
    for view in VIEWS:
        page.goto(f"{address}#{view}")
        page.wait_for_timeout(300)
    page.goto(f"{address}#watch")


def test_memory_does_not_grow_with_ticks(tmp_path):
    with engine(CONFIG, tmp_path) as running, chromium() as browser, watched(browser) as watcher:
        address = f"http://localhost:{running.port}/"
        page = watcher.open(address)
        devtools = page.context.new_cdp_session(page)
        until(page, "session.live && session.book.elapsed > 2")
        for _ in range(3):  # views are built when first shown, and fill lists that are bounded
            round_of_views(page, address)
        nodes, before = devtools.send("Memory.getDOMCounters")["nodes"], used(devtools)
        first, sizes = session_of(page, "session.book.ticks"), [before]
        while session_of(page, "session.book.ticks") - first < MINUTES * MINUTE_TICKS:
            round_of_views(page, address)
            sizes.append(used(devtools))
        # The client keeps the newest tick of each symbol: the first samples grow until every symbol had one.
        most_at_first = max(sizes[: max(2, len(sizes) // 3)])
        assert sizes[-1] - most_at_first < GROWTH_BYTES, sizes
        print(f"{session_of(page, 'session.book.ticks') - first:,} ticks: {sizes}")
        assert devtools.send("Memory.getDOMCounters")["nodes"] < nodes + 2000
        assert session_of(page, "session.book.holes") == 0
