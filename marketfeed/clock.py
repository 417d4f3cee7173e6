"""The event loop's clock in nanoseconds: monotonic, from an arbitrary start; virtual under MockClock."""

from __future__ import annotations

import trio

from marketfeed.core.units import S


def now_ns() -> int:
    """Return the current time of the event loop."""
    return round(trio.current_time() * S)
