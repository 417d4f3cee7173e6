"""Histograms of a log, decoded and summed, whatever their layouts.

A decoded histogram is a :class:`Part`: its layout and the buckets that are filled. Decoding is the
hdrhistogram package's; sums are not, as the package adds empty buckets too, and only of one layout.
"""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Final, NamedTuple

import numpy as np
from hdrh.codec import decode
from hdrh.histogram import HdrHistogram

from marketfeed.latency.histogram import PERCENTILES, Values, filled, rank

HEADER_BYTES: Final = 40  # of the payload: cookie, length, offset, digits, lowest, highest, ratio
MOST_KNOWN: Final = 8  # headers that are remembered: a log has one, and a foreign one may have any number
_OUTER: Final = struct.Struct(">II")  # cookie and length of what is compressed
_COMPRESSED: Final = 0x1C849314


class Layout(NamedTuple):
    """How a histogram's buckets are laid out; only histograms of one layout can be added bucket by bucket."""

    unit_bits: int
    half_bits: int
    digits: int

    def lowest(self, buckets: Values) -> Values:
        """Return the lowest value of each bucket."""
        doubling = np.maximum((buckets >> self.half_bits) - 1, 0)
        lowest: Values = (buckets - (doubling << self.half_bits)) << (doubling + self.unit_bits)
        return lowest

    def highest(self, buckets: Values) -> Values:
        """Return the highest value of each bucket."""
        return self.lowest(buckets + 1) - 1

    def bucket(self, values: Values) -> Values:
        """Return the bucket of each value."""
        top = values >> self.unit_bits
        # The exponent of a float is its highest bit; both sides stay below 2**53.
        doubling = np.maximum(np.frexp(np.maximum(top, 1))[1] - 1 - self.half_bits, 0)
        buckets: Values = (doubling << self.half_bits) + (top >> doubling)
        return buckets


class Part(NamedTuple):
    """What one histogram holds, or several of one layout."""

    layout: Layout
    buckets: Values  # (k,) those that are filled, in order
    counts: Values  # (k,)

    def statistics(self, percentiles: tuple[float, ...] = PERCENTILES) -> list[int]:
        """Return count, min, each of ``percentiles``, max; of buckets the bounds that HdrHistogram shows."""
        if not len(self.buckets):
            return [0] * (len(percentiles) + 3)
        cumulative = self.counts.cumsum()
        shown = self.layout.highest(self.buckets[[*rank(cumulative, percentiles), -1]]).tolist()
        return [int(cumulative[-1]), int(self.layout.lowest(self.buckets[:1])[0]), *shown]


class Merged:
    """The sum of many intervals' histograms, as counts by bucket. All values in ns."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.counts: Values = np.zeros(0, np.int64)

    def add(self, layout: Layout, buckets: Values, counts: Values) -> None:
        """Add ``counts`` of ``buckets``, both of shape ``(k,)``; of two layouts the coarser one stays."""
        if layout != self.layout:
            if (layout.digits, -layout.unit_bits) < (self.layout.digits, -self.layout.unit_bits):
                held = filled(self.counts)
                old, kept = self.layout, self.counts[held]
                self.layout, self.counts = layout, np.zeros(0, np.int64)
                if len(held):
                    self.add(layout, layout.bucket(old.lowest(held)), kept)
            else:
                buckets = self.layout.bucket(layout.lowest(buckets))
        if len(buckets) and int(buckets.max()) >= len(self.counts):
            grown = np.zeros(int(buckets.max()) + 1, np.int64)
            grown[: len(self.counts)] = self.counts
            self.counts = grown
        np.add.at(self.counts, buckets, counts)

    @property
    def total(self) -> int:
        """Return how many values there are."""
        return int(self.counts.sum())

    def statistics(self, percentiles: tuple[float, ...] = PERCENTILES) -> list[int]:
        """Return count, min, each of ``percentiles``, max; of buckets the bounds that HdrHistogram shows."""
        held = filled(self.counts)
        return Part(self.layout, held, self.counts[held]).statistics(percentiles)

    def curve(self) -> tuple[Values, Values]:
        """Return the highest value of each bucket that is filled, and how many values lie at or below it."""
        held = filled(self.counts)
        return self.layout.highest(held), self.counts[held].cumsum()


class Decoder:
    """Decodes histograms by the package; one with the header of one before in about half the time.

    For each histogram the package makes an object, with room for all counts there may be. What a
    log holds has the same header nearly always: then its decoder fills the same room again.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Layout, Values]] = {}  # by header: the layout, and room, all zeros

    def __call__(self, encoded: str) -> Part:
        """Return what the histogram holds; raises what the package raises."""
        raw = base64.b64decode(encoded)
        if len(raw) < _OUTER.size or _OUTER.unpack_from(raw) != (_COMPRESSED, len(raw) - _OUTER.size):
            return _part(HdrHistogram.decode(encoded))
        payload = zlib.decompress(raw[_OUTER.size :])
        header = payload[:4] + payload[8:HEADER_BYTES]  # all but the payload's length
        if (known := self._known.get(header)) is not None:
            return _decoded_into(*known, payload)
        hdr = HdrHistogram.decode(encoded)
        part = _part(hdr)
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[header] = part.layout, np.zeros(hdr.counts_len, np.int64)
        return part


def _part(hdr: HdrHistogram) -> Part:
    counts = np.ctypeslib.as_array(hdr.counts).view(np.int64)
    buckets = filled(counts)
    layout = Layout(hdr.unit_magnitude, hdr.sub_bucket_half_count_magnitude, hdr.significant_figures)
    return Part(layout, buckets, counts[buckets])


def _decoded_into(layout: Layout, room: Values, payload: bytes) -> Part:
    try:
        found = decode(payload, HEADER_BYTES, room.ctypes.data, len(room), room.itemsize)
        # Upwards from 0, as the package shows no lowest one where there is nothing.
        buckets = filled(room[: found["max_nonzero_index"] + 1])
        counts = room[buckets]
        room[buckets] = 0
    except BaseException:
        room[:] = 0
        raise
    return Part(layout, buckets, counts)
