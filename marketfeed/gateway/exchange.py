"""HTTP/1.1 on one connection, over h11: reads heads and bodies, sends complete responses.

Sizes and durations that a peer controls are bounded here. Source: RFC 9112.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import h11
import trio

from marketfeed.gateway.quick_head import MAX_HEADERS, Head, quick_head

if TYPE_CHECKING:
    from marketfeed.gateway.unread import Unread

MAX_HEAD_BYTES: Final = 8192
LONG_LINE: Final = f"a request line of at most {MAX_HEAD_BYTES} bytes"
LONG_HEAD: Final = f"a head of at most {MAX_HEAD_BYTES} bytes"
READ_BYTES: Final = 8192
SEND_BYTES: Final = 65536  # of a response per send
PIPELINED_BYTES: Final = 65536  # buffered during a response; further bytes are discarded
FLOOD: Final = f"more than {PIPELINED_BYTES} bytes behind a request that had no answer yet"
DISCARD_BYTES: Final = 65536  # discarded before a pause,
DISCARD_READS: Final = 16  # or so many reads, as small TLS records are read by the kilobyte;
DISCARD_S: Final = 0.05  # the pause, so that a flood costs its sender more than this process
FRAMING_BYTES: Final = 16384  # of a chunked body: chunk sizes, line ends, trailers
EVENTS_PER_CHECKPOINT: Final = 16  # data events of a body between two checkpoints
IDLE_S: Final = 30.0  # for the next request on a kept-alive connection, for a body, for a response
LINGER_S: Final = 1.0  # for a refused peer to read its response before the connection is closed
LINGER_BYTES: Final = 1 << 20
_QUOTED: Final = re.compile(r"\bbytearray\(b?(.*?)\)", re.DOTALL)  # how h11 quotes received bytes
_TLS_RECORD: Final = b"\x16\x03"  # the first bytes of a TLS handshake

TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, section 5.6.2

Headers = tuple[tuple[str, str], ...]
CLOSE: Final[Headers] = (("Connection", "close"),)


class HttpError(Exception):
    """The peer violated HTTP or exceeded a limit; it gets this response, and the connection is closed."""

    def __init__(self, status: int, msg: str) -> None:
        super().__init__(msg)
        self.status = status


class HeadTimeoutError(Exception):
    """A request's head did not arrive in time."""


def body_bytes(request: h11.Request | Head) -> int | None:
    """Return the size of the body as announced in the head; None if it is chunked."""
    headers = dict(request.headers)
    return None if b"transfer-encoding" in headers else int(headers.get(b"content-length", 0))


class Exchange:
    """Requests and responses on one stream, one after the other."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, head_s: float, unread: Unread) -> None:
        """``head_s`` bounds the arrival of each request's head; that of the first counts from now."""
        self._stream = stream
        self._unread = unread
        self._head_s = head_s
        self._parser: h11.Connection | None = None  # once it is needed
        self._received = bytearray()  # of the current request, until its head is complete
        self._first = True
        self._cut = False  # some received bytes were discarded

    @property
    def _h11(self) -> h11.Connection:
        """Return the parser, which has parsed the first head, if :func:`quick_head` has."""
        if self._parser is None:
            self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
            if self._received:
                self._parser.receive_data(bytes(self._received))
                self._parser.next_event()
                self._parser.next_event()  # the end: there is no body
        return self._parser

    async def head(self) -> h11.Request | Head | None:
        """Return the next request's head; None at the end of the connection.

        Raises HeadTimeoutError, and HttpError for an invalid request.
        """
        first, self._first = self._first, False
        begun = bool(self._received)
        wait_s = self._head_s if first or begun else IDLE_S
        event: h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED] = h11.NEED_DATA
        with trio.CancelScope(deadline=trio.current_time() + wait_s) as waiting:
            if begun or not first:
                event = self._next()
            while event is h11.NEED_DATA:
                data = await self._receive()
                quick = quick_head(data) if first and not begun else None
                if quick is not None:
                    self._received += data
                    return quick
                if data and not begun and not first:  # the deadline of a head begins with its first byte
                    waiting.deadline = trio.current_time() + self._head_s
                begun = begun or bool(data)
                self._h11.receive_data(data)
                self._received += data
                event = self._next()
        if waiting.cancelled_caught:
            if begun or first:
                raise HeadTimeoutError
            return None
        if not isinstance(event, h11.Request):
            return None
        # h11 bounds incomplete heads only; a head that arrived complete in one read is bounded here.
        if len(self._received) - len(self._h11.trailing_data[0]) > MAX_HEAD_BYTES:
            line = self._received.find(b"\n")
            raise HttpError(414, LONG_LINE) if line >= MAX_HEAD_BYTES else HttpError(431, LONG_HEAD)
        names = [name for name, _ in event.headers]
        if len(names) > MAX_HEADERS:
            raise HttpError(431, f"more than {MAX_HEADERS} headers")
        if b"transfer-encoding" in names and b"content-length" in names:
            raise HttpError(400, "Transfer-Encoding and Content-Length together")
        return event

    @property
    def behind(self) -> bytes:
        """Return the bytes received after the request's head, as far as h11 has not parsed them."""
        return b"" if self._parser is None else bytes(self._parser.trailing_data[0])

    def no_body(self) -> None:
        """Parse the end of a request without a body."""
        if self._parser is not None:
            self._next()

    async def body(self, most: int) -> bytes:
        """Return the body of the request; raises HttpError for a body of more than ``most`` bytes.

        Small chunks are expensive to parse, so the bytes of chunk framing are bounded too, and other
        tasks run between chunks.
        """
        body = bytearray()
        wire, events = len(self.behind), 0
        with trio.move_on_after(IDLE_S) as waiting:
            while True:
                event = self._next()
                if isinstance(event, h11.Data):
                    body += event.data
                    if len(body) > most:
                        raise HttpError(413, f"a body of at most {most} bytes")
                    events += 1
                    if events % EVENTS_PER_CHECKPOINT == 0:
                        await trio.lowlevel.checkpoint()
                elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed) or event is h11.PAUSED:
                    break
                else:
                    if wire - len(self.behind) - len(body) > FRAMING_BYTES:
                        raise HttpError(
                            413, f"a body in chunks with at most {FRAMING_BYTES} bytes beside the data"
                        )
                    wire += await self._go_on()
        if waiting.cancelled_caught:
            raise HttpError(400, f"the body did not come within {IDLE_S:g} s")
        return bytes(body)

    async def _go_on(self) -> int:
        """Read more of a body; return how many bytes were read."""
        if self._h11.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            await self._stream.send_all(self._h11.send(go_on) or b"")
        data = await self._receive()
        self._h11.receive_data(data)
        return len(data)

    async def _receive(self) -> bytes:
        if self._cut:
            raise HttpError(400, FLOOD)
        return bytes(await self._stream.receive_some(READ_BYTES))

    def _next(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise self._error(error) from None

    def _error(self, error: h11.RemoteProtocolError) -> HttpError:
        received = self._received
        if received.startswith(_TLS_RECORD):
            return HttpError(400, "this port speaks plain HTTP, and got a TLS handshake")
        if error.error_status_hint == 431 and b"\n" not in received[:MAX_HEAD_BYTES]:
            return HttpError(414, LONG_LINE)
        if error.error_status_hint == 431:
            return HttpError(431, LONG_HEAD)
        return HttpError(400, _QUOTED.sub(r"\1", str(error)))

    async def wait_gone(self) -> None:
        """Return once the peer has closed the connection while it waits for a response.

        Requests that it pipelines meanwhile are buffered, up to PIPELINED_BYTES. Further bytes are
        read and discarded, because the end of the stream is behind them, and the connection is closed
        after the buffered requests. Raises the errors of reading.
        """
        kept = len(self.behind)
        thrown = reads = 0
        while True:
            keep = kept < PIPELINED_BYTES and not self._cut
            data = await self._stream.receive_some(READ_BYTES if keep else DISCARD_BYTES)
            if not data:
                return
            if keep:
                kept += len(data)
                self._h11.receive_data(bytes(data))
                continue
            self._cut = True
            thrown, reads = thrown + len(data), reads + 1
            if thrown >= DISCARD_BYTES or reads >= DISCARD_READS:
                thrown = reads = 0
                await trio.sleep(DISCARD_S)

    async def send(
        self, status: int, headers: Headers, body: bytes, content_type: str, head_only: bool = False
    ) -> None:
        """Send a complete response; raises BrokenResourceError if the peer does not read it in time."""
        own: list[tuple[str, str]] = [("Server", "marketfeed")]
        if status not in (204, 304):
            own += [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        head = h11.Response(
            status_code=status, reason=HTTPStatus(status).phrase.encode(), headers=[*own, *headers]
        )
        if head_only or status in (204, 304):
            body = b""
        first = self._h11.send(head) or b""
        if body:
            self._h11.send(h11.Data(body))  # its length is known, so it is sent unchanged
        self._h11.send(h11.EndOfMessage())
        with self._unread.sending(len(body), IDLE_S) as sending:
            # The stream copies unsent bytes; sending in parts bounds the copy if the peer does not read.
            await self._stream.send_all(first + body[:SEND_BYTES])
            for start in range(SEND_BYTES, len(body), SEND_BYTES):
                await self._stream.send_all(body[start : start + SEND_BYTES])
        if sending.cancelled_caught:
            raise trio.BrokenResourceError("the peer does not read")

    @property
    def answerable(self) -> bool:
        """Return whether a response to the current request can still be sent."""
        return self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    async def linger(self) -> None:
        """Shut down sending and read on briefly: closing with unread bytes would discard the response."""
        with trio.move_on_after(LINGER_S):
            await self._stream.send_eof()
            left = LINGER_BYTES
            while left > 0 and (data := await self._stream.receive_some(DISCARD_BYTES)):
                left -= len(data)

    def again(self) -> bool:
        """Prepare for the next request; return False if there can be none."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._received = bytearray(self._h11.trailing_data[0])
        self._h11.start_next_cycle()
        return True
