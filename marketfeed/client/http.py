"""One HTTP request to an engine, on a connection of its own: h11, without redirects and proxies."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, NamedTuple

import h11
import msgspec

from marketfeed.client.unreachable import rejection
from marketfeed.core.backoff import Backoff
from marketfeed.errors import ConnectError, RequestRefusedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Any

    from marketfeed.client.address import Endpoint
    from marketfeed.client.backend import Backend, Stream

ANSWER_BYTES: Final = 64 << 20
RETRY_S: Final = (0.5, 5.0)  # delays before a repetition, the first and the longest
TEMPORARY: Final = frozenset({429, 500, 502, 503, 504})  # statuses after which a repetition may succeed


class Answer(NamedTuple):
    """An answer; names of ``headers`` are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self, what: str) -> Any:
        """Return the decoded body, None if it is empty. Raises RequestRefusedError, and ConnectError."""
        if self.status >= 300:
            reason = rejection(self.status, self.headers, self.body, secure=True)
            raise RequestRefusedError(self.status, f"{what}: {reason}")
        try:
            return msgspec.json.decode(self.body) if self.body else None
        except (msgspec.DecodeError, RecursionError) as error:
            raise ConnectError(f"{what}: the answer is not JSON: {error}") from None


async def exchange(
    backend: Backend,
    endpoint: Endpoint,
    method: str,
    path: str,
    body: bytes | None,
    headers: Mapping[str, str],
    timeout_s: float,
) -> Answer:
    """Send one request; return the answer. Raises ConnectError."""
    connection = h11.Connection(h11.CLIENT)
    fields = {**headers, "Host": endpoint.authority, "Connection": "close"}
    if body is not None:
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}

    async def send() -> Answer:
        request = h11.Request(method=method, target=endpoint.path(path), headers=list(fields.items()))
        parts = [request, *([h11.Data(data=body)] if body else []), h11.EndOfMessage()]
        data = b"".join(connection.send(part) or b"" for part in parts)
        stream = await backend.open(endpoint.host, endpoint.port, endpoint.tls, timeout_s)
        try:
            await stream.send(data)
            return await _answer(connection, stream)
        finally:
            await backend.shielded(stream.close, timeout_s)

    try:
        answer: Answer = await backend.limited(send(), timeout_s)
        return answer
    except TimeoutError:
        raise ConnectError(f"{method} {path}: no answer within {timeout_s:g} s") from None
    except h11.ProtocolError as error:
        raise ConnectError(f"{method} {path}: {error}") from None


async def _answer(connection: h11.Connection, stream: Stream) -> Answer:
    status, headers, body = 0, {}, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive())
        elif isinstance(event, h11.Response):
            status = event.status_code
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > ANSWER_BYTES:
                raise ConnectError(f"an answer of more than {ANSWER_BYTES >> 20} MiB")
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, headers, bytes(body))
        elif isinstance(event, h11.ConnectionClosed):
            raise ConnectError("connection closed without an answer")


async def publish(
    backend: Backend, request: Callable[..., Awaitable[Any]], notice: Mapping[str, Any], timeout_s: float
) -> str:
    """Publish ``notice`` by ``request``, again and again for ``timeout_s``; return its id.

    Raises RequestRefusedError and ConnectError.
    """
    body = {name: value for name, value in notice.items() if value is not None}
    body.setdefault("key", secrets.token_hex(16))
    until_s, backoff = backend.now() + timeout_s, Backoff(*RETRY_S)
    while True:
        try:
            left_s = max(until_s - backend.now(), 0.0)
            answer = await request("/v1/alerts", method="POST", body=body, timeout_s=left_s)
            return str(answer["id"])
        except (ConnectError, RequestRefusedError) as error:
            final = isinstance(error, RequestRefusedError) and error.code not in TEMPORARY
            again_s = backend.now() + backoff.next_s()
            if final or again_s >= until_s:
                raise
        await backend.wait(backend.event(), again_s)
