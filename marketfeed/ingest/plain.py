"""Validation of a few ticks one by one, for the pump.

Plain ticks, which are nearly all of them, need no change: they are marked with their feed. A batch with any
other tick goes through the pump's arrays, which mend it (tests/ingest/test_plain.py compares both).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from marketfeed.core.few import FEED_AT, FIELDS
from marketfeed.core.records import QUOTE, QUOTES, SIDES

if TYPE_CHECKING:
    from collections.abc import Iterable

# A feed's own time of receipt is accepted within these bounds around the engine's clock: backwards the
# range of the latency histograms, forwards the tolerance between two clock readings.
MAX_RECEIPT_AGE_NS: Final = 60 * 10**9
MAX_RECEIPT_AHEAD_NS: Final = 5 * 10**9
MAX_EVENT_NS: Final = (2**53 - 1) * 1000  # the year 2255: last microsecond that is exact in a double
_RECV_AT: Final = QUOTE.fields["ts_recv"][1]  # type: ignore[index]
_TIME: Final = struct.Struct("<q")
_INFINITE: Final = float("inf")


def mark_if_plain(few: Iterable[tuple[int, bytearray]], known: int, now_ns: int, feed: int) -> bool:
    """Set ``feed``, no flags and a missing time of receipt; return False if a tick needs another change.

    ``few`` are channel and record of each; ``known`` is the number of symbols.
    """
    oldest, newest = now_ns - MAX_RECEIPT_AGE_NS, now_ns + MAX_RECEIPT_AHEAD_NS
    for channel, record in few:
        fields = FIELDS[channel].unpack(record)
        if not fields[1]:
            _TIME.pack_into(record, _RECV_AT, now_ns)
        elif not oldest <= fields[1] <= newest:
            return False
        if not (
            fields[8] < known
            and 0 <= fields[0] <= MAX_EVENT_NS
            and (_plain_quote(fields) if channel == QUOTES else _plain_trade(fields))
        ):
            return False
        record[FEED_AT] = feed
        record[FEED_AT + 1] = 0
    return True


def _plain_quote(fields: tuple[Any, ...]) -> bool:
    """Return whether both sides are there and do not cross."""
    bid_px, ask_px, bid_sz, ask_sz = fields[3:7]
    return bool(bid_px < ask_px and 0 < bid_sz < _INFINITE and 0 < ask_sz < _INFINITE)


def _plain_trade(fields: tuple[Any, ...]) -> bool:
    """Return whether the trade has a size, a valid side and no conditions."""
    return 0 < fields[5] < _INFINITE and fields[6] in SIDES  # as the eight bytes of its details
