"""What one page costs Debian's Chromium: for benchmarks of the page.

with chromium() as browser:       tests.support.chromium
    meter = Meter(page)           long tasks, intervals between frames, shares of a core, memory
    meter.start(); …; meter.stop()
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Runs in the page before its own scripts.
PROBE: Final = """
window.probe = {long: [], frames: []};
new PerformanceObserver((list) => {
    for (const one of list.getEntries()) window.probe.long.push(one.duration);
}).observe({type: 'longtask', buffered: true});
(function frame(now) { window.probe.frames.push(now); requestAnimationFrame(frame); })(0);
"""
SHARES: Final = ("TaskDuration", "ScriptDuration", "LayoutDuration", "RecalcStyleDuration")


@dataclass(frozen=True, slots=True)
class Figures:
    """What a page cost in one measured period."""

    long_ms: list[float]  # tasks above 50 ms
    frames_s: float
    frame_ms: dict[str, float]  # p50, p99, max of the intervals between frames
    busy: dict[str, float]  # shares of a core, by SHARES
    heap_bytes: float


class Meter:
    """Measures one page. ``PROBE`` has to be its first script."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._devtools = page.context.new_cdp_session(page)
        self._devtools.send("Performance.enable")
        self._before: dict[str, float] = {}
        self._at_s = 0.0

    def _metrics(self) -> dict[str, float]:
        found: Any = self._devtools.send("Performance.getMetrics")
        return {one["name"]: one["value"] for one in found["metrics"]}

    def heap_bytes(self) -> float:
        """Return the memory of scripts after a collection: objects, and what array buffers hold."""
        self._devtools.send("HeapProfiler.collectGarbage")
        found: Any = self._devtools.send("Runtime.getHeapUsage")
        return float(found["usedSize"]) + float(found.get("backingStorageSize", 0))

    def start(self) -> None:
        """Begin a period."""
        self._page.evaluate("() => { window.probe.long = []; window.probe.frames = []; }")
        self._before, self._at_s = self._metrics(), time.monotonic()

    def stop(self) -> Figures:
        """End the period."""
        metrics, passed_s = self._metrics(), time.monotonic() - self._at_s
        probe: Any = self._page.evaluate("() => window.probe")
        times = probe["frames"]
        intervals = sorted(b - a for a, b in pairwise(times))
        at = {"p50": 0.5, "p99": 0.99, "max": 1.0}
        return Figures(
            long_ms=probe["long"],
            frames_s=len(intervals) / passed_s,
            frame_ms={name: intervals[int(share * (len(intervals) - 1))] for name, share in at.items()},
            busy={name: (metrics[name] - self._before[name]) / passed_s for name in SHARES},
            heap_bytes=self.heap_bytes(),
        )
