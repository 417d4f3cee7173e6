"""What the engine's own process knows of all its parts, for the routes of every process."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import trio

from marketfeed.core.addresses import is_loopback
from marketfeed.core.units import US, S
from marketfeed.fanout.ledger import Ledger
from marketfeed.gateway.overview import EngineNow, FeedNow, NodeNow
from marketfeed.ingest.supervise import STALE_S, FeedState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from marketfeed.ingest.roster import Roster
    from marketfeed.ingest.supervise import Supervisor
    from marketfeed.latency.aggregator import Aggregator
    from marketfeed.server.api import SessionServer

FRESH_S: Final = 1.0  # for which latencies, collected in milliseconds, answer all requests for them
# For subscribers: without the cause, which may name files and addresses; the log has it.
REASONS: Final = {
    FeedState.STARTING: "no tick yet",
    FeedState.STALE: f"no tick for {STALE_S:g} s",
    FeedState.DOWN: "it failed, and is run again after a delay",
    FeedState.DONE: "its source has ended",
    FeedState.FAILED: "it failed, and is not run again",
}


class EngineOverview:
    """Implements :class:`marketfeed.gateway.overview.Overview`. Set the attributes before the start."""

    def __init__(self, aggregator: Aggregator, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self.roster: Roster | None = None
        self.server: SessionServer | None = None
        self.nodes: Callable[[], Sequence[NodeNow]] = tuple  # that clients can use
        self._aggregator = aggregator
        self._wall_ns = wall_ns
        self._admin: tuple[str, int] | None = None
        self._needs_token: Callable[[], bool] = lambda: True
        self._collecting = trio.Lock()
        self._latency: dict[str, Any] = {}
        self._good_until_s = -math.inf
        self._since: dict[str, tuple[float, int]] = {}  # by feed: on trio's clock, and Unix in µs

    def serve_admin(self, host: str, port: int, needs_token: Callable[[], bool]) -> None:
        """Show the admin port, while it is on loopback and needs no token."""
        self._admin, self._needs_token = (host, port) if is_loopback(host) else None, needs_token

    async def latency(self) -> dict[str, Any]:
        """Return the body of ``/v1/latency`` on the admin port, as it was at most FRESH_S ago."""
        async with self._collecting:  # who asks meanwhile gets the same answer
            if trio.current_time() >= self._good_until_s:
                ledgers = {} if self.server is None else await self.server.ledgers()
                self._latency = self._aggregator.shown(ledgers)
                for tier, entry in self._latency["tiers"].items():
                    entry["ledger"] = asdict(ledgers.get(tier, Ledger()))
                self._good_until_s = trio.current_time() + FRESH_S
        return self._latency

    async def engine(self) -> EngineNow:
        """Return the state of the feeds and nodes."""
        supervisors = [] if self.roster is None else self.roster.supervisors
        feeds = tuple(self._feed(one) for one in supervisors)
        self._since = {one.feed: self._since[one.feed] for one in feeds}
        return EngineNow(feeds, None if self._needs_token() else self._admin, tuple(self.nodes()))

    def _feed(self, supervisor: Supervisor) -> FeedNow:
        intake, state = supervisor.intake, supervisor.state()
        since_s = supervisor.since_s()
        # Converted once per state: two readings of two clocks differ by some µs each time.
        if self._since.get(intake.name, (None,))[0] != since_s:
            ago_ns = int((trio.current_time() - since_s) * S)
            self._since[intake.name] = since_s, (self._wall_ns() - ago_ns) // US
        since = self._since[intake.name][1]
        return FeedNow(intake.number, intake.name, state.value, since, REASONS.get(state))
