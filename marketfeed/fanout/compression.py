"""JSON whose frames are compressed, once for all members of a large group.

A frame for one session is never compressed: it would cost more than the bytes are worth. Sessions with and
without compression share the fragments of their lane, but not their groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketfeed.core.compressed import MAX_INFLATED_BYTES, compressed_frame
from marketfeed.fanout.wire import ENCODINGS, JSON, JsonEncoding
from marketfeed.fanout.ws_frames import BINARY, header, payload_span

if TYPE_CHECKING:
    from marketfeed.fanout.tiers import Tier
    from marketfeed.fanout.wire import Encoding

# From here on, in every recording of perf/compress.py, the factor by which bytes fall is at least three times
# the factor by which CPU time rises.
COMPRESS_BYTES: Final = 4096  # of a frame
COMPRESS_MEMBERS: Final = 64  # of its group


class CompressedEncoding(JsonEncoding):
    """JSON; the frames that a large group shares are compressed, into WebSocket binary messages."""

    packs = True

    def packed(self, frame: bytes, members: int, sent_ns: int) -> bytes:
        """Return the frame compressed; unchanged where that does not pay, or exceeds what clients accept."""
        start, length = payload_span(frame) or (0, 0)
        if members < COMPRESS_MEMBERS or not COMPRESS_BYTES <= length <= MAX_INFLATED_BYTES:
            return frame
        payload = compressed_frame(frame[start:], sent_ns)
        return header(BINARY, len(payload)) + payload if len(payload) < length else frame


COMPRESSED: Final = CompressedEncoding()


def encoding_after(before: Encoding, name: str | None, compress: bool | None, tier: Tier) -> Encoding:
    """Return the encoding of a session after a request for encoding ``name`` and ``compress`` on ``tier``.

    None keeps what it has ``before``, and compression only where there is some. Raises ValueError for an
    unknown name, and for compression where there is none.
    """
    name = name or before.name
    encoding = ENCODINGS.get(name)
    if encoding is None:
        raise ValueError(f"encoding: one of {', '.join(ENCODINGS)}, not {name[:40]!r}")
    if compress is False or (compress is None and not before.packs):
        return encoding
    if encoding is JSON and tier.interval_ns:
        return COMPRESSED
    if compress:
        why = (
            f"tier {tier.name} has no interval" if encoding is JSON else f"encoding {name} is not compressed"
        )
        raise ValueError(f"compress: needs encoding json and a tier with an interval; {why}")
    return encoding
