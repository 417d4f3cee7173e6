"""Counts the frames that a WebSocket client sends, before anything is built from them.

trio-websocket takes endless empty fragments and answers endless pings; both
cost the server more than the client. This looks at frame headers only.
"""

from __future__ import annotations

from typing import Final

MAX_FRAGMENTS: Final = 1000  # of one message
MAX_CONTROL_FRAMES: Final = 100  # in one second
_CLOSE: Final = 8  # opcode
_PONG: Final = 0x8A  # FIN and the opcode, no reserved bits


class FramingAbuseError(Exception):
    """The client breaks a limit of framing; its session ends with 4503."""


class FrameScanner:
    """Incremental; :meth:`feed` takes the client's bytes in any pieces.

    Source of the format: RFC 6455, section 5.2; a client's frames are masked.
    """

    __slots__ = ("_controls", "_fragments", "_head", "_second", "_skip", "closed")

    def __init__(self) -> None:
        self._head = b""
        self._skip = 0  # bytes of payload still to come
        self._fragments = 0
        self._controls = 0
        self._second = 0
        self.closed = False  # the client has sent a close frame

    def feed(self, data: bytes, now_s: float) -> bool:
        """Look at the frame headers in ``data``; raises FramingAbuseError.

        Return whether ``data`` is whole pongs and nothing else, which say no
        more than that the client is there.
        """
        pongs = not self._skip and not self._head and bool(data)
        if self._skip >= len(data):
            self._skip -= len(data)
            return False
        data = self._head + data[self._skip :]
        at = 0
        while len(data) - at >= 2:
            length = data[at + 1] & 127
            size = 2 + (4 if data[at + 1] & 128 else 0) + (0 if length < 126 else 2 if length == 126 else 8)
            if len(data) - at < size:
                break
            if data[at] != _PONG or not 128 <= data[at + 1] < 254:  # masked, and short as a pong has to be
                pongs = False
            if length >= 126:
                length = int.from_bytes(data[at + 2 : at + (4 if length == 126 else 10)], "big")
            self._count(data[at], now_s)
            at += size + length
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
