"""Requests that wait for something: they end at once if the client goes away, or the gateway drains."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import structlog
import trio

from marketfeed.errors import AccessError, ErrorCode, MarketfeedError, RequestError
from marketfeed.gateway.http import Request, Response, error_response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from marketfeed.access.access import Access
    from marketfeed.access.grant import Grant

T = TypeVar("T")

log = structlog.get_logger()


class Waits:
    """All waiting requests of one service, controlled by ``access``."""

    def __init__(self, access: Access | None = None) -> None:
        self._access = access
        self._draining = False
        self._waiting: dict[trio.CancelScope, Grant | None] = {}
        self._ended = trio.lowlevel.ParkingLot()

    async def run(self, request: Request, work: Callable[[], Awaitable[T]]) -> T | Response:
        """Return the result of ``work()``, or 503 if the gateway drains first.

        Raises RequestError (401) if the grant of the request expires or is revoked first.

        Raises MarketfeedError as ``work`` does, and trio.BrokenResourceError if the client goes away first.
        """
        found: list[T] = []
        grant = request.grant
        failed: MarketfeedError | None = None
        try:
            async with trio.open_nursery() as nursery:
                self._waiting[nursery.cancel_scope] = grant
                nursery.cancel_scope.deadline = self._ends_at_s(grant)
                nursery.start_soon(_until_gone, request, nursery.cancel_scope)
                try:
                    found.append(await work())
                except MarketfeedError as error:
                    failed = error  # raised outside: here it would become part of an exception group
                nursery.cancel_scope.cancel()
        finally:
            self._waiting.pop(nursery.cancel_scope, None)
            self._ended.unpark_all()
        if failed is not None:
            raise failed
        if found:
            return found[0]
        if self._draining:
            return error_response(503, "shutting down", (("Retry-After", "1"), ("Connection", "close")))
        if not self._holds(grant):
            raise RequestError(ErrorCode.NOT_AUTHENTICATED, "authentication failed: expired or revoked")
        raise trio.BrokenResourceError("the client of a poll went away")

    def recheck(self) -> None:
        """End the requests whose grants do not hold any more."""
        for scope, grant in list(self._waiting.items()):
            if not self._holds(grant):
                scope.cancel()

    def _holds(self, grant: Grant | None) -> bool:
        if self._access is None or grant is None:
            return True
        try:
            self._access.again(grant)
        except AccessError:
            return False
        ends_s = grant.ends_s(0.0)
        return ends_s is None or self._access.now_s() < ends_s

    def _ends_at_s(self, grant: Grant | None) -> float:
        """Return the time of the event loop at which ``grant`` ends."""
        ends_s = None if grant is None else grant.ends_s(0.0)
        if self._access is None or ends_s is None:
            return float("inf")
        return trio.current_time() + max(ends_s - self._access.now_s(), 0.0)

    async def drain(self) -> None:
        """Answer every waiting request with 503; return when all have ended."""
        self._draining = True
        for scope in self._waiting:
            scope.cancel()
        while self._waiting:
            await self._ended.park()


async def _until_gone(request: Request, waiting: trio.CancelScope) -> None:
    try:
        await request.wait_gone()
    except trio.BrokenResourceError:
        log.debug("peer went away", address=request.address)
    waiting.cancel()
