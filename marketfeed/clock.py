"""The event loop's clock in nanoseconds: monotonic, from an arbitrary start; virtual under MockClock.

And turns: how long a task may work before others run.
"""

from __future__ import annotations

import time
from typing import Final

import trio

from marketfeed.core.units import MS, S

TURN_NS: Final = MS


def now_ns() -> int:
    """Return the current time of the event loop."""
    return round(trio.current_time() * S)


class Turn:
    """The time that a task takes for itself. Once it is over, let others run, and begin another.

    A pass of the event loop may take 10 ms in a busy engine. A checkpoint after each small piece of work
    would make it hundreds of times as slow, and one after many pieces could come too late: so time counts.
    Real time, also under MockClock, under which work takes none.
    """

    def __init__(self) -> None:
        self._ends_ns = time.perf_counter_ns() + TURN_NS

    def is_over(self) -> bool:
        """Return whether TURN_NS have passed since the construction."""
        return time.perf_counter_ns() >= self._ends_ns
