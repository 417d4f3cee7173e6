"""Routes of the gateway: handlers, admission of sessions, and limits on requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

from marketfeed.api.answers import EventsParameters
from marketfeed.errors import RequestError
from marketfeed.gateway.alert_routes import AlertRoutes
from marketfeed.gateway.authorization import Authorizer
from marketfeed.gateway.clients import Sdks
from marketfeed.gateway.engine_route import EngineRoute, NodesRoute
from marketfeed.gateway.entitled import entitlement_of
from marketfeed.gateway.events import CONTENT_TYPE, EventSession
from marketfeed.gateway.files import INFLATE, SDK, files
from marketfeed.gateway.http import HttpServer, Request, Response, Rules, error_response, json_response
from marketfeed.gateway.limits import HANDSHAKES, Rates
from marketfeed.gateway.origins import Origins
from marketfeed.gateway.polling import Polling
from marketfeed.gateway.query import (
    LAST_EVENT_ID,
    POLYFILL,
    alerts_of,
    check_keys,
    cursor_of,
    names_of,
    tier_of,
)
from marketfeed.gateway.rate_limited_log import RateLimitedLog
from marketfeed.gateway.session_alerts import OFF
from marketfeed.gateway.symbols_route import SymbolsRoute
from marketfeed.gateway.upgrade import UpgradeError, answer_to
from marketfeed.gateway.waits import Waits
from marketfeed.gateway.websocket import WebSocketSession

if TYPE_CHECKING:
    from collections.abc import Mapping

    from marketfeed.access.entitlement import Entitlement
    from marketfeed.gateway.session import Service, Session

STREAM: Final = "/v1/stream"
EVENTS: Final = "/v1/events"
RETRY_AFTER_S: Final = 5  # if there are too many sessions


class Routes:
    """The handlers of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._origins = Origins(service.allowed_origins, service.certificate is not None)
        self._waits = Waits(service.access)
        self._authorizer = Authorizer(service.access, service.counters)
        self.polling = Polling(service, self._waits, self._authorizer)
        self._rates = Rates(service.limits.requests_per_s)
        self._sdks = Sdks()
        self._log = RateLimitedLog()
        static = files()
        # Handshakes are limited by limits.sessions; a file costs as little as the refusal of a request.
        self._uncounted = frozenset({STREAM, *static.routes})
        self.server = HttpServer(
            {
                STREAM: {"GET": self._stream},
                EVENTS: {"GET": self._events},
                "/v1/poll": {"GET": self.polling.poll},
                "/v1/quotes": {"GET": self.polling.quotes},
                "/v1/trades": {"GET": self.polling.trades},
                "/v1/symbols": {"GET": SymbolsRoute(service, self._authorizer).get},
                "/v1/latency": {"GET": self._latency},
                "/v1/engine": {"GET": EngineRoute(service, self._authorizer, static.sdk).get},
                "/v1/nodes": {"GET": NodesRoute(service, self._authorizer).get},
                "/v1/tickets": {"POST": self._authorizer.issue},
                **AlertRoutes(service.alerts, service.shard.wall_ns, self._waits, self._authorizer).routes,
                **static.routes,
            },
            Rules(
                head_s=service.limits.handshake_s,
                body_bytes=service.limits.request_bytes,
                hosts=service.hosts,
                origins=self._origins,
                address=service.proxies.client,
                refuse=self.refuse,
                labels=static.labels,
                shared=frozenset({SDK, INFLATE, static.sdk}),
            ),
            service.counters.refused,
            service.counters.requests,
        )

    def recheck(self) -> None:
        """End polls whose keys or tokens do not hold any more."""
        self._waits.recheck()

    async def drain(self) -> None:
        """End all polls, and each connection with its current response; return when the polls have ended."""
        self.server.closing = True
        await self._waits.drain()

    def refuse(self, request: Request) -> Response | None:
        """Return 429 for an address that exceeds its request rate, and 400 for a token in the URL."""
        if request.path in self._uncounted or self._rates.take(request.address, trio.current_time()):
            return self._authorizer.refuse(request)
        most = self._service.limits.requests_per_s
        return error_response(429, f"more than {most:g} requests a second", (("Retry-After", "1"),))

    async def _stream(self, request: Request) -> Response | Session:
        try:
            answer = answer_to(request)
        except UpgradeError as error:
            self._log.warning("not a WebSocket handshake", address=request.address, reason=str(error))
            return error_response(error.status, str(error), error.headers)
        session = WebSocketSession(self._service, request.address, answer, self._sdk(request))
        session.grant = await self._authorizer.opening(request, session.id, kept=False)
        return await self._admit(request) or session

    async def _events(self, request: Request) -> Response | Session:
        service, query = self._service, request.query
        check_keys(query, (*EventsParameters.__struct_fields__, *LAST_EVENT_ID), POLYFILL)
        alerts = alerts_of(query)
        names = names_of(query, service.limits, required=not alerts.patterns)
        tier = tier_of(query, service.tiers, service.default_tier)
        after = cursor_of(query, request.header(b"last-event-id"))
        if alerts.patterns and service.alerts is None:
            return error_response(503, OFF)
        if request.method == "HEAD":
            return Response(b"", CONTENT_TYPE)
        headers = self._origins.permission(request.header(b"origin"), request.authority)
        session = EventSession(
            service, request.address, names, tier, after, headers, self._sdk(request), alerts
        )
        session.grant = await self._authorizer.opening(request, session.id, kept=True)
        session.check("tier" in query)
        refusal = await self._admit(request)
        if refusal is not None:
            return refusal
        try:
            await session.admit()
        except RequestError:
            service.admission.release(request.address)
            raise
        return session

    async def _latency(self, request: Request) -> Response:
        check_keys(request.query, ())
        grant = await self._authorizer.grant(request)
        shown = {"tiers": {}} if self._service.overview is None else await self._service.overview.latency()
        self._authorizer.check(grant)  # it may have expired, or been revoked, meanwhile
        entitlement = entitlement_of(self._service.access is not None, grant)
        # The path of the log is for operators only: the admin port shows it.
        return json_response(
            {
                "tiers": {
                    tier: _entitled(entitlement, one)
                    for tier, one in shown["tiers"].items()
                    if entitlement.allows_tier(tier)
                }
            }
        )

    def _sdk(self, request: Request) -> str:
        return self._sdks.label(request.header(b"user-agent"))

    async def _admit(self, request: Request) -> Response | None:
        """Count one more session; return the refusal if a limit forbids it."""
        limit = await self._service.admission.ask(request.address)
        if limit is None:
            return None
        retry_after_s = RETRY_AFTER_S
        if limit == HANDSHAKES:
            retry_after_s = self._service.handshakes.retry_after_s(trio.current_time())
            most = self._service.limits.handshakes_per_s
            self._log.warning("too many handshakes: limits.handshakes_per_s", most=most)
        reason = f"too many {'handshakes' if limit == HANDSHAKES else 'sessions'}: limits.{limit}"
        self._service.counters.refused[reason] += 1
        return error_response(503, reason, (("Retry-After", str(retry_after_s)), ("Connection", "close")))


def _entitled(entitlement: Entitlement, tier: Mapping[str, Any]) -> dict[str, Any]:
    """Return the latencies of a tier, those by symbol as far as the symbols are entitled."""
    shown = {name: figures for name, figures in tier["symbols"].items() if entitlement.shows(name)}
    return {**tier, "symbols": shown}
