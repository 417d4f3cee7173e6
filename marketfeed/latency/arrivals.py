"""Latencies and interruptions of the ticks that a probe receives.

**Coordinated omission.** On a tier that sends the latest of each symbol, a
delay of ten intervals shows up as one late tick. A client that reads the price
once per interval would have seen it ten, nine, eight … intervals old. So a
value above the interval is recorded together with those that it kept from
being measured. On a tier that sends every tick, each tick is measured, and no
values are added. Source: Gil Tene's HdrHistogram, ``recordCorrectedValue``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from marketfeed.core.histogram import Histogram


class Arrivals:
    """Ticks of one tier as they arrive at one probe.

    ``interval_ns`` is that of the tier if it sends the latest only, else 0. A
    tick with a latency above ``interval_ns + limit_ns`` is an interruption.
    """

    def __init__(self, interval_ns: int, limit_ns: int) -> None:
        self._interval_ns = interval_ns
        self._limit_ns = limit_ns
        self.ticks = 0
        self.interruptions = 0
        self.interrupted_ns = 0
        self._interrupted_until_ns = 0

    def take(self, received_ns: int, arrived_ns: int, histogram: Histogram) -> None:
        """Record a tick's latency in ``histogram``, from the engine's receipt to its arrival at the probe."""
        self.ticks += 1
        late_ns = arrived_ns - received_ns
        histogram.record_corrected(late_ns, self._interval_ns)
        if late_ns > self._interval_ns + self._limit_ns:
            since_ns = max(received_ns, self._interrupted_until_ns)
            if received_ns > self._interrupted_until_ns:
                self.interruptions += 1  # otherwise it continues the previous one
            self.interrupted_ns += max(arrived_ns - since_ns, 0)
            self._interrupted_until_ns = max(arrived_ns, self._interrupted_until_ns)
