"""One WebSocket connection of a client, without I/O: bytes in, messages out. wsproto speaks the protocol.

    receive_data(bytes) ──► Rejected | str (text) | bytes (binary) | Ended
    send_text, ping, close ──► data_to_send() ──► bytes

After Rejected or Ended nothing follows. Pings of the peer are answered here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from marketfeed.errors import CloseCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from wsproto.events import Event

MESSAGE_BYTES: Final = 64 << 20  # of one message; a longer one ends the connection
BODY_BYTES: Final = 64 << 10  # of a rejection, for its reason
_HTTP: Final = b"HTTP/"
_TLS: Final = (b"\x15\x03", b"\x16\x03")  # records of an alert and of a handshake: RFC 8446, section 5.1
_OR_TLS: Final = "; does this port serve wss://?"


class Rejected(NamedTuple):
    """The handshake was answered with another HTTP status; ``headers`` have names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Ended(NamedTuple):
    """The connection is over: ``code`` of RFC 6455, 1006 without a close frame."""

    code: int
    reason: str


Received = Rejected | Ended | str | bytes
_End = TypeVar("_End", Ended, Rejected)


class WebSocket:
    """State of one connection; ``secure``: it runs over TLS."""

    def __init__(
        self, host: str, resource: str, headers: Iterable[tuple[bytes, bytes]] = (), *, secure: bool = False
    ) -> None:
        self._ws = WSConnection(ConnectionType.CLIENT)
        self._secure = secure
        self._out = bytearray(self._ws.send(Request(host=host, target=resource, extra_headers=list(headers))))
        self._begun = b""  # of the answer to the handshake
        self._rejection: Rejected | None = None
        self._parts: list[Any] = []  # of a message
        self._size = 0
        self.over = False

    @property
    def open(self) -> bool:
        """Whether messages can be sent."""
        return not self.over and self._ws.state is ConnectionState.OPEN

    @property
    def sends(self) -> bool:
        """Whether there are bytes to send."""
        return bool(self._out)

    def data_to_send(self) -> bytes:
        """Return the bytes to send now, and forget them."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def send_text(self, text: str) -> None:
        """Send a text message."""
        self._out += self._ws.send(TextMessage(data=text))

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Send a close frame, if the connection is open; Ended follows the peer's answer."""
        if self.open:
            self._out += self._ws.send(CloseConnection(code=int(code), reason=reason))

    def receive_data(self, data: bytes) -> Iterator[Received]:
        """Take ``data``, b"" at the end of the connection; yield what it completes."""
        if self.over:
            return
        if not data:
            yield from self._end_of_data()
            return
        if len(self._begun) < len(_HTTP):
            foreign = self._foreign(data)
            if foreign:
                yield self._ended(Ended(CloseCode.ABNORMAL, foreign))
                return
        try:
            self._ws.receive_data(data)
            for event in self._ws.events():
                yield from self._handled(event)
                if self.over:
                    return
        except (RemoteProtocolError, LocalProtocolError) as error:
            yield self._ended(Ended(CloseCode.PROTOCOL, f"invalid handshake: {error}"))

    def _foreign(self, data: bytes) -> str:
        """Return why the beginning of the answer is not HTTP; "" if it may be."""
        self._begun = (self._begun + data)[: len(_HTTP)]
        if self._begun.startswith(_TLS):
            return "the answer is not HTTP" + ("" if self._secure else _OR_TLS)
        return "" if _HTTP.startswith(self._begun) else "the answer is not HTTP"

    def _end_of_data(self) -> Iterator[Received]:
        if self._rejection is not None:
            yield self._ended(self._rejection)
        elif not self._begun:
            reason = "connection closed without an answer" + ("" if self._secure else _OR_TLS)
            yield self._ended(Ended(CloseCode.ABNORMAL, reason))
        else:
            yield self._ended(Ended(CloseCode.ABNORMAL, "connection lost"))

    def _handled(self, event: Event) -> Iterator[Received]:
        match event:
            case TextMessage() | BytesMessage():
                yield from self._part(event)
            case Ping():
                if self.open:
                    self._out += self._ws.send(event.response())
            case CloseConnection():
                yield self._closed(event)
            case RejectConnection():
                headers = {
                    name.decode("latin-1").lower(): value.decode("latin-1") for name, value in event.headers
                }
                self._rejection = Rejected(event.status_code, headers, b"")
                if not event.has_body:
                    yield self._ended(self._rejection)
            case RejectData():
                assert self._rejection is not None
                body = self._rejection.body + bytes(event.data)
                self._rejection = self._rejection._replace(body=body[:BODY_BYTES])
                if event.body_finished or len(body) > BODY_BYTES:
                    yield self._ended(self._rejection)

    def _part(self, event: TextMessage | BytesMessage) -> Iterator[Received]:
        """Yield the message, if ``event`` completes it. A message in one part is not copied."""
        data = event.data
        self._size += len(data)
        if self._size > MESSAGE_BYTES:
            reason = f"a message of more than {MESSAGE_BYTES >> 20} MiB"
            self.close(CloseCode.TOO_BIG, reason)
            yield self._ended(Ended(CloseCode.TOO_BIG, reason))
        elif not event.message_finished:
            self._parts.append(data)
        else:
            self._size = 0
            if self._parts:
                self._parts.append(data)
                data = _join(self._parts)
                self._parts.clear()
            yield data if isinstance(data, str) else bytes(data)

    def _closed(self, event: CloseConnection) -> Ended:
        if self._ws.state is ConnectionState.REMOTE_CLOSING:
            self._out += self._ws.send(event.response())
        elif self._ws.state is ConnectionState.OPEN:  # wsproto cannot parse what came
            self._out += self._ws.send(event)
        return self._ended(Ended(int(event.code), event.reason or ""))

    def _ended(self, end: _End) -> _End:
        self.over = True
        return end


def _join(parts: list[Any]) -> str | bytes:
    return "".join(parts) if isinstance(parts[0], str) else b"".join(parts)
