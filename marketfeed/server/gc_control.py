"""Control of Python's garbage collector: short collections, independent of the number of sessions.

A collection visits all tracked objects; 10,000 sessions have 1.5 million of them, which takes 0.8 s. Live
sessions need not be visited, and ended sessions leave no reference cycles (tests/gateway/test_ends.py), so
reference counting frees them. Objects that survive a few collections are therefore frozen (gc.freeze), and
each collection visits only the objects since the last one, some thousands.

Python starts a collection by the number of allocations less deallocations. With long-lived sessions, new
objects replace frozen ones, the difference stays near zero, and young objects accumulate: 300,000 in five
seconds of pongs, then a collection of 100 ms. So collections are also started by the clock; the longer the
last one took, the sooner the next.

An object that becomes part of a cycle after it was frozen is never freed; ``frozen`` counts frozen objects.
What a life of the engine leaves is full of such cycles: :meth:`Collector.collect_all` visits everything once.
perf/many.py and perf/soak.py measure both effects.
"""

from __future__ import annotations

import gc
import time
from typing import Any, Final

import trio

# Allocations before a collection of generation 0; every second one includes generation 1, and every
# fourth all objects that are not frozen.
THRESHOLDS: Final = (300, 1, 1)
ROUND_S: Final = (0.01, 0.1)  # between timed collections: at least, at most
IDLE_ROUND_S: Final = 1.0  # while the process uses less than IDLE_SHARE of a core
IDLE_SHARE: Final = 0.02
YOUNG_NS: Final = 200_000  # target CPU time of a timed collection
# CPU time spent on generations 0 and 1 after which the next older generation is collected.
SPENT_NS: Final = (200_000, 500_000)
OLDER_EVERY_S: Final = 10.0  # at the latest: in an idle process few objects may hold much memory


class Collector:
    """Keeps collections short, and measures every collection."""

    def __init__(self) -> None:
        self._started = 0
        self._started_ns = 0  # in CPU time, because waiting for a core is not work
        self._spent_ns = [0, 0, 0]  # by generation, since an older one was collected
        self.collections = [0, 0, 0]  # by generation
        self.seconds = [0.0, 0.0, 0.0]
        self.longest_s = 0.0  # elapsed time; the next is CPU time
        self.longest_cpu_s = 0.0

    @property
    def frozen(self) -> int:
        """Return how many objects are frozen."""
        return gc.get_freeze_count()

    async def run(self) -> None:
        """Control the process's garbage collector until cancelled."""
        gc.collect()
        gc.freeze()
        # Again, with nothing left to visit: Python delays a full collection until the new objects are a
        # quarter of those that survived the last one.
        gc.collect()
        before = gc.get_threshold()
        gc.set_threshold(*THRESHOLDS)
        gc.callbacks.append(self._timed)
        try:
            await self._keep_collecting()
        finally:
            gc.callbacks.remove(self._timed)
            gc.set_threshold(*before)
            gc.unfreeze()

    def figures(self) -> dict[str, Any]:
        """Return what was measured so far, by fields of :class:`marketfeed.server.stats.ServerStats`."""
        return {
            "gc_collections": list(self.collections),
            "gc_seconds": list(self.seconds),
            "gc_longest_s": self.longest_s,
            "gc_longest_cpu_s": self.longest_cpu_s,
        }

    @staticmethod
    def collect_all() -> None:
        """Collect frozen objects as well, after a life of the engine has ended: 80 ms per 1,000 sessions."""
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    async def _keep_collecting(self) -> None:
        least_s, pause_s = ROUND_S
        older_s = trio.current_time() + OLDER_EVERY_S
        used_s, now_s = time.process_time(), trio.current_time()
        while True:
            idle = time.process_time() - used_s < IDLE_SHARE * (trio.current_time() - now_s)
            used_s, now_s = time.process_time(), trio.current_time()
            await trio.sleep(IDLE_ROUND_S if idle else pause_s)
            young, older = (spent >= most for spent, most in zip(self._spent_ns[:2], SPENT_NS, strict=True))
            generation = 2 if older else 1 if young or trio.current_time() >= older_s else 0
            spent_ns = self._spent_ns[0]
            gc.collect(generation)
            if generation:
                older_s = trio.current_time() + OLDER_EVERY_S
            else:
                took_ns = max(1, self._spent_ns[0] - spent_ns)
                pause_s *= min(max(YOUNG_NS / took_ns, 0.5), 2.0)
                pause_s = min(max(pause_s, least_s), ROUND_S[1])

    def _timed(self, phase: str, info: dict[str, Any]) -> None:
        generation = info["generation"]
        if phase == "start":
            self._started = time.perf_counter_ns()
            self._started_ns = time.thread_time_ns()
            return
        self._spent_ns[:generation] = [0] * generation
        cpu_ns = time.thread_time_ns() - self._started_ns
        self._spent_ns[generation] += cpu_ns
        self.longest_cpu_s = max(self.longest_cpu_s, cpu_ns / 1e9)
        if generation == 2:
            gc.freeze()  # only moves lists: takes no measurable time
            self._spent_ns[2] = 0
        seconds = (time.perf_counter_ns() - self._started) / 1e9
        self.collections[generation] += 1
        self.seconds[generation] += seconds
        self.longest_s = max(self.longest_s, seconds)
