"""What the engine's own process tells routes, as a test sets it."""

from __future__ import annotations

from typing import Any

from marketfeed.gateway.overview import EngineNow, FeedNow


class SetOverview:
    """Implements :class:`marketfeed.gateway.overview.Overview`."""

    def __init__(self, *feeds: FeedNow, admin: tuple[str, int] | None = None) -> None:
        self.now = EngineNow(feeds, admin)
        self.shown: dict[str, Any] = {"tiers": {}}

    async def engine(self) -> EngineNow:
        return self.now

    async def latency(self) -> dict[str, Any]:
        return self.shown
