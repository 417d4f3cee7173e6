"""HTTP/1.1 server: fixed routes, complete responses, and connections that sessions take over.

Requests of a connection are served one after the other. A route returns a :class:`Response`, or hands
the connection over to a session, for WebSockets and event streams: then the server's objects are
discarded, and :class:`Handover` contains the bytes that were read so far.

The file is longer than 300 lines because it holds the whole way of a request: checks, route, response.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import h11
import msgspec
import structlog
import trio

from marketfeed.api.answers import ErrorAnswer, ErrorDetail
from marketfeed.errors import ErrorCode, RequestError
from marketfeed.gateway.exchange import CLOSE, Exchange, Headers, HeadTimeoutError, HttpError, body_bytes
from marketfeed.gateway.origins import Origins
from marketfeed.gateway.rate_limited_log import RateLimitedLog, shown
from marketfeed.gateway.target import Target, TargetError, parse_target
from marketfeed.gateway.unread import Unread

if TYPE_CHECKING:
    from marketfeed.access.grant import Grant
    from marketfeed.gateway.hosts import Hosts
    from marketfeed.gateway.quick_head import Head
    from marketfeed.gateway.session import Session

METHODS_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
# Statuses of errors that are not 400.
STATUS_OF: Final = {
    ErrorCode.NOT_AUTHENTICATED: 401,
    ErrorCode.NOT_ENTITLED: 403,
    ErrorCode.CONNECTION_LIMIT: 503,
    ErrorCode.TOO_MANY_REQUESTS: 429,
    ErrorCode.INTERNAL: 503,
}
HEADERS_OF: Final[dict[ErrorCode, Headers]] = {
    ErrorCode.NOT_AUTHENTICATED: (("WWW-Authenticate", 'Bearer realm="marketfeed"'),),
    ErrorCode.CONNECTION_LIMIT: (("Retry-After", "5"), ("Connection", "close")),
    ErrorCode.TOO_MANY_REQUESTS: (("Retry-After", "1"),),
    ErrorCode.INTERNAL: (("Retry-After", "5"),),
}
NO_STORE: Final[Headers] = (("Cache-Control", "no-store"),)
_NO_TARGET: Final = Target("")
NO_CACHE: Final[Headers] = (("Cache-Control", "no-cache"),)  # caches have to revalidate

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response."""

    body: bytes
    content_type: str = "application/json"
    status: int = 200
    headers: Headers = NO_STORE


@dataclass(frozen=True, slots=True)
class Request:
    """A request as routes see it. ``query`` maps each name to its values in order."""

    path: str
    query: Mapping[str, list[str]] = field(default_factory=dict)
    method: str = "GET"
    headers: Sequence[tuple[bytes, bytes]] = ()  # names in lower case
    body: bytes = b""
    version: str = "1.1"  # of HTTP
    authority: str | None = None  # requested host and port, if that host is one of ours
    address: str = ""  # the client's, as reported by trusted proxies
    wait_gone: Callable[[], Awaitable[None]] = trio.sleep_forever  # until the client closes the connection
    grant: Grant | None = None  # what its key or token gives, once a route has authorized it
    _values: dict[bytes, bytes] = field(default_factory=dict, repr=False, compare=False)  # see header()

    def first(self, name: str, default: str) -> str:
        """Return the first value of ``name`` in the query."""
        return self.query.get(name, [default])[0]

    def header(self, name: bytes) -> str | None:
        """Return the values of the header ``name``, joined by commas; None without one."""
        if not self._values:
            self._values.update(joined(self.headers))
        found = self._values.get(name)
        return None if found is None else found.decode("latin-1")


@dataclass(frozen=True, slots=True)
class Handover:
    """A connection that a session takes over."""

    session: Session
    behind: bytes = b""  # bytes received after the request's head


Route = Callable[[Request], Awaitable["Response | Session"]]
Routes = Mapping[str, Mapping[str, Route]]  # by path, then by method


def joined(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the value of each header; several of one name are joined by commas."""
    values: dict[bytes, bytes] = {}
    for name, value in headers:
        values[name] = b"%b, %b" % (values[name], value) if name in values else value
    return values


def json_response(value: object, status: int = 200) -> Response:
    """Return ``value`` as JSON."""
    return Response(msgspec.json.encode(value), status=status)


def error_response(status: int, msg: str, headers: Headers = ()) -> Response:
    """Return ``{"error": {"code": …, "msg": …}}``; the code is the HTTP status."""
    answer = json_response(ErrorAnswer(ErrorDetail(status, msg)), status)
    return replace(answer, headers=NO_STORE + headers)


def tagged(
    request: Request, tag: str, answer: Callable[[], Response], headers: Headers = NO_CACHE
) -> Response:
    """Return ``answer()`` with the ETag ``tag``, or 304 if the client has it; RFC 9110, section 13.1.2.

    Both have ``headers``.
    """
    headers = (*headers, ("ETag", f'"{tag}"'))
    held = [text.strip().removeprefix("W/") for text in (request.header(b"if-none-match") or "").split(",")]
    if f'"{tag}"' in held or "*" in held:
        return Response(b"", status=304, headers=headers)
    return replace(answer(), headers=headers)


@dataclass(frozen=True, slots=True)
class Rules:
    """Checks that a request passes before its route.

    ``hosts`` checks the requested host, or accepts any if None; ``hosts_key`` is the configuration key of
    its names. ``origins`` checks web pages; if None, they are neither permitted nor refused.
    ``origins_key`` is the key of the allowed ones, "" if none can be. ``address``
    returns the client's address for the peer's address and X-Forwarded-For. ``refuse`` may answer a
    request in place of its route. ``labels`` maps paths to the names under which they are counted and listed,
    where that is another; pages of any origin may load the paths in ``shared``, and those of the same site,
    such as of another port of this machine, may have links to the paths in ``linked``.
    """

    head_s: float  # for a request's head to arrive
    body_bytes: int = 0  # the largest body
    hosts: Hosts | None = None
    hosts_key: str = "gateway.hosts"
    origins: Origins | None = None
    origins_key: str = "gateway.allowed_origins"
    address: Callable[[str, str | None], str] = lambda peer, forwarded: peer
    refuse: Callable[[Request], Response | None] = lambda request: None
    labels: Mapping[str, str] = field(default_factory=dict)
    shared: frozenset[str] = frozenset()
    linked: frozenset[str] = frozenset()


class HttpServer:
    """Serves ``routes`` on any stream."""

    def __init__(
        self,
        routes: Routes,
        rules: Rules,
        refused: Counter[str] | None = None,
        requests: Counter[tuple[str, int]] | None = None,
    ) -> None:
        """``requests`` counts by route ("" if unknown) and status.

        ``refused`` counts connections that were closed without a response, by reason.
        """
        self._routes = routes
        self._rules = rules
        self._log = RateLimitedLog()
        self.refused = Counter() if refused is None else refused
        self._unread = Unread(self.refused)
        self.closing = False  # connections end with their current response
        self.requests = Counter() if requests is None else requests

    async def serve(self, stream: trio.abc.HalfCloseableStream, peer: str) -> Handover | None:
        """Answer requests of ``peer``, an address, until the stream ends or a session takes it over.

        Does not raise, whatever the peer does. The caller closes the stream.
        """
        exchange = Exchange(stream, self._rules.head_s, self._unread)
        try:
            while True:
                session = await self._one(exchange, peer)
                if session is not None:
                    return Handover(session, exchange.behind)
                if not exchange.again():
                    return None
        except HeadTimeoutError:
            self.refused["handshake timeout"] += 1
        except HttpError as error:
            await self._refuse(exchange, error)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("peer went away", address=peer)
        except Exception:
            log.exception("request failed", address=peer)
        return None

    async def _one(self, exchange: Exchange, peer: str) -> Session | None:
        """Serve one request; return the session that takes the connection over, if any."""
        head = await exchange.head()
        if head is None:
            return None
        length = body_bytes(head)
        if length == 0:
            exchange.no_body()
        target = _NO_TARGET
        judged: Response | Route | None = None
        try:
            target = parse_target(head.target.decode("latin-1"))
        except TargetError as error:
            judged = error_response(400, f"not a target: {error}")
        request = self._request(head, target, exchange, peer)
        if judged is None:
            # The head is checked before the body is parsed: most requests with a body are refused.
            judged = self._judge(request, target.authority, length)
        answer: Response | Session
        if isinstance(judged, Response):
            answer, unread = judged, length != 0
        else:
            if length != 0:
                request = replace(request, body=await exchange.body(self._rules.body_bytes))
            answer, unread = await _answered(judged, request), False
        known = self._rules.labels.get(request.path, request.path) if request.path in self._routes else ""
        if not isinstance(answer, Response):
            self.requests[known, 200] += 1
            return answer
        self.requests[known, answer.status] += 1
        headers = answer.headers + self._permission(request)
        if (self.closing or unread) and not any(name == "Connection" for name, _ in headers):
            headers += CLOSE
        head_only = head.method == b"HEAD"
        await exchange.send(answer.status, headers, answer.body, answer.content_type, head_only)
        if unread:
            await exchange.linger()
        return None

    def _request(self, head: h11.Request | Head, target: Target, exchange: Exchange, peer: str) -> Request:
        headers = list(head.headers)
        values = joined(headers)
        host, forwarded = (
            None if value is None else value.decode("latin-1")
            for value in (values.get(b"host"), values.get(b"x-forwarded-for"))
        )
        meant, hosts = host if target.authority is None else target.authority, self._rules.hosts
        return Request(
            path=target.path,
            query=target.query,
            method=head.method.decode("ascii"),
            headers=headers,
            version=head.http_version.decode("ascii"),
            authority=meant if hosts is not None and meant is not None and hosts.knows(meant) else None,
            address=self._rules.address(peer, forwarded),
            wait_gone=exchange.wait_gone,
            _values=values,
        )

    def _judge(self, request: Request, named: str | None, length: int | None) -> Response | Route:
        """Return the route for the request, or the response if a check refuses it.

        ``named`` is the host in the target, which takes precedence over the Host header (RFC 9112,
        section 3.2.2); ``length`` is that of the body, None if it is chunked.
        """
        hosts, host = self._rules.hosts, request.header(b"host")
        if hosts is not None:
            for authority in (named, host):
                # An HTTP/1.0 request may have neither; no browser sends one.
                if authority is not None and not hosts.serves(authority):
                    return self._misdirected(request, authority)
        origins = self._rules.origins
        origin, site = request.header(b"origin"), request.header(b"sec-fetch-site")
        foreign = origins is not None and not origins.admits(request.path, origin, site, request.authority)
        if foreign and request.path not in self._rules.shared and not self._follows_link(request):
            return self._strange_origin(request)
        return self._rules.refuse(request) or self._routed(request, length)

    def _follows_link(self, request: Request) -> bool:
        """Return whether a page of the same site has a link to it; that page does not see the response."""
        said = [request.header(name) for name in (b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest")]
        return request.path in self._rules.linked and said == ["same-site", "navigate", "document"]

    def _routed(self, request: Request, length: int | None) -> Response | Route:
        handlers = self._routes.get(request.path)
        if handlers is None:
            known = dict.fromkeys(self._rules.labels.get(path, path) for path in self._routes)
            return error_response(404, f"no such path; there are {', '.join(known)}")
        method, origins = request.method, self._rules.origins
        route = handlers.get("GET" if method == "HEAD" else method)
        methods = ", ".join([*(["GET", "HEAD"] if "GET" in handlers else []), *(set(handlers) - {"GET"})])
        allow = ("Allow", methods)
        if route is None and (method != "OPTIONS" or origins is None):
            return error_response(405, methods.replace(", ", " or "), (allow,))
        if length != 0 and method not in METHODS_WITH_BODY:
            return error_response(400, f"{method} {request.path} takes no body")
        if length is not None and length > self._rules.body_bytes:
            return error_response(413, f"a body of at most {self._rules.body_bytes} bytes")
        if route is not None:
            return route
        asked = request.header(b"access-control-request-method") is not None
        return Response(b"", status=204, headers=(allow, *(_preflight(methods, request) if asked else ())))

    def _misdirected(self, request: Request, authority: str) -> Response:
        self.refused["host not allowed"] += 1
        host, key = shown(authority), self._rules.hosts_key
        self._log.warning(f"host not allowed, see {key}", host=host, address=request.address)
        msg = f"host {host!r} is not served: addresses, localhost, and the names in {key} are"
        return error_response(421, msg)

    def _strange_origin(self, request: Request) -> Response:
        self.refused["origin not allowed"] += 1
        origin = shown(request.header(b"origin") or f"none, {request.header(b'sec-fetch-site')}")
        key = self._rules.origins_key
        told = f"origin not allowed, see {key}" if key else "origin not allowed"
        self._log.warning(told, origin=origin, address=request.address)
        return error_response(403, told)

    def _permission(self, request: Request) -> Headers:
        if self._rules.origins is None:
            return ()
        if request.path in self._rules.shared:
            return (("Access-Control-Allow-Origin", "*"),)
        return self._rules.origins.permission(request.header(b"origin"), request.authority)

    async def refuse(self, stream: trio.abc.HalfCloseableStream, status: int, msg: str) -> None:
        """Send an error to a peer that speaks another protocol."""
        await self._refuse(Exchange(stream, self._rules.head_s, self._unread), HttpError(status, msg))

    async def _refuse(self, exchange: Exchange, error: HttpError) -> None:
        self.requests["", error.status] += 1
        log.debug("not a request", status=error.status, reason=str(error))
        if not exchange.answerable:
            return
        told = error_response(error.status, str(error), CLOSE)
        try:
            await exchange.send(told.status, told.headers, told.body, told.content_type)
            await exchange.linger()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.LocalProtocolError):
            log.debug("peer went away")


async def _answered(route: Route, request: Request) -> Response | Session:
    try:
        return await route(request)
    except RequestError as error:
        return error_response(STATUS_OF.get(error.code, 400), str(error), HEADERS_OF.get(error.code, ()))
    except (trio.BrokenResourceError, trio.ClosedResourceError):  # the client is gone
        raise
    except Exception:  # a bug
        log.exception("request failed", path=request.path, address=request.address)
        return error_response(500, "internal error: the engine has logged it", CLOSE)


def _preflight(methods: str, request: Request) -> Headers:
    private = request.header(b"access-control-request-private-network") is not None
    return Origins.preflight(methods, request.header(b"access-control-request-headers") or "", private)
