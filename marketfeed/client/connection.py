"""Connections of the commands to an engine: where it is, whom to trust there, and why there is none.

    --url, --ca ──► Endpoint ──► TCP ──► TLS handshake ──► stream ──► WebSocket, or one GET
    -c file     ──►

TLS is shaken hands here and not by the first write: within the WebSocket library its error would be lost, and
all that a person saw were a timeout.
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import SplitResult, urlsplit

import h11
import orjson
import trio
import trio_websocket

from marketfeed import __version__
from marketfeed.client.unreachable import plainly, tls_reason
from marketfeed.config.validation import shown
from marketfeed.errors import ConfigError, FeedProtocolError, MarketfeedError

if TYPE_CHECKING:
    from marketfeed.config.schema import GatewayConfig

CONNECT_S: Final = 10.0
AGENT: Final = [(b"User-Agent", f"marketfeed-cli/{__version__}".encode("ascii"))]
MESSAGE_BYTES: Final = 64 << 20
RECEIVE_BYTES: Final = 1 << 16
ANSWER_BYTES: Final = 16 << 20  # of one GET; 65,536 symbols are 4 MB
_STREAM: Final = "/v1/stream"
BY_OPTION: Final = f"--url ws://HOST:PORT{_STREAM}"
BY_ARGUMENT: Final = f"ws://HOST:PORT{_STREAM} before the symbols"
_HTTP: Final = b"HTTP/"
_TLS: Final = (b"\x15\x03", b"\x16\x03")  # records of an alert and of a handshake: RFC 8446, section 5.1
NO_PEM: Final = "holds no certificate in PEM"
_PEM_END: Final = "-----END CERTIFICATE-----"

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class ConnectError(MarketfeedError):
    """No connection to an engine, for a reason that the text says in one line."""


THEIR_ENDS: Final = (
    trio_websocket.ConnectionClosed,
    trio_websocket.HandshakeError,
    trio.TooSlowError,
    trio.BrokenResourceError,
    ConnectError,
    OSError,
)


# What reading a message raises that is none of the protocol's, whatever is wrong with it.
BROKEN: Final = (FeedProtocolError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError)


@dataclass(frozen=True)
class Endpoint:
    """An engine's stream; ``tls`` says whom to trust, None for ws://."""

    url: str
    parts: SplitResult
    tls: ssl.SSLContext | None
    elsewhere: str = ""  # how to name another one, where a configuration named this one

    @property
    def resource(self) -> str:
        """Return what the handshake asks for: path and query; /v1/stream where the URL names no path."""
        return (self.parts.path or "/v1/stream") + (f"?{self.parts.query}" if self.parts.query else "")

    def unreachable(self, error: BaseException) -> str:
        """Return why there was no connection at all, and how to name another engine if none was named."""
        hint = f"; an engine at another address: {self.elsewhere}" if self.elsewhere else ""
        return f"{plainly(error, secure=self.tls is not None)}{hint}"

    async def connect(self) -> Stream:
        """Return a connection, over TLS after its handshake. Raises ConnectError and OSError."""
        host, port = self.parts.hostname or "", self.parts.port
        with trio.fail_after(CONNECT_S):
            stream = await trio.open_tcp_stream(host, port or (80 if self.tls is None else 443))
        if self.tls is None:
            return stream
        # https_compatible: servers often end without TLS's own farewell.
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
        """Return the open WebSocket on ``stream``; raises what of THEIR_ENDS there is."""
        with trio.fail_after(CONNECT_S), trio.CancelScope() as waiting:
            answer = _Answer(stream, waiting)
            return await trio_websocket.wrap_client_stream(
                nursery,
                cast("trio.SocketStream", answer),  # any stream does, as for its server
                self.parts.netloc,
                self.resource,
                extra_headers=AGENT,
                max_message_size=MESSAGE_BYTES,
                receive_buffer_size=receive_bytes,
            )
        raise ConnectError(answer.reason)

    async def get(self, path: str) -> Any:
        """Return the JSON of a GET on the same port; raises ConnectError and others of THEIR_ENDS."""
        connection = h11.Connection(h11.CLIENT)
        headers = [(b"Host", self.parts.netloc.encode()), *AGENT, (b"Connection", b"close")]
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
    """The stream of a WebSocket that is about to open; ends the wait for an answer that is none of HTTP.

    The WebSocket library waits on after a connection that ended without an answer, or with another one.
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
                self.reason = "closed without an answer" + _or_tls(self._stream)
            elif data.startswith(_TLS):
                self.reason = "the answer is not HTTP" + _or_tls(self._stream)
            elif not data.startswith(_HTTP[: len(data)]):
                self.reason = "the answer is not HTTP"
            if self.reason:
                waiting.cancel()
                return b""  # the library would read it as HTTP, and raise that from a task of its own
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _or_tls(stream: Stream) -> str:
    return "; is it a port for wss://?" if isinstance(stream, trio.SocketStream) else ""


async def known_symbols(engine: Endpoint) -> list[str]:
    """Return the engine's symbols, by GET /v1/symbols beside its stream; [] if it does not tell."""
    path = engine.parts.path
    if not path.endswith(_STREAM):
        return []
    try:
        answer = await engine.get(path.removesuffix(_STREAM) + "/v1/symbols")
        return [str(row["S"]) for row in answer["symbols"]]
    except (*THEIR_ENDS, *BROKEN):
        return []  # all that is lost are suggestions


def endpoint(url: str, ca: Path | None = None, option: str = "--url ") -> Endpoint:
    """Return where ``url`` points, which was given by ``option``.

    Certificates are checked against the system's authorities, or against those of the PEM file ``ca``
    alone. Raises ConfigError.
    """
    parts = parsed_url(url, option)
    if parts.scheme == "wss":
        return Endpoint(url, parts, trusting(ca))
    if ca is not None:
        raise ConfigError(f"--ca {ca}: only wss:// has a certificate to check, and the stream is {url}")
    return Endpoint(url, parts, None)


def endpoint_of(gateway: GatewayConfig, ca: Path | None = None, elsewhere: str = BY_OPTION) -> Endpoint:
    """Return the stream of the engine with this configuration; ``elsewhere`` is how to name another one.

    Without ``ca``, the certificate of its ``tls_cert`` is trusted, and nothing else: no name has to match,
    as it may well have been issued for the public name of an engine that is reached here by its address.
    Raises ConfigError.
    """
    url = stream_url(gateway, elsewhere)
    if not gateway.tls_cert or ca is not None:
        return replace(endpoint(url, ca), elsewhere=elsewhere)
    return Endpoint(url, urlsplit(url), _pinned(Path(gateway.tls_cert)), elsewhere)


def stream_url(gateway: GatewayConfig, elsewhere: str = BY_OPTION) -> str:
    """Return where an engine so configured serves; raises ConfigError if it picks the port itself."""
    if gateway.port == 0:
        raise ConfigError(f"gateway.port: 0 takes any free port, so give the engine's address: {elsewhere}")
    host = gateway.host
    try:
        address = ipaddress.ip_address(host)
        if address.is_unspecified:  # it listens on all of them; here this machine's own is meant
            host = "127.0.0.1" if address.version == 4 else "::1"
    except ValueError:
        pass  # a name
    host = f"[{host}]" if ":" in host else host
    return f"{'wss' if gateway.tls_cert else 'ws'}://{host}:{gateway.port}{_STREAM}"


def parsed_url(url: str, option: str = "--url ") -> SplitResult:
    """Return the parts of a WebSocket's URL; raises ConfigError for any other, given by ``option``."""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0:
            parts.hostname.encode("idna")  # as a look-up of its address does
            return parts
    except UnicodeError:
        raise ConfigError(f"{option}{url}: {shown(parts.hostname)} cannot be a host name") from None
    except ValueError as error:
        raise ConfigError(f"{option}{url}: {error}") from None
    raise ConfigError(f"{option}{url}: written as ws://HOST:PORT/v1/stream, or wss://")


def trusting(ca: Path | None) -> ssl.SSLContext:
    """Return a context that trusts the authorities in the PEM file ``ca``, else the system's.

    A certificate that is no authority's is trusted too where it is in the file, such as a self-signed one.
    Raises ConfigError.
    """
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except ssl.SSLError:
        raise ConfigError(f"--ca {ca}: {NO_PEM}") from None
    except OSError as error:
        raise ConfigError(f"--ca {ca}: {error.strerror}") from None
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _pinned(cert: Path) -> ssl.SSLContext:
    """Return a context that trusts the first certificate of the file ``cert``, whatever name it has."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        first = cert.read_text("ascii", "replace").partition(_PEM_END)
        context.load_verify_locations(cadata=first[0] + first[1])
    except (ssl.SSLError, ValueError):
        raise ConfigError(f"gateway.tls_cert: {cert}: {NO_PEM}") from None
    except OSError as error:
        raise ConfigError(f"gateway.tls_cert: {cert}: {error.strerror}") from None
    return context
