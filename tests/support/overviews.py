"""What the engine's own process tells routes, as a test sets it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio.lowlevel

from marketfeed.gateway.overview import EngineNow, FeedNow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class SetOverview:
    """Implements :class:`marketfeed.gateway.overview.Overview`."""

    def __init__(self, *feeds: FeedNow, admin: tuple[str, int] | None = None) -> None:
        self.now = EngineNow(feeds, admin)
        self.shown: dict[str, Any] = {"tiers": {}}
        self.before: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint  # awaited before each answer

    async def engine(self) -> EngineNow:
        await self.before()
        return self.now

    async def latency(self) -> dict[str, Any]:
        await self.before()
        return self.shown
