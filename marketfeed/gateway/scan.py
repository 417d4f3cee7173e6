"""Limits on the frames that a WebSocket client sends, checked before trio-websocket parses them.

trio-websocket accepts any number of empty fragments and answers any number of pings; both cost
the server more than the client. Only frame headers are read.
"""

from __future__ import annotations

from typing import Final

from marketfeed.fanout.ws_frames import MASKED, MAX_SHORT, payload_span

MAX_FRAGMENTS: Final = 1000  # of one message
MAX_CONTROL_FRAMES: Final = 100  # in one second
_CLOSE: Final = 8  # opcode
_PONG: Final = 0x8A  # FIN and the opcode, no reserved bits


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

    def feed(self, data: bytes, now_s: float) -> bool:
        """Read the frame headers in ``data``; raises FramingAbuseError.

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
            if data[at] != _PONG or not MASKED <= data[at + 1] <= MASKED + MAX_SHORT:
                pongs = False
            self._count(data[at], now_s)
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
