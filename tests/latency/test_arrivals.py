"""Figures of a probe: corrected like the package's, with interruptions counted once."""

import numpy as np
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.histogram import DIGITS, HIGHEST_NS, LOWEST_NS, Histogram
from marketfeed.latency.arrivals import Arrivals

MS = 1_000_000
T = 1_790_000_000_000_000_000


@given(st.integers(0, HIGHEST_NS), st.one_of(st.just(0), st.integers(100 * MS, 10_000 * MS)))
def test_correction_for_what_was_omitted_is_the_package_s(value_ns, interval_ns):
    ours, theirs = Histogram(), HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    ours.record_corrected(value_ns, interval_ns)
    theirs.record_corrected_value(value_ns, interval_ns)
    assert np.array_equal(ours.counts, np.ctypeslib.as_array(theirs.counts))
    assert ours.total == theirs.total_count


def test_a_late_tick_of_the_latest_stands_for_those_that_it_kept_from_being_seen():
    arrivals, histogram = Arrivals(100 * MS, 1000 * MS), Histogram()
    arrivals.take(T, T + 450 * MS, histogram)
    assert (arrivals.ticks, histogram.total) == (1, 5)
    assert histogram.max_ns == 450 * MS


def test_a_tick_of_every_stands_for_itself():
    arrivals, histogram = Arrivals(0, 1000 * MS), Histogram()
    arrivals.take(T, T + 450 * MS, histogram)
    assert (histogram.total, arrivals.interruptions) == (1, 0)


def test_ticks_that_waited_together_are_one_interruption_of_its_length():
    arrivals, histogram = Arrivals(0, 1000 * MS), Histogram()
    for since_ms in (0, 100, 1200, 2900):
        arrivals.take(T + since_ms * MS, T + 3000 * MS, histogram)
    assert (arrivals.interruptions, arrivals.interrupted_ns) == (1, 3000 * MS)
    arrivals.take(T + 9000 * MS, T + 10_500 * MS, histogram)
    assert (arrivals.interruptions, arrivals.interrupted_ns) == (2, 4500 * MS)


def test_a_clock_that_was_set_back_moves_no_percentile():
    arrivals, histogram = Arrivals(100 * MS, 1000 * MS), Histogram()
    arrivals.take(T, T - 5000 * MS, histogram)
    assert (histogram.total, arrivals.interruptions) == (0, 0)
    assert histogram.negative is not None
