"""The admin listener: metrics, health, and who is slow and why. Loopback unless told otherwise."""

from __future__ import annotations

from typing import Any, Final

import trio

from marketfeed.gateway.http import HttpServer, Request, Response, error_response, json_response
from marketfeed.gateway.listener import Gateway
from marketfeed.gateway.session import Session
from marketfeed.metrics import CONTENT_TYPE, Sources, exposition

MAX_ROWS: Final = 1000
YIELD_ROWS: Final = 100
HEAD_S: Final = 5.0


class Admin:
    """The routes of the admin listener."""

    def __init__(self, sources: Sources, gateway: Gateway) -> None:
        self._sources = sources
        self._gateway = gateway
        self.ready = False
        self.server = HttpServer(
            {
                "/metrics": self._metrics,
                "/healthz": self._health,
                "/readyz": self._readiness,
                "/v1/sessions": self._sessions,
            },
            HEAD_S,
        )

    async def _metrics(self, request: Request) -> Response:
        return Response(await exposition(self._sources), CONTENT_TYPE)

    async def _health(self, request: Request) -> Response:
        return json_response({"status": "ok", "epoch": self._sources.shard.rings.epoch})

    async def _readiness(self, request: Request) -> Response:
        feeds = {s.intake.name: s.state().value for s in self._sources.supervisors}
        body = {"status": "ready" if self.ready else "draining", "feeds": feeds}
        return json_response(body, 200 if self.ready else 503)

    async def _sessions(self, request: Request) -> Response:
        """List sessions, the slow ones first; ``?slow=1`` only those, ``limit`` at most so many."""
        limit_text = request.first("limit", "100")
        digits = limit_text.isascii() and limit_text.isdecimal() and len(limit_text) <= 4
        if not digits or not 1 <= int(limit_text) <= MAX_ROWS:
            return error_response(400, f"limit: 1 to {MAX_ROWS}")
        slow_text = request.first("slow", "0")
        if slow_text not in ("0", "1"):
            return error_response(400, "slow: 0 or 1")
        limit, only_slow = int(limit_text), slow_text == "1"
        sessions = [session for session in list(self._gateway.sessions) if session.member is not None]
        slow = [session for session in sessions if self._why_slow(session)]
        chosen = (slow if only_slow else slow + [s for s in sessions if s not in set(slow)])[:limit]
        rows: list[dict[str, Any]] = []
        for session in chosen:
            rows.append(self._row(session))
            if len(rows) % YIELD_ROWS == 0:
                await trio.lowlevel.checkpoint()
        return json_response({"sessions": len(sessions), "slow": len(slow), "shown": rows})

    @staticmethod
    def _why_slow(session: Session) -> str | None:
        member = session.member
        assert member is not None
        if member.waiting and member.stuck_ns:
            stuck_s = trio.current_time() - member.stuck_ns / 1e9
            return f"its socket is full; nothing acknowledged for {max(stuck_s, 0):.1f} s"
        if member.waiting:
            return "its socket is full"
        if member.behind:
            return f"it fell behind; {member.behind_conflated} quotes conflated so far"
        return None

    def _row(self, session: Session) -> dict[str, Any]:
        member = session.member
        assert member is not None
        ledgers = self._sources.shard.figures.ledgers(member)
        return {
            "session": session.id,
            "address": session.address,
            "transport": "websocket",
            "tier": member.tier.name,
            "phase": member.phase,
            "encoding": member.encoding,
            "age_s": round(trio.current_time() - session.opened_at_s, 1),
            "state": "live" if member.group else "lagging" if member.behind else "alone",
            "slow": self._why_slow(session),
            "names": {"quotes": len(member.names.quotes), "trades": len(member.names.trades)},
            "symbols": {"quotes": len(member.interest.symbols[0]), "trades": len(member.interest.symbols[1])},
            "unsent_bytes": session.unsent_bytes,
            "ledger": {
                tier: {
                    "matched": ledger.matched,
                    "delivered": ledger.delivered,
                    "conflated": ledger.conflated,
                    "lost": ledger.lost,
                    "pending": ledger.pending,
                    "abandoned": ledger.abandoned,
                }
                for tier, ledger in ledgers.items()
            },
        }
