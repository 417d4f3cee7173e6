"""The garbage collector, kept out of the way of the ticks.

A collection takes as long as there are objects to look at, and 10,000 sessions
are a million and a half: 0.8 s. But sessions that live need not be looked at,
and those that end leave no cycles behind (tests/gateway/test_ends.py), so they
go by their reference counts. So what has survived a few collections is frozen,
taken out of the collector's sight, and each collection looks at what has come
since the last, some thousand objects, however many there are.

Python counts what is new less what has gone. Where sessions live on, new objects
take the place of frozen ones (each look at a socket leaves a few), the count stays
near nothing and the young pile up unseen: 300,000 in five seconds of pongs, and then
100 ms at once. So there are rounds by the clock as well, the closer together the
longer the last one took.

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
THRESHOLDS: Final = (300, 1, 1)
ROUND_S: Final = (0.01, 0.1)  # between rounds: at least, at most
YOUNG_NS: Final = 200_000  # of CPU, that a round should take
SPENT_NS: Final = (200_000, 500_000)  # on a generation, since the next one was looked at: then that is
OLDER_EVERY_S: Final = 10.0  # in a quiet process few objects may hold much


class Collector:
    """Keeps collections short, and the time of every one, whoever started it."""

    def __init__(self) -> None:
        self._started = 0
        self._started_ns = 0  # in CPU time: a process that waits for a core has not more to collect
        self._spent_ns = [0, 0, 0]  # by generation, since an older one was collected
        self.collections = [0, 0, 0]  # by generation
        self.seconds = [0.0, 0.0, 0.0]
        self.longest_s = 0.0  # by the clock; without what the process waited for a core:
        self.longest_cpu_s = 0.0

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
            await self._keep_collecting()
        finally:
            gc.callbacks.remove(self._timed)
            gc.set_threshold(*before)
            gc.unfreeze()

    async def _keep_collecting(self) -> None:
        least_s, pause_s = ROUND_S
        older_s = trio.current_time() + OLDER_EVERY_S
        while True:
            await trio.sleep(pause_s)
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
            gc.freeze()  # moves lists, at no cost worth timing
            self._spent_ns[2] = 0
        seconds = (time.perf_counter_ns() - self._started) / 1e9
        self.collections[generation] += 1
        self.seconds[generation] += seconds
        self.longest_s = max(self.longest_s, seconds)
