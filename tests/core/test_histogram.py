"""Recording of arrays has the same result as the package's record_value."""

import gc
import weakref

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.histogram import (
    BUCKETS,
    DIGITS,
    HIGHEST_NS,
    LOWEST_NS,
    PERCENTILES,
    Histogram,
    bucket_of,
    highest_of,
    lowest_of,
)

# Uniform over orders of magnitude, and the bounds of buckets and powers of two.
edges = st.integers(0, 35).flatmap(lambda bits: st.integers(max((1 << bits) - 600, 0), (1 << bits) + 600))
inside = st.one_of(st.integers(0, HIGHEST_NS), edges, st.integers(0, 4096)).filter(lambda v: v <= HIGHEST_NS)
weighted = st.lists(st.tuples(inside, st.integers(1, 100_000)), min_size=1, max_size=200)


def arrays(pairs):
    values, times = zip(*pairs, strict=True)
    return np.array(values, np.int64), np.array(times, np.int64)


def assert_same(ours: Histogram, theirs: HdrHistogram) -> None:
    assert ours.hdr.counts_len == theirs.counts_len
    assert np.array_equal(ours.counts, np.ctypeslib.as_array(theirs.counts))
    assert ours.hdr.total_count == theirs.total_count
    assert ours.hdr.get_min_value() == theirs.get_min_value()
    assert ours.hdr.get_max_value() == theirs.get_max_value()
    assert (ours.hdr.min_value, ours.hdr.max_value) == (theirs.min_value, theirs.max_value)


@given(weighted)
def test_recording_an_array_equals_record_value_with_count_in_every_bucket(pairs):
    ours, theirs = Histogram(), HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    ours.record(*arrays(pairs))
    for value, times in pairs:
        assert theirs.record_value(value, times)
    assert_same(ours, theirs)


@given(weighted)
def test_recording_one_value_equals_record_value(pairs):
    ours, theirs = Histogram(), HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    for value, times in pairs:
        ours.record_one(value, times)
        assert theirs.record_value(value, times)
    assert_same(ours, theirs)


@given(weighted, st.lists(st.floats(0.001, 100), min_size=1, max_size=20))
def test_every_percentile_is_the_package_s(pairs, more):
    ours, theirs = Histogram(), HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    ours.record(*arrays(pairs))
    for value, times in pairs:
        theirs.record_value(value, times)
    wanted = (*PERCENTILES, 100.0, *more)
    expected = theirs.get_percentile_to_value_dict(list(wanted))
    assert ours.percentiles(wanted) == [expected[p] for p in wanted]


@given(st.lists(inside, min_size=1, max_size=50), st.integers(1, 1000))
def test_one_number_of_times_for_all_is_the_same_as_an_array_of_it(values, times):
    one, many = Histogram(), Histogram()
    one.record(np.array(values, np.int64), times)
    many.record(np.array(values, np.int64), np.full(len(values), times, np.int64))
    assert_same(one, many.hdr)


@given(weighted, weighted)
def test_merged_histograms_equal_one_that_took_everything(first, second):
    a, b, both = Histogram(), Histogram(), Histogram()
    a.record(*arrays(first))
    b.record(*arrays(second))
    both.record(*arrays(first + second))
    a.add(b)
    assert_same(a, both.hdr)


below = st.lists(st.tuples(st.integers(-(2**63), -1), st.integers(1, 9)), max_size=20)
above = st.lists(st.tuples(st.integers(HIGHEST_NS + 1, 2**63 - 1), st.integers(1, 9)), max_size=20)


@given(weighted, below, above)
def test_what_is_negative_or_beyond_the_range_moves_no_percentile_and_is_counted(good, negative, beyond):
    odd, clean, mirror = Histogram(), Histogram(), Histogram()
    odd.record(*arrays([*negative, *good, *beyond]))
    clean.record(*arrays(good))
    assert_same(odd, clean.hdr)
    assert odd.beyond == sum(times for _, times in beyond)
    if negative:
        mirror.record(*arrays([(-value, times) for value, times in negative if value > -(2**63)] or [(0, 0)]))
        assert odd.negative is not None
        assert odd.negative.total == mirror.total
        assert odd.negative.total + odd.negative.beyond == sum(times for _, times in negative)
    else:
        assert odd.negative is None


def test_buckets_tile_the_range():
    buckets = np.arange(BUCKETS - 1)
    assert np.array_equal(highest_of(buckets) + 1, lowest_of(buckets + 1))
    reachable = buckets[highest_of(buckets) <= HIGHEST_NS]
    assert np.array_equal(bucket_of(lowest_of(reachable)), reachable)
    assert np.array_equal(bucket_of(highest_of(reachable)), reachable)


def test_merging_another_precision_is_refused():
    with pytest.raises(ValueError, match="another precision"):
        Histogram().add_hdr(HdrHistogram(1, 1000, 2))


def test_an_empty_histogram_has_zeros_to_show():
    empty = Histogram()
    empty.record(np.empty(0, np.int64))
    assert (empty.total, empty.min_ns, empty.max_ns, empty.sum_ns()) == (0, 0, 0, 0.0)
    assert empty.percentiles() == [0, 0, 0, 0, 0]


def test_a_histogram_that_nobody_holds_is_gone_without_the_collector():
    histogram = Histogram()
    histogram.record(np.array([5000, 7000], np.int64))
    assert histogram.hdr.encode()
    gone = weakref.ref(histogram.hdr)
    gc.disable()
    try:
        del histogram
        assert gone() is None
    finally:
        gc.enable()
