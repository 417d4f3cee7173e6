"""HDR histograms that record whole arrays.

Histogram, layout and encoding are those of the hdrhistogram package. Its
``record_value`` costs 0.9 µs; here numpy converts a batch of values to bucket
numbers and adds them to the histogram's own counts: 15 ns per value in batches
of 1,024 (perf/record.py).

Bucket numbers are computed without a logarithm. Up to 2^19 ns buckets have an
equal width of 2^9 ns. Beyond it each doubling has 1,024 buckets, like a
float64: its exponent and the first 10 bits of its mantissa, read as one
integer, rise by one from bucket to bucket.
"""

from __future__ import annotations

import weakref
from typing import Any, Final

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

Values = NDArray[np.int64]

LOWEST_NS: Final = 1_000
HIGHEST_NS: Final = 60_000_000_000
DIGITS: Final = 3
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9, 99.99)

_UNIT_BITS: Final = 9  # buckets of 512 ns: the power of two below LOWEST_NS
_HALF_BITS: Final = 10  # 1,024 buckets per doubling: 3 digits
_HALF: Final = 1 << _HALF_BITS
_MANTISSA_BITS: Final = 52
_SHIFT: Final = _MANTISSA_BITS - _HALF_BITS
_BIAS: Final = (1023 + _UNIT_BITS + _HALF_BITS - 1) << _HALF_BITS
BUCKETS: Final = int(HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS).counts_len)


def bucket_of(values_ns: Values) -> Values:
    """Return the bucket of each value, shape ``(k,)``; values are 0 to ``HIGHEST_NS``."""
    buckets: Values = values_ns.astype(np.float64).view(np.int64)
    buckets >>= _SHIFT
    buckets -= _BIAS
    even = values_ns >> _UNIT_BITS
    np.minimum(even, _HALF - 1, out=even)
    np.maximum(buckets, even, out=buckets)
    return buckets


def lowest_of(buckets: Values) -> Values:
    """Return the lowest value of each bucket, in ns."""
    doubling = np.maximum((buckets >> _HALF_BITS) - 1, 0)
    lowest: Values = (buckets - (doubling << _HALF_BITS)) << (doubling + _UNIT_BITS)
    return lowest


def highest_of(buckets: Values) -> Values:
    """Return the highest value of each bucket, in ns."""
    return lowest_of(buckets + 1) - 1


def filled(counts: Values) -> NDArray[np.intp]:
    """Return the buckets whose count is not 0."""
    # Compare first: numpy searches booleans ten times as fast as integers.
    return np.flatnonzero(counts != 0)


class Histogram:
    """Histogram of latencies in nanoseconds; values out of range are counted separately.

    A value below 0 (two clocks, or a clock that was set) is recorded in
    ``negative`` by its absolute value. A value above ``HIGHEST_NS``
    increments ``beyond``. Neither affects percentiles.
    """

    __slots__ = ("_one_count", "beyond", "counts", "hdr", "negative")

    def __init__(self) -> None:
        self.hdr = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
        # The package's histogram and its encoder reference each other, and old objects are exempt from
        # garbage collection (server/gc_control.py): 220 kB per interval would never be freed.
        self.hdr.encoder.histogram = weakref.proxy(self.hdr)
        self.counts: Values = np.ctypeslib.as_array(self.hdr.counts).view(np.int64)
        self._one_count = self.counts.data
        self.negative: Histogram | None = None
        self.beyond = 0

    def record(self, values_ns: Values, times: Values | int = 1) -> None:
        """Record each of ``values_ns``, shape ``(k,)``, ``times`` times; ``times`` may be an array."""
        if not len(values_ns):
            return
        low, high = int(values_ns.min()), int(values_ns.max())
        if low < 0 or high > HIGHEST_NS:
            self._record_odd(values_ns, times)
            return
        np.add.at(self.counts, bucket_of(values_ns), times)
        hdr = self.hdr
        hdr.total_count += times * len(values_ns) if isinstance(times, int) else int(times.sum())
        hdr.min_value = min(hdr.min_value, low)
        hdr.max_value = max(hdr.max_value, high)

    def record_one(self, value_ns: int, times: int) -> None:
        """Record one value ``times`` times: as the package does, at half its cost."""
        if not 0 <= value_ns <= HIGHEST_NS:
            self._record_odd(np.array([value_ns], np.int64), times)
            return
        bits = value_ns.bit_length()
        if bits < _UNIT_BITS + _HALF_BITS + 1:
            bucket = value_ns >> _UNIT_BITS
        else:
            bucket = ((bits - _UNIT_BITS - _HALF_BITS - 1) << _HALF_BITS) + (value_ns >> (bits - 1 - _HALF_BITS))
        self._one_count[bucket] += times
        hdr = self.hdr
        hdr.total_count += times
        hdr.min_value = min(hdr.min_value, value_ns)
        hdr.max_value = max(hdr.max_value, value_ns)

    def record_corrected(self, value_ns: int, interval_ns: int) -> None:
        """Record a value, corrected for coordinated omission: also values every ``interval_ns`` below it.

        With an interval of 0, only the value is recorded.
        """
        if 0 < interval_ns < value_ns <= HIGHEST_NS:
            self.record(np.arange(value_ns, 0, -interval_ns, dtype=np.int64))
        else:
            self.record_one(value_ns, 1)

    @classmethod
    def of_counts(cls, counts: Values) -> Histogram:
        """Return a histogram with ``counts``, shape ``(BUCKETS,)``; its min and max are bounds of buckets."""
        made = cls()
        held = filled(counts)
        if len(held):
            made.counts[:] = counts
            hdr = made.hdr
            hdr.total_count = int(counts[held].sum())
            hdr.min_value, hdr.max_value = int(lowest_of(held[:1])[0]), int(highest_of(held[-1:])[0])
        return made

    def _record_odd(self, values_ns: Values, times: Values | int) -> None:
        weights = np.broadcast_to(np.asarray(times, np.int64), values_ns.shape)
        below, above = values_ns < 0, values_ns > HIGHEST_NS
        inside = ~(below | above)
        self.beyond += int(weights[above].sum())
        if below.any():
            if self.negative is None:
                self.negative = Histogram()
            # The lowest int64 has no absolute value, so it is replaced by the next one.
            self.negative.record(-np.maximum(values_ns[below], -np.iinfo(np.int64).max), weights[below])
        self.record(values_ns[inside], weights[inside])

    def add(self, other: Histogram) -> None:
        """Merge ``other`` into this histogram by adding its counts."""
        self.add_hdr(other.hdr)
        self.beyond += other.beyond
        if other.negative is not None:
            if self.negative is None:
                self.negative = Histogram()
            self.negative.add(other.negative)

    def add_encoded(self, text: bytes) -> None:
        """Add a histogram in the package's own encoding, V2, compressed and in base64."""
        other = HdrHistogram.decode(text)
        other.encoder.histogram = weakref.proxy(other)  # breaks the cycle, as in __init__
        self.add_hdr(other)

    def add_hdr(self, other: Any) -> None:
        """Merge a histogram of the package. Raises ValueError if its layout differs."""
        if other.counts_len != self.hdr.counts_len or other.unit_magnitude != self.hdr.unit_magnitude:
            raise ValueError("a histogram of another precision or range")
        if other.total_count:
            self.counts += np.ctypeslib.as_array(other.counts).view(np.int64)
            self.hdr.total_count += other.total_count
            self.hdr.min_value = min(self.hdr.min_value, other.min_value)
            self.hdr.max_value = max(self.hdr.max_value, other.max_value)

    @property
    def total(self) -> int:
        """Number of values."""
        return int(self.hdr.total_count)

    @property
    def min_ns(self) -> int:
        """The exact minimum; 0 if there are no values."""
        return int(self.hdr.min_value) if self.total else 0

    @property
    def max_ns(self) -> int:
        """The exact maximum; 0 if there are no values."""
        return int(self.hdr.max_value)

    def sum_ns(self) -> float:
        """Return the sum of the values, each approximated by the middle of its bucket."""
        held = filled(self.counts)
        return float(self.counts[held] @ ((lowest_of(held) + highest_of(held)) / 2)) if len(held) else 0.0

    def percentiles(self, percentiles: tuple[float, ...] = PERCENTILES) -> list[int]:
        """Return the value at each percentile, as the package defines it: the highest of its bucket."""
        held = filled(self.counts)
        if not len(held):
            return [0] * len(percentiles)
        return [int(v) for v in highest_of(held[rank(self.counts[held].cumsum(), percentiles)])]


def rank(cumulative: Values, percentiles: tuple[float, ...]) -> NDArray[np.intp]:
    """Return the index in ``cumulative``, the running sums of counts, at which each percentile is reached."""
    total = int(cumulative[-1])
    # The same operations in the same order as in the package: otherwise one count in a million differs.
    wanted = [max(int(min(p, 100.0) * total / 100 + 0.5), 1) for p in percentiles]
    return np.minimum(np.searchsorted(cumulative, wanted), len(cumulative) - 1)
