"""What a probe makes of the ticks it gets: latencies, corrected for what it could not see, and interruptions.

**Coordinated omission.** On a tier that sends the latest of each symbol, a
delay of ten intervals shows up as one late tick, where ten subscribers'
looks at the price would have found it ten, nine, eight … intervals old. So a
value above the interval is recorded together with those that it kept from
being measured. On a tier that sends every tick each of them is measured
itself, and nothing is added. Source: Gil Tene's HdrHistogram, ``recordCorrectedValue``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from marketfeed.latency.histogram import Histogram


class Arrivals:
    """Ticks of one tier as they arrive at one probe.

    ``interval_ns`` is the tier's, where it sends the latest only, else 0; an
    interruption is a tick that came later than ``limit_ns`` beyond it.
    """

    def __init__(self, interval_ns: int, limit_ns: int) -> None:
        self._interval_ns = interval_ns
        self._limit_ns = limit_ns
        self.ticks = 0
        self.interruptions = 0
        self.interrupted_ns = 0
        self._interrupted_until_ns = 0

    def take(self, received_ns: int, arrived_ns: int, histogram: Histogram) -> None:
        """Record in ``histogram`` a tick: when the engine had it, and when the probe."""
        self.ticks += 1
        late_ns = arrived_ns - received_ns
        histogram.record_corrected(late_ns, self._interval_ns)
        if late_ns > self._interval_ns + self._limit_ns:
            since_ns = max(received_ns, self._interrupted_until_ns)
            if received_ns > self._interrupted_until_ns:
                self.interruptions += 1  # else a part of the one before
            self.interrupted_ns += max(arrived_ns - since_ns, 0)
            self._interrupted_until_ns = max(arrived_ns, self._interrupted_until_ns)
