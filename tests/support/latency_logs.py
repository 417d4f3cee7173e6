"""Latency logs for tests of their readers."""

import numpy as np

from marketfeed.core.histogram import Histogram
from marketfeed.latency.intervals import Interval, Tag
from marketfeed.latency.log import IntervalLog

S = 1_000_000_000
START_S = 1_790_000_000
TOTAL = Tag("total", "vip", "0")


def interval(values_ns, tag=TOTAL, number=0):
    """Return the 10 s interval ``number`` with these values."""
    histogram = Histogram()
    histogram.record(np.array(values_ns, np.int64))
    start_ns = (START_S + 10 * number) * S
    return Interval.of(tag, histogram, start_ns, start_ns + 10 * S)


def write(path, *intervals):
    log = IntervalLog(path, 1 << 30, 3)
    for one in intervals:
        assert log.write(one, one[0].start_ns)
    log.close()
    return path


def run(path, median_ns, number=20, tag=TOTAL, seed=0, drift=0.0):
    """Write a log of ``number`` intervals around ``median_ns`` with 500 values each."""
    rng = np.random.default_rng(seed)
    return write(
        path,
        *(
            interval(rng.lognormal(np.log(median_ns * (1 + drift * i)), 0.3, 500).astype(np.int64), tag, i)
            for i in range(number)
        ),
    )
