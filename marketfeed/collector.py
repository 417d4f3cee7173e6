"""The garbage collector, kept out of the way of the ticks.

A collection takes as long as there are objects to look at, and 10,000 sessions
are a million and a half: 0.8 s. But sessions that live need not be looked at,
and those that end leave no cycles behind (tests/gateway/test_ends.py), so they
go by their reference counts. So what has survived a few collections is frozen,
taken out of the collector's sight, and each collection looks at what has come
since the last, some thousand objects, however many there are.

What becomes a cycle only after it was frozen stays for good; ``frozen`` says
how much there is. perf/many.py and perf/soak.py watch over both.
"""

from __future__ import annotations

import gc
import time
from typing import Any, Final

import trio

# Young objects are collected at so many; every second time together with those before them,
# and every fourth with all that is not frozen yet.
THRESHOLDS: Final = (1500, 1, 1)
YOUNG_EVERY_S: Final = 10.0  # in a quiet process few objects may hold much


class Collector:
    """Keeps collections short, and the time of every one, whoever started it."""

    def __init__(self) -> None:
        self._started = 0
        self.collections = [0, 0, 0]  # by generation
        self.seconds = [0.0, 0.0, 0.0]
        self.longest_s = 0.0

    @property
    def frozen(self) -> int:
        """Return how many objects are no longer looked at."""
        return gc.get_freeze_count()

    async def run(self) -> None:
        """Take over the process's collector until cancelled."""
        gc.collect()
        gc.freeze()
        # Once more, over nothing: Python puts a full collection off until a quarter of what the last
        # one left is new, and would let as much pile up.
        gc.collect()
        before = gc.get_threshold()
        gc.set_threshold(*THRESHOLDS)
        gc.callbacks.append(self._timed)
        try:
            while True:
                await trio.sleep(YOUNG_EVERY_S)
                gc.collect(1)
        finally:
            gc.callbacks.remove(self._timed)
            gc.set_threshold(*before)
            gc.unfreeze()

    def _timed(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._started = time.perf_counter_ns()
            return
        if info["generation"] == 2:
            gc.freeze()  # moves lists, at no cost worth timing
        seconds = (time.perf_counter_ns() - self._started) / 1e9
        self.collections[info["generation"]] += 1
        self.seconds[info["generation"]] += seconds
        self.longest_s = max(self.longest_s, seconds)
