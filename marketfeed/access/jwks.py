"""A set of keys (JWKS, RFC 7517) at an address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.config.schema import AuthConfig


@dataclass(frozen=True, slots=True)
class KeySetStatistics:
    """Fetches so far."""

    fetched: int
    failed: int


class KeySet:
    """The set of keys at ``auth.jwks``; ``changed`` is called with each new document."""

    def __init__(self, config: AuthConfig, changed: Callable[[bytes], None]) -> None:
        self.problem: str | None = "auth.jwks: not fetched yet"

    def statistics(self) -> KeySetStatistics:
        """Return the counters."""
        return KeySetStatistics(0, 0)

    async def run(self) -> None:
        """Fetch now and then, until cancelled."""
        await trio.sleep_forever()

    async def refresh(self) -> None:
        """Have it fetched, unless that was done a moment ago."""
        await trio.lowlevel.checkpoint()
