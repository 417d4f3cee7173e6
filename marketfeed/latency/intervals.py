"""What a log line says: whose latencies, over which time, and the histogram. Also what workers send up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from marketfeed.latency.histogram import Histogram

HOPS: Final = ("venue", "venue_negative", "ring", "wait", "late", "encode", "send", "total", "client")
MEANINGS: Final = {
    "venue": "From the venue's time of a tick to its receipt: two clocks, so it shows changes, not lengths.",
    "venue_negative": "How far the venue's time was ahead of the receipt: its clock runs before ours.",
    "ring": "From receipt until the tick can be seen in the rings.",
    "wait": "From the rings to the flush that takes the tick; on interval tiers this is on purpose.",
    "late": "How long after its moment on the tier's grid a flush began.",
    "encode": "From the start of a flush until its ticks are encoded and handed out.",
    "send": "From the start of a flush until the kernel has taken the frame.",
    "total": "From receipt until the kernel has taken the frame: all that the engine adds.",
    "client": "From receipt until the tick arrived at the engine's own probe, through a socket.",
}
NEGATIVE: Final = "_negative"  # appended to a hop: its values below 0, by absolute value


class Tag(NamedTuple):
    """Whose latencies a histogram holds. An empty field: does not apply, or not known."""

    hop: str = ""
    tier: str = ""
    worker: str = ""
    symbol: str = ""

    def __str__(self) -> str:
        """Return the tag as a log line carries it: without comma or space, the symbol last."""
        return ";".join(
            f"{field}={value}" for field, value in zip(self._fields, self, strict=True) if value != ""
        )

    @classmethod
    def parse(cls, text: str) -> Tag:
        """Return the tag that ``text`` is; one of another program's becomes the hop."""
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
    beyond: int  # values above the histogram's range, counted apart
    encoded: bytes  # V2, compressed, base64

    @classmethod
    def of(cls, tag: Tag, histogram: Histogram, start_ns: int, end_ns: int) -> list[Interval]:
        """Return the intervals that ``histogram`` fills: none if it is empty, two if it has negatives."""
        found = []
        if histogram.total or histogram.beyond:
            hdr = histogram.hdr
            found.append(
                cls(tag, start_ns, end_ns, hdr.max_value, hdr.total_count, histogram.beyond, hdr.encode())
            )
        if histogram.negative is not None:
            found += cls.of(tag._replace(hop=tag.hop + NEGATIVE), histogram.negative, start_ns, end_ns)
        return found
