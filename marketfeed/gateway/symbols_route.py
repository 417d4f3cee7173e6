"""``GET /v1/symbols``: all symbols, their first and last ticks, and whether their feeds are live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
import trio
from msgspec import UNSET

from marketfeed.api.answers import SymbolRow
from marketfeed.core.records import FLAG_STALE, QUOTES
from marketfeed.core.units import US
from marketfeed.gateway.entitled import entitlement_of
from marketfeed.gateway.http import NO_CACHE, Request, Response
from marketfeed.gateway.overview import LIVE
from marketfeed.gateway.query import check_keys
from marketfeed.gateway.turns import client_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from marketfeed.access.entitlement import Entitlement
    from marketfeed.core.rings import Indices, Rings
    from marketfeed.core.symbol_set import SymbolSet
    from marketfeed.gateway.authorization import Authorizer
    from marketfeed.gateway.overview import EngineNow, FeedNow
    from marketfeed.gateway.session import Service

CHUNK: Final = 1024  # symbols between two checkpoints: two milliseconds


class SymbolsRoute:
    """The handler of one service."""

    def __init__(self, service: Service, authorizer: Authorizer) -> None:
        self._service, self._authorizer = service, authorizer

    async def get(self, request: Request) -> Response:
        """Answer; times are those of receipt, in µs, 0 before the first tick."""
        check_keys(request.query, ())
        service, grant = self._service, await self._authorizer.grant(request)
        entitlement = entitlement_of(service.access is not None, grant)
        now = None if service.overview is None else await service.overview.engine()
        async with service.turns.of(client_of(request, grant)), service.large:
            rows = await self._rows(entitlement, now)
        self._authorizer.check(grant)  # it may have expired, or been revoked, meanwhile
        return Response(b'{"symbols":[%b]}' % b",".join(rows), headers=(*NO_CACHE, *service.cluster.headers))

    async def _rows(self, entitlement: Entitlement, now: EngineNow | None) -> list[bytes]:
        """Return the rows of the entitled symbols as JSON."""
        shard = self._service.shard
        rings, names = shard.rings, shard.symbols.names(0)
        head, firsts = rings.head(), rings.first_ns(len(names)) // US
        feeds = None if now is None else {one.number: one for one in now.feeds}
        rows: list[bytes] = []
        for start in range(0, len(names), CHUNK):
            some = names[start : start + CHUNK]
            shown = [_places(held, some) for held in (entitlement.quotes, entitlement.trades)]
            ids = np.arange(start, start + len(some))
            columns = (firsts[ids], *_newest(rings, ids, shown, head))
            values = zip(some, *(one.tolist() for one in columns), strict=True)
            rows += [msgspec.json.encode(_row(feeds, *row)) for row in values if entitlement.shows(row[0])]
            await trio.lowlevel.checkpoint()
        return rows


def _places(held: SymbolSet, names: Sequence[str]) -> Indices:
    """Return the indices of the ``names`` that are in ``held``."""
    if held.everything:
        return np.arange(len(names))
    return np.array([at for at, name in enumerate(names) if name in held], np.int64)


def _newest(
    rings: Rings, ids: Indices, shown: Sequence[Indices], head: int
) -> tuple[Indices, Indices, Indices]:
    """Return the last receipt in µs, the feed of the newest tick (-1: none) and the flags of each symbol.

    ``shown`` are the places in ``ids`` of the symbols whose ticks may be seen, by channel.
    """
    last, newest, flags = (np.zeros(len(ids), np.int64) for _ in range(3))
    feed = np.full(len(ids), -1)
    for channel, places in enumerate(shown):
        records, ns = rings.latest(channel, ids[places], head)
        held = places[np.flatnonzero(ns)]
        last[held] = np.maximum(last[held], records["ts_recv"] // US)
        newer = records["g"] > newest[held]
        feed[held[newer]] = records["feed"][newer]
        newest[held[newer]] = records["g"][newer]
        if channel == QUOTES:
            flags[held] = records["flags"]
    return last, feed, flags


def _row(
    feeds: Mapping[int, FeedNow] | None, name: str, first: int, last: int, number: int, flags: int
) -> SymbolRow:
    """Return the row of a symbol; ``number`` is that of the feed, which may have been removed."""
    if feeds is None or number < 0:
        return SymbolRow(name, first, last, flags=flags or UNSET)
    feed = feeds.get(number)
    if feed is None or feed.state != LIVE:
        flags |= FLAG_STALE
    return SymbolRow(name, first, last, UNSET if feed is None else feed.feed, flags or UNSET)
