"""A small HTTP/1.1 server over h11: fixed routes, whole answers, limits on what strangers send."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs, urlsplit

import h11
import orjson
import structlog
import trio

MAX_HEAD_BYTES: Final = 8192
IDLE_S: Final = 30.0  # a kept-alive connection without a request

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer."""

    body: bytes
    content_type: str = "application/json"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What a route is given: the query, each name with its values in order."""

    path: str
    query: Mapping[str, list[str]] = field(default_factory=dict)

    def first(self, name: str, default: str) -> str:
        """Return the first value of ``name`` in the query."""
        return self.query.get(name, [default])[0]


Route = Callable[[Request], Awaitable[Response]]


def json_response(value: object, status: int = 200) -> Response:
    """Return ``value`` as JSON."""
    return Response(orjson.dumps(value), status=status)


def error_response(status: int, msg: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """Return ``{"error": {"code": …, "msg": …}}``; the code is the HTTP status."""
    body = orjson.dumps({"error": {"code": status, "msg": msg}})
    return Response(body, status=status, headers=headers)


class HttpServer:
    """Serves GET and HEAD of ``routes`` on any stream."""

    def __init__(self, routes: Mapping[str, Route], head_s: float) -> None:
        """``head_s`` is how long a request's head may take."""
        self._routes = routes
        self._head_s = head_s
        self.requests: dict[tuple[str, int], int] = {}  # by route ("" for unknown ones) and status

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer requests on ``stream`` to its end; nothing that a peer does raises."""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        async with stream:
            try:
                while await self._one(connection, stream):
                    connection.start_next_cycle()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                log.debug("peer went away")
            except h11.RemoteProtocolError as error:
                await self._refuse(connection, stream, error)
            except Exception:
                log.exception("request failed")

    async def _one(self, connection: h11.Connection, stream: trio.SocketStream) -> bool:
        """Serve one request; True if another may follow."""
        with trio.move_on_after(IDLE_S if connection.their_state is h11.IDLE else self._head_s) as waiting:
            event = await self._next(connection, stream, waiting)
        if waiting.cancelled_caught or not isinstance(event, h11.Request):
            return False
        while not isinstance(await self._next(connection, stream, None), h11.EndOfMessage):
            pass  # a body that nobody asked for; h11 bounds each piece
        response = await self._answer(event)
        await self._send(connection, stream, response, event.method == b"HEAD")
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE

    async def _next(
        self, connection: h11.Connection, stream: trio.SocketStream, waiting: trio.CancelScope | None
    ) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = connection.next_event()
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]
            data = await stream.receive_some(MAX_HEAD_BYTES)
            if waiting is not None and data:
                # From its first byte on, the head has its own deadline.
                waiting.deadline = min(waiting.deadline, trio.current_time() + self._head_s)
            connection.receive_data(data)

    async def _answer(self, request: h11.Request) -> Response:
        try:
            target = urlsplit(request.target.decode("latin-1"))
            query = parse_qs(target.query, max_num_fields=100)
        except ValueError as error:
            self._count("", 400)
            return error_response(400, f"not a target: {error}")
        route = self._routes.get(target.path)
        if route is None:
            response = error_response(404, f"no such path; there are {', '.join(self._routes)}")
        elif request.method not in (b"GET", b"HEAD"):
            response = error_response(405, "GET or HEAD", (("Allow", "GET, HEAD"),))
        else:
            response = await route(Request(target.path, query))
        self._count(target.path if route else "", response.status)
        return response

    def _count(self, path: str, status: int) -> None:
        self.requests[path, status] = self.requests.get((path, status), 0) + 1

    async def _send(
        self, connection: h11.Connection, stream: trio.SocketStream, response: Response, head_only: bool
    ) -> None:
        head = h11.Response(
            status_code=response.status,
            reason=HTTPStatus(response.status).phrase.encode(),
            headers=[
                ("server", "marketfeed"),
                ("content-type", response.content_type),
                ("content-length", str(len(response.body))),
                ("cache-control", "no-store"),
                *response.headers,
            ],
        )
        parts = [connection.send(head)]
        if not head_only:
            parts.append(connection.send(h11.Data(response.body)))
        parts.append(connection.send(h11.EndOfMessage()))
        with trio.move_on_after(IDLE_S) as sending:
            await stream.send_all(b"".join(part for part in parts if part))
        if sending.cancelled_caught:
            raise trio.BrokenResourceError("the peer does not read")

    async def _refuse(
        self, connection: h11.Connection, stream: trio.SocketStream, error: h11.RemoteProtocolError
    ) -> None:
        status = error.error_status_hint
        self._count("", status)
        if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        try:
            await self._send(connection, stream, error_response(status, str(error)), False)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("peer went away")
