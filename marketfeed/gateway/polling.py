"""Polling: long polls and short polls.

A long poll is a subscriber with a position for one response: the first flush of its tier that has ticks after
its cursor answers it. Until then it costs nothing.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from marketfeed.access.usage import user_of
from marketfeed.api.answers import LatestParameters, PollParameters
from marketfeed.core.records import QUOTES, TRADES
from marketfeed.errors import ErrorCode, RequestError
from marketfeed.fanout.interest import Names
from marketfeed.gateway import entitled
from marketfeed.gateway import query as asked
from marketfeed.gateway.cursors import is_ahead, reached
from marketfeed.gateway.http import NO_CACHE, Request, Response, tagged
from marketfeed.gateway.turns import client_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from marketfeed.access.grant import Grant
    from marketfeed.fanout.tiers import Tier
    from marketfeed.gateway.authorization import Authorizer
    from marketfeed.gateway.query import Query
    from marketfeed.gateway.session import Service
    from marketfeed.gateway.waits import Waits

MANY_NAMES: Final = 64  # requests for more names are served one at a time


class Polling:
    """The handlers of one service."""

    def __init__(self, service: Service, waits: Waits, authorizer: Authorizer) -> None:
        self._service, self._waits, self._authorizer = service, waits, authorizer

    async def poll(self, request: Request) -> Response:
        """Answer ``GET /v1/poll``; if the client disconnects, the poll ends at once."""
        service, query = self._service, request.query
        asked.check_keys(query, PollParameters.__struct_fields__)
        names = asked.names_of(query, service.limits)
        tier = asked.tier_of(query, service.tiers, service.default_tier)
        after, timeout_s = asked.cursor_of(query), asked.timeout_of(query)
        grant = await self._authorizer.grant(request)
        names, tier = self._entitled(grant, query, names, tier)
        waiting = replace(request, grant=grant)
        if is_ahead(service.shard.rings, after):
            ended = await self._waits.run(waiting, lambda: reached(service.shard.rings, after))
            if ended is not None:
                return ended
        answer = await self._waits.run(waiting, lambda: service.shard.poll(names, tier, after, timeout_s))
        if isinstance(answer, Response):
            return answer
        self._authorizer.check(grant)  # it may have expired, or been revoked, meanwhile
        self._meter(grant, tier, names.distinct(), answer.body or b"")
        headers = (*NO_CACHE, ("X-Cursor", answer.cursor), *service.cluster.headers)
        return Response(answer.body or b"", status=204 if answer.body is None else 200, headers=headers)

    def _entitled(self, grant: Grant | None, query: Query, names: Names, tier: Tier) -> tuple[Names, Tier]:
        """Return what is left of ``names``, and the tier to use; raises RequestError."""
        entitlement = entitled.entitlement_of(self._service.access is not None, grant)
        entitled.check_names(entitlement, names)
        entitled.check_count(entitlement, names)
        if "tier" in query:
            entitled.check_tier(entitlement, tier)
        else:
            tier = entitled.tier_for(entitlement, self._service.tiers, tier)
        over = None if grant is None else self._service.limited.of(grant.claims.tenant)
        if over is not None and over.action == "stop":
            raise RequestError(ErrorCode.TOO_MANY_REQUESTS, f"over quota: {over.reason}")
        if over is not None:
            tier = entitled.slowest(entitlement, self._service.tiers)
        return entitled.narrowed(entitlement, names), tier

    async def quotes(self, request: Request) -> Response:
        """Answer ``GET /v1/quotes``."""
        return await self._latest(request, QUOTES)

    async def trades(self, request: Request) -> Response:
        """Answer ``GET /v1/trades``."""
        return await self._latest(request, TRADES)

    async def _latest(self, request: Request, channel: int) -> Response:
        service, query = self._service, request.query
        asked.check_keys(query, LatestParameters.__struct_fields__)
        names = asked.symbols_of(query, service.limits)
        tier = asked.tier_of(query, service.tiers, service.default_tier)
        both = Names(*((names, ())[:: 1 if channel == QUOTES else -1]))
        grant = await self._authorizer.grant(request)
        left, tier = self._entitled(grant, query, both, tier)
        names = tuple(left)[channel]
        many = len(names) > MANY_NAMES or any(name.endswith("*") for name in names)
        async with AsyncExitStack() as stack:
            if many:
                await stack.enter_async_context(service.turns.of(client_of(request, grant)))
                await stack.enter_async_context(service.large)
            latest = service.shard.latest(channel, names, tier)
            # The names are part of the URL, so any change of the response raises its highest g; what is left
            # of them for other tokens is part of the tag.
            mine = (
                ""
                if left is both
                else f":{blake2b(repr((left, tier.name)).encode(), digest_size=12).hexdigest()}"
            )
            tag = f"{service.shard.rings.epoch}:{latest.version}{mine}"
            answer = tagged(request, tag, lambda: Response(b""))
            body = b"" if answer.status == 304 else b"[%b]" % b",".join(await latest.fragments())
        self._authorizer.check(grant)  # it may have expired, or been revoked, meanwhile
        answer = replace(answer, headers=(*answer.headers, *service.cluster.headers))
        if answer.status == 304:
            return answer
        self._meter(grant, tier, names, body)
        return replace(answer, body=body)

    def _meter(self, grant: Grant | None, tier: Tier, names: Iterable[str], body: bytes) -> None:
        """Count an answer for the holder of ``grant``."""
        if grant is not None:
            self._service.shard.meter.polled(user_of(grant), tier.name, names, body)
