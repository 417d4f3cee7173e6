"""Interval reports of a process: every value is reported once, even if a report is interrupted."""

from itertools import pairwise

import numpy as np
import pytest
import trio

from marketfeed.core.histogram import Histogram
from marketfeed.core.stamps import STAMPS_BYTES, Stamps
from marketfeed.latency.aggregator import tell_intervals
from marketfeed.latency.intervals import Interval
from marketfeed.latency.recorder import LatencyRecorder


@pytest.mark.parametrize("cut_s", [0.0, 0.4, 0.9, 1.3, 1.6, 2.0, 2.4, 3.3])
async def test_what_was_measured_is_told_once_wherever_the_telling_ends(autojump_clock, monkeypatch, cut_s):
    monkeypatch.setattr("marketfeed.latency.aggregator.ROTATE_SHARE", 0.9)
    stamps = Stamps(np.zeros(STAMPS_BYTES, np.uint8), np.zeros(1, np.uint64))
    recorder = LatencyRecorder(stamps, 8, 0)
    tier = recorder.tier("vip")
    told, measured = list[Interval](), 0

    async def measure():
        nonlocal measured
        while True:
            for histogram in tier.hops.values():
                histogram.record_one(5000, 1)
            measured += 1
            await trio.sleep(0.05)

    with trio.move_on_after(cut_s):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(measure)
            nursery.start_soon(
                tell_intervals, recorder, 1.0, lambda: (list[str](), np.zeros(0, np.int64)), told.extend
            )
    counts = dict.fromkeys(tier.hops, 0)
    for interval in told:
        histogram = Histogram()
        histogram.add_encoded(interval.encoded)
        counts[interval.tag.hop] += histogram.total
    assert set(counts.values()) == {measured}
    for hop in tier.hops:
        mine = [interval for interval in told if interval.tag.hop == hop]
        assert all(a.end_ns <= b.start_ns for a, b in pairwise(mine))
