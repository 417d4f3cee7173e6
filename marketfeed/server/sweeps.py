"""Sweeps: bring the meter of this process up to date, and report what users got."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from marketfeed.access.usage import DAY_S, Interval, Report, day_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.fanout.shard import Shard

SWEEP_S: Final = 20.0


class Sweeps:
    """Reports usage at intervals. An interval ends at midnight, so that each report is of one UTC day."""

    def __init__(
        self,
        shard: Shard,
        report: Callable[[Report], None],
        now_s: Callable[[], float],
    ) -> None:
        """``now_s`` is the Unix clock."""
        self._shard = shard
        self._report = report
        self._now_s = now_s
        self._began_s = now_s()

    async def run(self) -> None:
        """Sweep until cancelled; then report what is left."""
        meter = self._shard.meter
        try:
            while True:
                await trio.sleep(self._pause_s())
                await meter.sweep()
                self._tell()
        finally:
            meter.finish()
            self._tell()

    def _pause_s(self) -> float:
        now_s = self._now_s()
        midnight_s = (day_of(now_s) + 1) * DAY_S
        return max(min(SWEEP_S, midnight_s - now_s), 0.0)

    def _tell(self) -> None:
        now_s = self._now_s()
        interval = Interval(self._began_s, now_s)
        for report in self._shard.meter.take(interval):
            self._report(report)
        if day_of(now_s) != interval.day:
            self._shard.meter.new_day()
        self._began_s = now_s
