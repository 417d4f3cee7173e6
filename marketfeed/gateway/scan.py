"""Limits on the frames that a WebSocket client sends, checked before wsproto parses them.

wsproto accepts any number of empty fragments, and pings are answered; both cost the server more than the
client. Only frame headers are read, and pongs as long as the engine's pings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketfeed.fanout.ws_frames import MASKED, MAX_SHORT, PING_BYTES, PONG, payload_span, unmasked

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_FRAGMENTS: Final = 1000  # of one message
MAX_CONTROL_FRAMES: Final = 100  # in one second
_CLOSE: Final = 8  # opcode


class FramingAbuseError(Exception):
    """The client exceeded a limit of framing; its session is closed with 4503."""


class FrameScanner:
    """Incremental; the calls of :meth:`feed` may split the client's bytes anywhere."""

    __slots__ = ("_controls", "_fragments", "_head", "_second", "_skip", "closed")

    def __init__(self) -> None:
        self._head = b""
        self._skip = 0  # payload bytes of the current frame that have not arrived
        self._fragments = 0
        self._controls = 0
        self._second = 0
        self.closed = False  # the client has sent a close frame

    @property
    def between(self) -> bool:
        """Return whether the bytes so far end with a message, or before the first."""
        return not (self._head or self._skip or self._fragments)

    def feed(self, data: bytes, now_s: float, on_pong: Callable[[bytes], None] | None = None) -> bool:
        """Read the frame headers in ``data``; raises FramingAbuseError.

        ``on_pong`` is called with the payload of each pong of PING_BYTES bytes.

        Return whether ``data`` consists of complete pongs only: these show that the client is
        connected, but not that it is active.
        """
        pongs = not self._skip and not self._head and bool(data)
        if self._skip >= len(data):
            self._skip -= len(data)
            return False
        data = self._head + data[self._skip :]
        at = 0
        while (span := payload_span(data, at)) is not None:
            start, length = span
            pong = data[at] == PONG and MASKED <= data[at + 1] <= MASKED + MAX_SHORT
            answer = pong and length == PING_BYTES
            if answer and start + length > len(data):
                break  # the rest follows; until then the frame counts as an incomplete header
            self._count(data[at], now_s)
            if answer and on_pong is not None:
                on_pong(unmasked(data, start, length))
            pongs = pongs and pong
            at = start + length
        self._head, self._skip = data[at:], max(0, at - len(data))
        return pongs and at == len(data)

    def _count(self, first: int, now_s: float) -> None:
        if first & 8:
            self.closed = self.closed or first & 15 == _CLOSE
            if int(now_s) != self._second:
                self._second, self._controls = int(now_s), 0
            self._controls += 1
            if self._controls > MAX_CONTROL_FRAMES:
                raise FramingAbuseError(f"more than {MAX_CONTROL_FRAMES} control frames in a second")
        elif first & 128:
            self._fragments = 0
        else:
            self._fragments += 1
            if self._fragments > MAX_FRAGMENTS:
                raise FramingAbuseError(f"a message of more than {MAX_FRAGMENTS} fragments")
