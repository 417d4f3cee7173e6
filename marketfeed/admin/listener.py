"""The admin listener: metrics, health, latency, sessions, alerts, usage. On loopback by default.

If there is a token, requests have to bear it. ``/healthz`` and ``/readyz`` do not require it, since probes of
orchestrators send none; without it ``/readyz`` has only the status, because its reasons name feeds and files.
Web pages of other origins are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketfeed.admin.access_operations import AccessOperations
from marketfeed.admin.alert_operations import AlertOperations
from marketfeed.admin.cluster import ClusterOperations
from marketfeed.admin.latency_operations import LOG, REPORT, LatencyOperations
from marketfeed.admin.metrics import CONTENT_TYPE, Sources, exposition
from marketfeed.admin.usage_operations import UsageOperations
from marketfeed.api.operations import HealthAnswer, ReadinessAnswer, SessionsParameters
from marketfeed.config.admin_token import KEY
from marketfeed.gateway.http import HttpServer, Request, Response, Rules, error_response, json_response
from marketfeed.gateway.origins import Origins
from marketfeed.gateway.query import check_keys
from marketfeed.gateway.rate_limited_log import RateLimitedLog

if TYPE_CHECKING:
    from marketfeed.admin.token import AdminToken
    from marketfeed.gateway.hosts import Hosts

MAX_ROWS: Final = 1000
HEAD_S: Final = 5.0
BODY_BYTES: Final = 262_144  # the largest body of a request
READING: Final = frozenset({"GET", "HEAD"})
OPEN: Final = frozenset({"/healthz", "/readyz"})  # paths that require no token
CHALLENGE: Final = ("WWW-Authenticate", "Bearer")


class Admin:
    """The routes of the admin listener."""

    def __init__(self, sources: Sources, hosts: Hosts, token: AdminToken) -> None:
        self._sources = sources
        self._token = token
        self._log = RateLimitedLog()
        self.server = HttpServer(
            {
                "/metrics": {"GET": self._metrics},
                "/healthz": {"GET": self._health},
                "/readyz": {"GET": self._readiness},
                "/v1/sessions": {"GET": self._sessions},
                **LatencyOperations(sources.overview, sources.aggregator.log.path).routes,
                **AlertOperations(sources.alerting).routes,
                **AccessOperations(sources.access).routes,
                **UsageOperations(sources.metering).routes,
                **ClusterOperations(sources.cluster).routes,
            },
            Rules(
                head_s=HEAD_S,
                body_bytes=BODY_BYTES,
                hosts=hosts,
                hosts_key="admin.hosts",
                origins=Origins(()),
                origins_key="",
                refuse=self._refuse,
                linked=frozenset({LOG, REPORT}),
            ),
            sources.lives.counters.refused,
        )

    def _refuse(self, request: Request) -> Response | None:
        """Return 401 for a request without the token, and 403 for a web page that would change something."""
        if request.method not in READING and request.header(b"origin") is not None:
            self.server.refused["page on the admin port"] += 1
            return error_response(403, "web pages may change nothing on the admin port")
        if request.path in OPEN or (why := self._token.refusal(request.header(b"authorization"))) is None:
            return None
        self.server.refused[why] += 1
        self._log.warning(f"{why}, see {KEY}", address=request.address)
        return error_response(
            401, f"{why}: send Authorization: Bearer, with the token in {KEY}", (CHALLENGE,)
        )

    async def _metrics(self, request: Request) -> Response:
        return Response(await exposition(self._sources), CONTENT_TYPE)

    async def _health(self, request: Request) -> Response:
        return json_response(HealthAnswer("ok", self._sources.lives.rings.epoch))

    async def _readiness(self, request: Request) -> Response:
        """Return 200 if subscribers can be served, else 503 with ``problems``; in both cases ``warnings``."""
        health = self._sources.health
        status = health.status()
        body = ReadinessAnswer(status)
        if self._token.refusal(request.header(b"authorization")) is None:
            body = ReadinessAnswer(
                status,
                health.feeds(),
                problems=[problem.text for problem in health.problems()],
                warnings=[warning.text for warning in health.warnings()],
            )
        return json_response(body, 200 if status == "ready" else 503)

    async def _sessions(self, request: Request) -> Response:
        """List at most ``limit`` sessions, slow ones first; with ``?slow=1`` slow ones only."""
        check_keys(request.query, SessionsParameters.__struct_fields__)
        limit_text = request.first("limit", "100")
        digits = limit_text.isascii() and limit_text.isdecimal() and len(limit_text) <= 4
        if not digits or not 1 <= int(limit_text) <= MAX_ROWS:
            return error_response(400, f"limit: 1 to {MAX_ROWS}")
        slow_text = request.first("slow", "0")
        if slow_text not in ("0", "1"):
            return error_response(400, "slow: 0 or 1")
        limit, only_slow = int(limit_text), slow_text == "1"
        listing = await self._sources.lives.listing(limit, only_slow)
        dispatch = self._sources.alerting.dispatch
        states = {} if dispatch is None else dispatch.statistics()
        for row in listing.shown:
            if row.consumer in states:
                row.consumer_state = states[row.consumer].state
        return json_response(listing)
