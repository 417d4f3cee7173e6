"""The garbage collector, kept out of the way of the ticks.

What exists at the start is frozen, the thresholds are raised, and what has to
be collected is collected in moments when nothing is being delivered, if there are such.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any, Final

import trio

THRESHOLDS: Final = (50_000, 50, 1000)  # sessions make few cycles; Python's own are (700, 10, 10)
LOOK_S: Final = 0.25
IDLE_S: Final = 0.02  # nothing delivered for this long: a moment to collect in
FULL_EVERY_S: Final = 15.0
PATIENCE_S: Final = 30.0  # an engine that is never idle is collected all the same; sessions leave cycles
YOUNG: Final = 2000  # allocations below which an idle collection is not worth its time


class Collector:
    """Decides when to collect, and keeps the time of every collection, whoever started it.

    ``quiet_s()`` returns for how long nothing has been delivered.
    """

    def __init__(self, quiet_s: Callable[[], float]) -> None:
        self._quiet_s = quiet_s
        self._started = 0
        self.collections = [0, 0, 0]  # by generation
        self.seconds = [0.0, 0.0, 0.0]
        self.longest_s = 0.0

    async def run(self) -> None:
        """Take over the process's collector until cancelled."""
        gc.collect()
        gc.freeze()
        before = gc.get_threshold()
        gc.set_threshold(*THRESHOLDS)
        gc.callbacks.append(self._timed)
        try:
            full_at_s = trio.current_time() + FULL_EVERY_S
            while True:
                await trio.sleep(LOOK_S)
                if self._quiet_s() < IDLE_S and trio.current_time() < full_at_s + PATIENCE_S:
                    continue
                if trio.current_time() >= full_at_s:
                    full_at_s = trio.current_time() + FULL_EVERY_S
                    gc.collect()
                elif gc.get_count()[0] >= YOUNG:
                    gc.collect(1)
        finally:
            gc.callbacks.remove(self._timed)
            gc.set_threshold(*before)
            gc.unfreeze()

    def _timed(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._started = time.perf_counter_ns()
            return
        seconds = (time.perf_counter_ns() - self._started) / 1e9
        self.collections[info["generation"]] += 1
        self.seconds[info["generation"]] += seconds
        self.longest_s = max(self.longest_s, seconds)
