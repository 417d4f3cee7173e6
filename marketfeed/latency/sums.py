"""Sums of histograms with any layouts.

A decoded histogram is a :class:`Part`: its layout and its filled buckets. Empty buckets are not stored: a
histogram of five digits has six million buckets, and a log may have a thousand tags.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from marketfeed.core.histogram import PERCENTILES, Values, rank

SETTLE_ENTRIES: Final = 1 << 14  # buckets of added histograms to hold before they are summed
MAX_SPAN: Final = 1 << 18  # buckets: up to here sums use a dense array, 2 MB
MAX_TOTAL: Final = 2**62  # values; beyond it sums would overflow
_MAX_NS: Final = 2.0**62


class BucketLayout(NamedTuple):
    """Layout of a histogram's buckets; histograms of the same layout can be added bucket by bucket."""

    unit_bits: int
    half_bits: int
    digits: int
    scale: float = 1.0  # ns of one unit of the histogram's values

    @property
    def unit_ns(self) -> float:
        """Return the width of the finest buckets, in ns."""
        return self.scale * 2.0**self.unit_bits

    def lowest(self, buckets: Values) -> Values:
        """Return the lowest value of each bucket, in ns."""
        return self._in_ns(self._lowest(buckets))

    def highest(self, buckets: Values) -> Values:
        """Return the highest value of each bucket, in ns."""
        return self._in_ns(self._lowest(buckets + 1) - 1)

    def _lowest(self, buckets: Values) -> Values:
        doubling = np.maximum((buckets >> self.half_bits) - 1, 0)
        lowest: Values = (buckets - (doubling << self.half_bits)) << (doubling + self.unit_bits)
        return lowest

    def _in_ns(self, values: Values) -> Values:
        if self.scale == 1.0:
            return values
        in_ns: Values = np.minimum(np.rint(values * self.scale), _MAX_NS).astype(np.int64)
        return in_ns

    def bucket(self, values_ns: Values) -> Values:
        """Return the bucket of each value."""
        values = values_ns
        if self.scale != 1.0:
            values = np.minimum(np.rint(values_ns / self.scale), _MAX_NS).astype(np.int64)
        top = values >> self.unit_bits
        # The exponent of the float is the position of the highest bit, or one more if rounded up to the
        # next power of two, which gives the same bucket.
        doubling = np.maximum(np.frexp(np.maximum(top, 1))[1] - 1 - self.half_bits, 0)
        buckets: Values = (doubling << self.half_bits) + (top >> doubling)
        return buckets


class Part(NamedTuple):
    """Filled buckets of one histogram, or of the sum of several with the same layout."""

    layout: BucketLayout
    buckets: Values  # (k,) filled buckets, in ascending order
    counts: Values  # (k,)

    def statistics(self, percentiles: tuple[float, ...] = PERCENTILES) -> list[int]:
        """Return count, min, each of ``percentiles``, max; as bounds of buckets, as HdrHistogram does."""
        if not len(self.buckets):
            return [0] * (len(percentiles) + 3)
        cumulative = self.counts.cumsum()
        shown = self.layout.highest(self.buckets[[*rank(cumulative, percentiles), -1]]).tolist()
        return [int(cumulative[-1]), int(self.layout.lowest(self.buckets[:1])[0]), *shown]


class Merged:
    """Sum of many histograms, as filled buckets. All values in ns."""

    def __init__(self, layout: BucketLayout) -> None:
        self.layout = layout
        self.total = 0  # values
        self.entries = 0  # buckets held, including those of parts not yet summed
        self._parts: list[tuple[Values, Values]] = []
        self._loose = True  # whether the parts have to be summed
        self._settle_at = SETTLE_ENTRIES

    def add(self, layout: BucketLayout, buckets: Values, counts: Values) -> None:
        """Add ``counts`` of ``buckets``, both of shape ``(k,)``; the sum has the coarser of the two layouts.

        Raises OverflowError, and adds nothing, if the sum would exceed MAX_TOTAL values.
        """
        added = int(counts.sum())
        if self.total + added > MAX_TOTAL:
            raise OverflowError(f"more than {MAX_TOTAL:,} values in all")
        self.total += added
        if layout != self.layout:
            if (layout.digits, -layout.unit_ns) < (self.layout.digits, -self.layout.unit_ns):
                old, kept = self.layout, self.part()
                self.layout = layout
                self._parts = [(layout.bucket(old.lowest(kept.buckets)), kept.counts)]
            else:
                buckets = self.layout.bucket(layout.lowest(buckets))
            self._loose = True
        else:
            self._loose = bool(self._parts)
        self._parts.append((buckets, counts))
        self.entries += len(buckets)
        if self.entries > self._settle_at:
            self.part()
            self._settle_at = max(SETTLE_ENTRIES, 2 * self.entries)

    def part(self) -> Part:
        """Return the sum."""
        if self._loose:
            nothing = np.empty(0, np.int64)
            buckets = np.concatenate([nothing, *(buckets for buckets, _ in self._parts)])
            counts = np.concatenate([nothing, *(counts for _, counts in self._parts)])
            self._parts = [_summed(buckets, counts)]
            self._loose = False
        self.entries = len(self._parts[0][0])
        return Part(self.layout, *self._parts[0])

    def statistics(self, percentiles: tuple[float, ...] = PERCENTILES) -> list[int]:
        """Return count, min, each of ``percentiles``, max; as bounds of buckets, as HdrHistogram does."""
        return self.part().statistics(percentiles)

    def curve(self) -> tuple[Values, Values]:
        """Return the highest value of each filled bucket, and the number of values at or below it."""
        _, buckets, counts = self.part()
        return self.layout.highest(buckets), counts.cumsum()


def _summed(buckets: Values, counts: Values) -> tuple[Values, Values]:
    """Return the distinct buckets in ascending order, with the sums of their counts."""
    if not len(buckets):
        return buckets, counts
    least = int(buckets.min())
    span = int(buckets.max()) - least + 1
    if span <= MAX_SPAN:
        room = np.zeros(span, np.int64)
        np.add.at(room, buckets - least, counts)
        held = np.flatnonzero(room)
        return held + least, room[held]
    found, where = np.unique(buckets, return_inverse=True)
    sums = np.zeros(len(found), np.int64)
    np.add.at(sums, where, counts)
    return found, sums
