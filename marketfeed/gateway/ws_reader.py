"""Reading of a WebSocket: messages out of the outbox's bytes, pings answered, ends told.

    socket ──► outbox ──► FrameScanner: bounds ──► wsproto: frames ──► one message at a time

wsproto does no I/O, so a session reads in its own task. Between messages, whose ends the scanner knows, it
keeps no parser: all sessions use those of one pool, which saves 1.7 kB per quiet session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage

from marketfeed.errors import CLOSE_TEXT, CloseCode
from marketfeed.fanout.ws_frames import CLOSE, MASKED, MAX_SHORT, TEXT, frame, payload_span, unmasked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from marketfeed.gateway.outbox import Outbox
    from marketfeed.gateway.scan import FrameScanner

READ_BYTES: Final = 4096
MAX_SPARE: Final = 64
SHORT_START: Final = 6  # of the payload of a masked frame whose length is in the second byte


class WebSocketClosedError(Exception):
    """The client has closed the WebSocket, or broke the protocol.

    ``code`` is why. ``farewell`` is the close frame to send, empty if the connection is lost.
    """

    def __init__(self, code: CloseCode, farewell: bytes = b"") -> None:
        super().__init__(CLOSE_TEXT[code])
        self.code = code
        self.farewell = farewell


class Parsers:
    """Parsers that are between messages, for any session.

    wsproto's parser is part of a reference cycle, so each that is dropped waits for the garbage collector.
    """

    def __init__(self) -> None:
        self._spare: list[Connection] = []

    def take(self) -> Connection:
        """Return a parser."""
        return self._spare.pop() if self._spare else Connection(ConnectionType.SERVER)

    def give(self, parser: Connection) -> None:
        """Take back a parser all of whose messages are complete."""
        if len(self._spare) < MAX_SPARE:
            self._spare.append(parser)


class WebSocketReader:
    """Reads the messages of one client; ``max_bytes`` bounds each."""

    __slots__ = ("_connection", "_events", "_max_bytes", "_outbox", "_parsers", "_parts", "_scanner", "_size")

    def __init__(self, outbox: Outbox, scanner: FrameScanner, parsers: Parsers, max_bytes: int) -> None:
        self._outbox, self._scanner, self._parsers, self._max_bytes = outbox, scanner, parsers, max_bytes
        self._connection: Connection | None = None
        self._events: Iterator[Event] | None = None
        self._parts: list[str | bytes] = []
        self._size = 0

    @property
    def closed(self) -> bool:
        """Return whether the client has sent a close frame."""
        return self._scanner.closed

    @property
    def parsing(self) -> bool:
        """Return whether the reader holds a parser: a message has begun, or follows."""
        return self._connection is not None

    async def message(self) -> str | bytes:
        """Return the next message. Raises WebSocketClosedError, and the errors of the outbox.

        Always a checkpoint, for clients that send many messages at once.
        """
        if self._events is not None:
            await trio.lowlevel.checkpoint()
        while True:
            if self._events is None:
                data = await self._outbox.receive_some(READ_BYTES)
                if not data:
                    raise WebSocketClosedError(CloseCode.ABNORMAL)
                if self._connection is None:
                    text = whole_text(data, self._max_bytes)
                    if text is not None:
                        return text
                    self._connection = self._parsers.take()
                self._connection.receive_data(data)
                self._events = self._connection.events()
            for event in self._events:
                message = await self._take(event)
                if message is not None:
                    return message
            self._events = None
            if self._scanner.between and self._connection is not None:
                self._parsers.give(self._connection)
                self._connection = None

    async def _take(self, event: Event) -> str | bytes | None:
        """Return the message that ``event`` completes, if it does."""
        match event:
            case TextMessage() | BytesMessage():
                return self._part(event)
            case Ping():
                assert self._connection is not None
                # Waits while the client does not read, so that pings cannot pile up their answers.
                await self._outbox.send_all(self._connection.send(event.response()))
            case CloseConnection():
                raise self._end(event)
        return None

    def _part(self, event: TextMessage | BytesMessage) -> str | bytes | None:
        data = event.data if isinstance(event.data, str) else bytes(event.data)
        self._size += len(data) if isinstance(data, bytes) or data.isascii() else len(data.encode())
        if self._size > self._max_bytes:
            raise WebSocketClosedError(CloseCode.TOO_BIG, close_frame(CloseCode.TOO_BIG))
        if not event.message_finished:
            self._parts.append(data)
            return None
        if self._parts:
            self._parts.append(data)
            data = type(data)().join(self._parts)  # type: ignore[arg-type]  # all are str, or all bytes
            self._parts = []
        self._size = 0
        return data

    def _end(self, event: CloseConnection) -> WebSocketClosedError:
        connection = self._connection
        assert connection is not None
        if connection.state is not ConnectionState.REMOTE_CLOSING:  # wsproto reports a breach as a close
            code = CloseCode(event.code)
            return WebSocketClosedError(code, close_frame(code))
        # Whatever its code: those of the engine count what the engine did.
        return WebSocketClosedError(CloseCode.NORMAL, connection.send(event.response()))


def whole_text(data: bytes, max_bytes: int) -> str | None:
    """Return the message if ``data`` is one text frame that wsproto would accept; else None.

    That is what most requests are, and takes a fifth of the time of wsproto.
    """
    span = payload_span(data)
    if data[0] != TEXT or span is None or not data[1] & MASKED:
        return None
    start, length = span
    if start + length != len(data) or length > max_bytes or (length <= MAX_SHORT) != (start == SHORT_START):
        return None
    padded = length + -length % 4
    try:
        return unmasked(data + bytes(padded - length), start, padded)[:length].decode()
    except UnicodeDecodeError:
        return None


def close_frame(code: CloseCode) -> bytes:
    """Return the close frame with ``code`` and its text."""
    return frame(CLOSE, code.to_bytes(2, "big") + CLOSE_TEXT[code].encode())
