"""One connection's HTTP/1.1: heads and bodies in, whole answers out, over h11.

Everything that a peer can draw out or blow up is bounded here. Source: RFC 9112.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import h11
import trio

if TYPE_CHECKING:
    from marketfeed.gateway.unread import Unread

MAX_HEAD_BYTES: Final = 8192
MAX_HEADERS: Final = 64
LONG_LINE: Final = f"a request line of at most {MAX_HEAD_BYTES} bytes"
LONG_HEAD: Final = f"a head of at most {MAX_HEAD_BYTES} bytes"
READ_BYTES: Final = 8192
SEND_BYTES: Final = 65536  # of an answer at once
PIPELINED_BYTES: Final = 65536  # kept while an answer is under way; what comes behind that is thrown away
FLOOD: Final = f"more than {PIPELINED_BYTES} bytes behind a request that had no answer yet"
DISCARD_BYTES: Final = 65536  # read at once to be thrown away,
DISCARD_READS: Final = 16  # or in so many pieces: TLS hands out small records by the kilobyte;
DISCARD_S: Final = 0.05  # and the pause before the next, so that a flood costs its sender more than us
FRAMING_BYTES: Final = 16384  # of a chunked body: chunk sizes, line ends, trailers
EVENTS_A_TURN: Final = 16  # pieces of a body between two turns of others
IDLE_S: Final = 30.0  # a kept-alive connection without a request; an answer or a body under way
LINGER_S: Final = 1.0  # for a refused peer to take its answer before the connection is closed on it
LINGER_BYTES: Final = 1 << 20
_QUOTED: Final = re.compile(r"\bbytearray\(b?(.*?)\)", re.DOTALL)  # how h11 shows what it was sent
_TLS_RECORD: Final = b"\x16\x03"  # how a TLS handshake begins

TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, section 5.6.2

Headers = tuple[tuple[str, str], ...]
CLOSE: Final[Headers] = (("Connection", "close"),)


class HttpError(Exception):
    """A peer that broke HTTP, or a limit on it: it is answered, and the connection closed."""

    def __init__(self, status: int, msg: str) -> None:
        super().__init__(msg)
        self.status = status


class HeadTimeoutError(Exception):
    """A request's head did not come in time; ``begun`` tells whether some of it had."""


def body_bytes(request: h11.Request) -> int | None:
    """Return how large a body the request's head announces; None if only its end will tell."""
    headers = dict(request.headers)
    return None if b"transfer-encoding" in headers else int(headers.get(b"content-length", 0))


class Exchange:
    """Requests and answers on one stream, one after the other."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, head_s: float, unread: Unread) -> None:
        """``head_s`` is how long a request's head may take; the first counts from now."""
        self._stream = stream
        self._unread = unread
        self._head_s = head_s
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._received = bytearray()  # of the request under way, while its head is not whole
        self._first = True
        self._cut = False  # something that the peer sent has been thrown away

    async def head(self) -> h11.Request | None:
        """Return the next request's head; None at the connection's end.

        Raises HeadTimeoutError, and HttpError for what is no request.
        """
        first, self._first = self._first, False
        begun = bool(self._received)
        wait_s = self._head_s if first or begun else IDLE_S
        with trio.move_on_after(wait_s) as waiting:
            while True:
                event = self._next()
                if event is not h11.NEED_DATA:
                    break
                data = await self._receive()
                if data and not begun and not first:  # from its first byte on, a head has its own deadline
                    waiting.deadline = trio.current_time() + self._head_s
                begun = begun or bool(data)
                self._received += data
                self._h11.receive_data(data)
        if waiting.cancelled_caught:
            if begun or first:
                raise HeadTimeoutError
            return None
        if not isinstance(event, h11.Request):
            return None
        # The parser bounds what is not whole yet; a head that came whole in one piece is bounded here.
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
        """Return what came behind the request's head, which is where the parser says that it ends."""
        return bytes(self._h11.trailing_data[0])

    def no_body(self) -> None:
        """Go past the end of a request that has no body."""
        self._next()

    async def body(self, most: int) -> bytes:
        """Return the body of the request; raises HttpError for one of more than ``most`` bytes.

        Each piece of a chunked body costs as much as many bytes: what is not data is bounded too, and
        others have their turn between pieces.
        """
        body = bytearray()
        wire, pieces = len(self.behind), 0
        with trio.move_on_after(IDLE_S) as waiting:
            while True:
                event = self._next()
                if isinstance(event, h11.Data):
                    body += event.data
                    if len(body) > most:
                        raise HttpError(413, f"a body of at most {most} bytes")
                    pieces += 1
                    if pieces % EVENTS_A_TURN == 0:
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
        """Give the parser more of a body; return how many bytes."""
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
        """Return once the peer has gone away, which it may while it waits for an answer.

        What it pipelines meanwhile is kept for later, up to a bound. Beyond that it is read and thrown
        away, as the end of the stream lies behind it, and the connection ends with what was kept. Raises
        what reading raises.
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
        """Send a whole answer; raises BrokenResourceError if the peer does not take it."""
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
            self._h11.send(h11.Data(body))  # the length is known, so it goes onto the wire as it is
        self._h11.send(h11.EndOfMessage())
        with self._unread.sending(len(body), IDLE_S) as sending:
            # The stream keeps a copy of what waits: no more than a piece where the peer does not read.
            await self._stream.send_all(first + body[:SEND_BYTES])
            for start in range(SEND_BYTES, len(body), SEND_BYTES):
                await self._stream.send_all(body[start : start + SEND_BYTES])
        if sending.cancelled_caught:
            raise trio.BrokenResourceError("the peer does not read")

    @property
    def answerable(self) -> bool:
        """Tell whether an answer can still be sent to the request under way."""
        return self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    async def linger(self) -> None:
        """End the answers, and read on for a moment: a close on unread bytes would reset the answer away."""
        with trio.move_on_after(LINGER_S):
            await self._stream.send_eof()
            left = LINGER_BYTES
            while left > 0 and (data := await self._stream.receive_some(DISCARD_BYTES)):
                left -= len(data)

    def again(self) -> bool:
        """Turn to the next request; False if there can be none."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._received = bytearray(self._h11.trailing_data[0])
        self._h11.start_next_cycle()
        return True
