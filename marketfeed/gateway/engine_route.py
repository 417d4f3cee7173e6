"""``GET /v1/engine``: what the engine is, the state of its feeds, and what the client's token gives.

``GET /v1/nodes``: the engines of a cluster that clients can use.

With access control, a request without a token learns no more than that it needs one. Nothing here
names a file, an address of a venue or a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET, UnsetType

from marketfeed import __version__
from marketfeed.api.engine import (
    MAX_PATTERNS,
    AccessAnswer,
    EngineAnswer,
    FeedRow,
    NodeRow,
    NodesParameters,
    TierRow,
)
from marketfeed.core.addresses import is_loopback, url_host
from marketfeed.core.authority import parse_authority
from marketfeed.core.units import MS, US, S
from marketfeed.gateway.entitled import entitlement_of, tier_for
from marketfeed.gateway.http import Request, Response, json_response
from marketfeed.gateway.overview import EngineNow
from marketfeed.gateway.query import check_keys

if TYPE_CHECKING:
    from marketfeed.access.entitlement import Entitlement
    from marketfeed.access.grant import Grant
    from marketfeed.gateway.authorization import Authorizer
    from marketfeed.gateway.session import Service

LOOPBACK: Final = "127.0.0.1"
FORWARDED: Final = (b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"forwarded", b"via")


class EngineRoute:
    """The handler of one service; ``sdk`` is the path of the browser client of this version."""

    def __init__(self, service: Service, authorizer: Authorizer, sdk: str) -> None:
        self._service, self._authorizer, self._sdk = service, authorizer, sdk

    async def get(self, request: Request) -> Response:
        """Answer ``GET /v1/engine``."""
        check_keys(request.query, ())
        service = self._service
        mode = "none" if service.access is None else service.access.mode
        if service.access is not None and request.header(b"authorization") is None:
            return json_response(EngineAnswer(__version__, mode))
        grant = await self._authorizer.grant(request)
        now = EngineNow() if service.overview is None else await service.overview.engine()
        self._authorizer.check(grant)  # it may have expired, or been revoked, meanwhile
        entitlement = entitlement_of(service.access is not None, grant)
        tiers = sorted(service.tiers.values(), key=lambda tier: (tier.interval_ns, not tier.every))
        answer = EngineAnswer(
            version=__version__,
            auth=mode,
            epoch=service.shard.rings.epoch,
            now=service.shard.wall_ns() // US,
            sdk=self._sdk,
            alerts=service.alerts is not None and entitlement.alerts is not None,
            default_tier=tier_for(entitlement, service.tiers, service.default_tier).name,
            tiers=[
                TierRow(tier.name, tier.interval_ns / MS, "every" if tier.every else "latest")
                for tier in tiers
                if entitlement.allows_tier(tier.name)
            ],
            feeds=[FeedRow(one.feed, one.state, one.since, one.reason) for one in now.feeds],
            access=UNSET if grant is None else access_answer(grant),
            admin=self._admin(request, now),
        )
        return json_response(answer)

    @staticmethod
    def _admin(request: Request, now: EngineNow) -> str | UnsetType:
        """Return the URL of the admin port, for a client on this machine that uses an address of it.

        Others may come through a proxy on this machine that is not in ``gateway.trusted_proxies``. The URL
        has the host that the client used where that may be the admin port's: a browser takes localhost and
        127.0.0.1 for two sites.
        """
        proxied = any(request.header(name) is not None for name in FORWARDED)
        asked = None if request.authority is None else parse_authority(request.authority)
        if now.admin is None or asked is None or proxied or not is_loopback(request.address):
            return UNSET
        if not is_loopback(asked.host.strip("[]")):
            return UNSET
        host, port = now.admin
        if asked.host == "localhost" or (host == "localhost" and asked.host == LOOPBACK):
            host = asked.host
        return f"http://{url_host(host)}:{port}"


class NodesRoute:
    """The handler of ``GET /v1/nodes`` of one service: the engines that a client can use."""

    def __init__(self, service: Service, authorizer: Authorizer) -> None:
        self._service, self._authorizer = service, authorizer

    async def get(self, request: Request) -> Response:
        """Answer ``GET /v1/nodes``."""
        check_keys(request.query, NodesParameters.__struct_fields__)
        service = self._service
        grant = await self._authorizer.grant(request)
        now = EngineNow() if service.overview is None else await service.overview.engine()
        self._authorizer.check(grant)  # it may have expired, or been revoked, meanwhile
        shard = request.query.get("shard", [""])[-1]
        own = f"{'http' if service.certificate is None else 'https'}://{request.authority or ''}"
        return json_response(
            [
                NodeRow(one.url or own, one.site, one.sessions, one.capacity, one.state)
                for one in now.nodes
                if shard in ("", one.shard)
            ]
        )


def access_answer(grant: Grant) -> AccessAnswer:
    """Return what ``grant`` gives, as clients see it."""
    entitlement, claims = grant.entitlement, grant.claims
    lists = [
        _patterns(entitlement),
        ["*"] if entitlement.consumers is None else list(entitlement.consumers.patterns),
        ["*"] if entitlement.publish is None else list(entitlement.publish.patterns),
    ]
    held = {
        "quotes": bool(entitlement.quotes.patterns),
        "trades": bool(entitlement.trades.patterns),
        "alerts": entitlement.alerts is not None,  # those about no symbol in any case
    }
    symbols, consumers, publish = (one[:MAX_PATTERNS] for one in lists)
    return AccessAnswer(
        sub=claims.sub,
        tenant=claims.tenant,
        tiers=list(entitlement.tiers or ()),
        channels=[name for name, some in held.items() if some],
        symbols=symbols,
        consumers=consumers,
        publish=publish,
        more=sum(max(0, len(one) - MAX_PATTERNS) for one in lists),
        max_symbols=entitlement.max_symbols,
        expires=None if grant.expires_s is None else int(grant.expires_s * (S // US)),
    )


def _patterns(entitlement: Entitlement) -> list[str]:
    """Return the symbols of any channel: a tenant bounds all channels alike."""
    for one in (entitlement.quotes, entitlement.trades, entitlement.alerts):
        if one is not None and one.patterns:
            return list(one.patterns)
    return []
