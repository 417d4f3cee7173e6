"""One connection's HTTP/1.1: heads and bodies in, whole answers out, over h11.

Everything that a peer can draw out or blow up is bounded here. Source: RFC 9112.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

import h11
import trio

MAX_HEAD_BYTES: Final = 8192
MAX_HEADERS: Final = 64
LONG_LINE: Final = f"a request line of at most {MAX_HEAD_BYTES} bytes"
LONG_HEAD: Final = f"a head of at most {MAX_HEAD_BYTES} bytes"
READ_BYTES: Final = 8192
PIPELINED_BYTES: Final = 65536  # taken while an answer is under way; then reading stops
IDLE_S: Final = 30.0  # a kept-alive connection without a request; an answer or a body under way
LINGER_S: Final = 1.0  # for a refused peer to take its answer before the connection is closed on it
LINGER_BYTES: Final = 1 << 20
_QUOTED: Final = re.compile(r"\bbytearray\(b?(.*?)\)", re.DOTALL)  # how h11 shows what it was sent
_TLS_RECORD: Final = b"\x16\x03"  # how a TLS handshake begins

Headers = tuple[tuple[str, str], ...]


class HttpError(Exception):
    """A peer that broke HTTP, or a limit on it: it is answered, and the connection closed."""

    def __init__(self, status: int, msg: str) -> None:
        super().__init__(msg)
        self.status = status


class HeadTimeoutError(Exception):
    """A request's head did not come in time; ``begun`` tells whether some of it had."""


class Exchange:
    """Requests and answers on one stream, one after the other."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, head_s: float) -> None:
        """``head_s`` is how long a request's head may take; the first counts from now."""
        self._stream = stream
        self._head_s = head_s
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._received = bytearray()  # of the request under way, while its head is not whole
        self._first = True

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
    def received(self) -> bytes:
        """Return the head of the request under way as it came, and what came behind it."""
        return bytes(self._received)

    async def body(self, request: h11.Request, most: int) -> bytes:
        """Return the request's body; raises HttpError for one of more than ``most`` bytes."""
        length = next((int(value) for name, value in request.headers if name == b"content-length"), 0)
        if length > most:
            raise HttpError(413, f"a body of at most {most} bytes")
        body = bytearray()
        with trio.move_on_after(IDLE_S) as waiting:
            while True:
                event = self._next()
                if isinstance(event, h11.Data):
                    body += event.data
                    if len(body) > most:
                        raise HttpError(413, f"a body of at most {most} bytes")
                elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed) or event is h11.PAUSED:
                    break
                else:
                    await self._go_on(request)
        if waiting.cancelled_caught:
            raise HttpError(400, f"the body did not come within {IDLE_S:g} s")
        return bytes(body)

    async def _go_on(self, request: h11.Request) -> None:
        if self._h11.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            await self._stream.send_all(self._h11.send(go_on) or b"")
        self._h11.receive_data(await self._receive())

    async def _receive(self) -> bytes:
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

        What it pipelines meanwhile is kept for later. Raises what reading raises.
        """
        taken = 0
        while taken < PIPELINED_BYTES:
            data = await self._receive()
            if not data:
                return
            taken += len(data)
            self._h11.receive_data(data)
        await trio.sleep_forever()

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
        parts = [self._h11.send(head)]
        if body and not head_only and status not in (204, 304):
            parts.append(self._h11.send(h11.Data(body)))
        parts.append(self._h11.send(h11.EndOfMessage()))
        with trio.move_on_after(IDLE_S) as sending:
            await self._stream.send_all(b"".join(part for part in parts if part))
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
            while left > 0 and (data := await self._receive()):
                left -= len(data)

    def again(self) -> bool:
        """Turn to the next request; False if there can be none."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._received = bytearray(self._h11.trailing_data[0])
        self._h11.start_next_cycle()
        return True
