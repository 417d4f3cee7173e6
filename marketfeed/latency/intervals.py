"""Intervals: one histogram with its tag and time. The content of a log line, and of workers' reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from marketfeed.core.histogram import Histogram

HOPS: Final = ("venue", "venue_negative", "ring", "wait", "late", "encode", "send", "total", "client")
MEANINGS: Final = {
    "venue": "From the venue's time of a tick to its receipt: two clocks, so it shows changes, not lengths.",
    "venue_negative": "How far the venue's time was ahead of the receipt: its clock runs before ours.",
    "ring": "From receipt until the tick is visible in the rings.",
    "wait": "From the rings to the flush of the tick; on interval tiers this delay is deliberate.",
    "late": "From a flush's time on the tier's grid to its actual start.",
    "encode": "From the start of a flush until its ticks are encoded into frames.",
    "send": "From the start of a flush until the kernel has accepted the frame.",
    "total": "From receipt until the kernel has accepted the frame: all latency that the engine adds.",
    "client": "From receipt until the tick arrived at the engine's own probe, through a socket.",
}
NEGATIVE: Final = "_negative"  # appended to a hop: its values below 0, by absolute value


class Tag(NamedTuple):
    """Hop, tier, worker and symbol of a histogram. An empty field does not apply, or is not known."""

    hop: str = ""
    tier: str = ""
    worker: str = ""
    symbol: str = ""

    def __str__(self) -> str:
        """Return the tag as it is written in a log line: without comma or space, the symbol last."""
        return ";".join(
            f"{field}={value}" for field, value in zip(self._fields, self, strict=True) if value != ""
        )

    @classmethod
    def parse(cls, text: str) -> Tag:
        """Parse a tag; the whole tag of another program becomes the hop."""
        rest, _, symbol = text.partition(";symbol=")  # a symbol may hold `;` and `=`
        fields = dict(part.split("=", 1) for part in rest.split(";") if "=" in part)
        if not fields.keys() <= {"hop", "tier", "worker"} or not fields:
            return cls(hop=text)
        return cls(fields.get("hop", ""), fields.get("tier", ""), fields.get("worker", ""), symbol)


class Interval(msgspec.Struct, frozen=True, array_like=True):
    """One histogram of one interval, encoded; times in ns since the Unix epoch."""

    tag: Tag
    start_ns: int
    end_ns: int
    max_ns: int
    count: int
    beyond: int  # values above the histogram's range, not in it
    encoded: bytes  # V2, compressed, base64

    @classmethod
    def of(cls, tag: Tag, histogram: Histogram, start_ns: int, end_ns: int) -> list[Interval]:
        """Return the intervals of ``histogram``: none if it is empty, two if it has negative values."""
        found = []
        if histogram.total or histogram.beyond:
            hdr = histogram.hdr
            found.append(
                cls(tag, start_ns, end_ns, hdr.max_value, hdr.total_count, histogram.beyond, hdr.encode())
            )
        if histogram.negative is not None:
            found += cls.of(tag._replace(hop=tag.hop + NEGATIVE), histogram.negative, start_ns, end_ns)
        return found
