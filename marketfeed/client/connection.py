"""Connections of the commands to an engine: its address, the certificates to trust, and connection errors.

    --url, --ca ──► Endpoint ──► TCP ──► TLS handshake ──► stream ──► WebSocket, or one GET
    -c file     ──►

The TLS handshake runs here, before the first write. Inside the WebSocket library its error would be lost,
and the user would see a timeout only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import h11
import orjson
import trio
import trio_websocket

from marketfeed import __version__
from marketfeed.client import address
from marketfeed.client.address import BY_ARGUMENT, BY_OPTION, SCHEMES, STREAM, stream_of, stream_url
from marketfeed.client.unreachable import tls_reason
from marketfeed.errors import ConnectError, FeedProtocolError

if TYPE_CHECKING:
    from pathlib import Path

    from marketfeed.config.schema import GatewayConfig

__all__ = [
    "BROKEN", "BY_ARGUMENT", "BY_OPTION", "CONNECT_S", "RECEIVE_BYTES", "SCHEMES", "STREAM", "THEIR_ENDS",
    "Endpoint", "Stream", "endpoint", "endpoint_of", "known_symbols", "stream_of", "stream_url",
]  # fmt: skip
CONNECT_S: Final = 10.0
AGENT: Final = [(b"User-Agent", f"marketfeed-cli/{__version__}".encode("ascii"))]
MESSAGE_BYTES: Final = 64 << 20
RECEIVE_BYTES: Final = 1 << 16
ANSWER_BYTES: Final = 16 << 20  # of one GET; 65,536 symbols are 4 MB
_HTTP: Final = b"HTTP/"
_TLS: Final = (b"\x15\x03", b"\x16\x03")  # records of an alert and of a handshake: RFC 8446, section 5.1

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


THEIR_ENDS: Final = (
    trio_websocket.ConnectionClosed,
    trio_websocket.HandshakeError,
    trio.TooSlowError,
    trio.BrokenResourceError,
    ConnectError,
    OSError,
)


# What reading a message that breaks the protocol may raise.
BROKEN: Final = (FeedProtocolError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError)


class Endpoint(address.Endpoint):
    """An endpoint with the connections of the commands."""

    async def connect(self) -> Stream:
        """Connect; with TLS, complete its handshake. Raises ConnectError and OSError."""
        host, port = self.parts.hostname or "", self.parts.port
        with trio.fail_after(CONNECT_S):
            stream = await trio.open_tcp_stream(host, port or (80 if self.tls is None else 443))
        if self.tls is None:
            return stream
        # https_compatible: many servers close without TLS's close_notify.
        sealed = trio.SSLStream(stream, self.tls, server_hostname=host, https_compatible=True)
        try:
            with trio.fail_after(CONNECT_S):
                await sealed.do_handshake()
        except BaseException as error:
            await trio.aclose_forcefully(stream)
            if isinstance(error, trio.BrokenResourceError | trio.TooSlowError):
                raise ConnectError(f"TLS: {tls_reason(error.__cause__ or error, CONNECT_S)}") from None
            raise
        return sealed

    async def websocket(
        self, nursery: trio.Nursery, stream: Stream, receive_bytes: int = RECEIVE_BYTES
    ) -> trio_websocket.WebSocketConnection:
        """Open a WebSocket on ``stream``; raises one of THEIR_ENDS."""
        with trio.fail_after(CONNECT_S), trio.CancelScope() as waiting:
            answer = _Answer(stream, waiting)
            return await trio_websocket.wrap_client_stream(
                nursery,
                cast("trio.SocketStream", answer),  # it accepts any stream; its annotation is too narrow
                self.parts.netloc,
                self.resource,
                extra_headers=AGENT,
                max_message_size=MESSAGE_BYTES,
                receive_buffer_size=receive_bytes,
            )
        raise ConnectError(answer.reason)

    async def get(self, path: str, token: str | None = None) -> Any:
        """Return the JSON that a GET on the same port answers; raises one of THEIR_ENDS.

        ``path`` is below that of the stream's folder, such as /v1/symbols.
        """
        path = self.parts.path.removesuffix(STREAM) + path
        connection = h11.Connection(h11.CLIENT)
        headers = [(b"Host", self.parts.netloc.encode()), *AGENT, (b"Connection", b"close")]
        if token is not None:
            headers.append((b"Authorization", f"Bearer {token}".encode()))
        request = h11.Request(method="GET", target=path, headers=headers)
        body = bytearray()
        with trio.fail_after(CONNECT_S):
            async with await self.connect() as stream:
                data = connection.send(request) or b""
                await stream.send_all(data + (connection.send(h11.EndOfMessage()) or b""))
                try:
                    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                        if event is h11.NEED_DATA:
                            connection.receive_data(bytes(await stream.receive_some(RECEIVE_BYTES)))
                        elif isinstance(event, h11.Response) and event.status_code != 200:
                            raise ConnectError(f"GET {path}: HTTP status {event.status_code}")
                        elif isinstance(event, h11.Data):
                            body += event.data
                            if len(body) > ANSWER_BYTES:
                                raise ConnectError(f"GET {path}: more than {ANSWER_BYTES} bytes")
                    return orjson.loads(body)
                except (h11.RemoteProtocolError, orjson.JSONDecodeError) as error:
                    raise ConnectError(f"GET {path}: {error}") from None


class _Answer(trio.abc.Stream):
    """Stream below a WebSocket handshake; cancels the handshake if the answer is not HTTP.

    The WebSocket library itself keeps waiting if the connection ends without an answer, or the answer is not
    HTTP.
    """

    def __init__(self, stream: Stream, waiting: trio.CancelScope) -> None:
        self._stream = stream
        self._waiting: trio.CancelScope | None = waiting
        self.reason = ""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self._stream.receive_some(max_bytes))
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            if not data:
                self.reason = "connection closed without an answer" + _or_tls(self._stream)
            elif data.startswith(_TLS):
                self.reason = "the answer is not HTTP" + _or_tls(self._stream)
            elif not data.startswith(_HTTP[: len(data)]):
                self.reason = "the answer is not HTTP"
            if self.reason:
                waiting.cancel()
                return b""  # given the data, the library would raise a parse error in one of its own tasks
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _or_tls(stream: Stream) -> str:
    return "; does this port serve wss://?" if isinstance(stream, trio.SocketStream) else ""


async def known_symbols(engine: Endpoint, token: str | None = None) -> list[str]:
    """Return the engine's symbols from GET /v1/symbols next to its stream; [] if that fails."""
    if not engine.parts.path.endswith(STREAM):
        return []
    try:
        answer = await engine.get("/v1/symbols", token)
        return [str(row["S"]) for row in answer["symbols"]]
    except (*THEIR_ENDS, *BROKEN):
        return []  # the symbols only serve suggestions


async def known_tiers(engine: Endpoint, token: str | None = None) -> list[str]:
    """Return the tiers that a session may choose, the best first; [] if the engine does not tell them."""
    if not engine.parts.path.endswith(STREAM):
        return []
    try:
        answer = await engine.get("/v1/engine", token)
        return [str(row["tier"]) for row in answer["tiers"]]
    except (*THEIR_ENDS, *BROKEN):
        return []


def endpoint(url: str, ca: Path | None = None, option: str = "--url ") -> Endpoint:
    """Return the endpoint at ``url`` as :func:`address.endpoint` does."""
    return Endpoint(**vars(address.endpoint(url, ca, option)))


def endpoint_of(gateway: GatewayConfig, ca: Path | None = None, elsewhere: str = BY_OPTION) -> Endpoint:
    """Return the endpoint of an engine as :func:`address.endpoint_of` does."""
    return Endpoint(**vars(address.endpoint_of(gateway, ca, elsewhere)))
