"""Requests that wait for something: they end at once if the client goes away, or the gateway drains."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import structlog
import trio

from marketfeed.errors import MarketfeedError
from marketfeed.gateway.http import Request, Response, error_response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

log = structlog.get_logger()


class Waits:
    """All waiting requests of one service."""

    def __init__(self) -> None:
        self._draining = False
        self._waiting: set[trio.CancelScope] = set()
        self._ended = trio.lowlevel.ParkingLot()

    async def run(self, request: Request, work: Callable[[], Awaitable[T]]) -> T | Response:
        """Return the result of ``work()``, or 503 if the gateway drains first.

        Raises MarketfeedError as ``work`` does, and trio.BrokenResourceError if the client goes away first.
        """
        found: list[T] = []
        failed: MarketfeedError | None = None
        try:
            async with trio.open_nursery() as nursery:
                self._waiting.add(nursery.cancel_scope)
                nursery.start_soon(_until_gone, request, nursery.cancel_scope)
                try:
                    found.append(await work())
                except MarketfeedError as error:
                    failed = error  # raised outside: here it would become part of an exception group
                nursery.cancel_scope.cancel()
        finally:
            self._waiting.discard(nursery.cancel_scope)
            self._ended.unpark_all()
        if failed is not None:
            raise failed
        if found:
            return found[0]
        if self._draining:
            return error_response(503, "shutting down", (("Retry-After", "1"), ("Connection", "close")))
        raise trio.BrokenResourceError("the client of a poll went away")

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
