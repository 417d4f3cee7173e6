"""The admin listener: metrics, health, and who is slow and why. Loopback unless told otherwise."""

from __future__ import annotations

from typing import Final

import msgspec

from marketfeed.gateway.http import HttpServer, Request, Response, Rules, error_response, json_response
from marketfeed.gateway.query import check_keys
from marketfeed.ingest.supervise import FeedState
from marketfeed.metrics import CONTENT_TYPE, Sources, exposition

MAX_ROWS: Final = 1000
HEAD_S: Final = 5.0
AMISS: Final = (
    FeedState.STALE,
    FeedState.DOWN,
    FeedState.FAILED,
)  # of a feed; one that has not begun may be waiting for sessions


class Admin:
    """The routes of the admin listener."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self.ready = False
        self.server = HttpServer(
            {
                "/metrics": {"GET": self._metrics},
                "/healthz": {"GET": self._health},
                "/readyz": {"GET": self._readiness},
                "/v1/latency": {"GET": self._latency},
                "/v1/sessions": {"GET": self._sessions},
            },
            Rules(head_s=HEAD_S),
        )

    async def _metrics(self, request: Request) -> Response:
        return Response(await exposition(self._sources), CONTENT_TYPE)

    async def _health(self, request: Request) -> Response:
        return json_response({"status": "ok", "epoch": self._sources.rings.epoch})

    async def _readiness(self, request: Request) -> Response:
        """Say whether the engine does all it is for; 503, and ``problems``, where it does not."""
        sources = self._sources
        states = {s.intake.name: s.state() for s in sources.roster.supervisors}
        feeds = {name: state.value for name, state in states.items()}
        problems = [f"feed {name} is {state.value}" for name, state in states.items() if state in AMISS]
        if sources.keeper.log.problem:
            problems.append(f"latency log: {sources.keeper.log.problem}")
        problems += sources.half.problems()
        status = "draining" if not self.ready else "not ready" if problems else "ready"
        body = {"status": status, "feeds": feeds, "problems": problems}
        return json_response(body, 200 if status == "ready" else 503)

    async def _latency(self, request: Request) -> Response:
        return json_response(self._sources.keeper.shown())

    async def _sessions(self, request: Request) -> Response:
        """List sessions, the slow ones first; ``?slow=1`` only those, ``limit`` at most so many."""
        check_keys(request.query, ("slow", "limit"))
        limit_text = request.first("limit", "100")
        digits = limit_text.isascii() and limit_text.isdecimal() and len(limit_text) <= 4
        if not digits or not 1 <= int(limit_text) <= MAX_ROWS:
            return error_response(400, f"limit: 1 to {MAX_ROWS}")
        slow_text = request.first("slow", "0")
        if slow_text not in ("0", "1"):
            return error_response(400, "slow: 0 or 1")
        limit, only_slow = int(limit_text), slow_text == "1"
        return json_response(msgspec.to_builtins(await self._sources.half.listing(limit, only_slow)))
