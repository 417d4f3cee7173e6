"""Sessions as ``/v1/sessions`` lists them: who is slow, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from marketfeed.fanout.state import State

if TYPE_CHECKING:
    from marketfeed.fanout.figures import Figures
    from marketfeed.gateway.session import Session

SHOWN_STATES: Final = {
    State.LIVE: "live",
    State.LAGGING: "lagging",
    State.LAGGING_BLOCKED: "lagging",
    State.CATCHING_UP: "alone",
    State.BLOCKED: "alone",
    State.GONE: "alone",
}


class Listing(msgspec.Struct):
    """Sessions as ``/v1/sessions`` shows them, the slow ones first."""

    sessions: int = 0
    slow: int = 0
    shown: list[dict[str, Any]] = []


def row_of(session: Session, figures: Figures) -> dict[str, Any]:
    """Return what there is to say of one session."""
    member = session.member
    assert member is not None
    ledgers = figures.ledgers(member)
    return {
        "session": session.id,
        "address": session.address,
        "transport": member.encoding.transport,
        "tier": member.tier.name,
        "phase": member.phase,
        "encoding": member.encoding.name,
        "age_s": round(trio.current_time() - session.opened_at_s, 1),
        "state": SHOWN_STATES[member.state],
        "slow": why_slow(session),
        "names": {"quotes": len(member.names.quotes), "trades": len(member.names.trades)},
        "symbols": {"quotes": len(member.interest.symbols[0]), "trades": len(member.interest.symbols[1])},
        "unsent_bytes": session.unsent_bytes,
        "ledger": msgspec.to_builtins(ledgers),
    }


def why_slow(session: Session) -> str | None:
    """Return why a session is slow, None if it is not."""
    member = session.member
    assert member is not None
    if member.blocked and member.stuck_ns:
        stuck_s = trio.current_time() - member.stuck_ns / 1e9
        return f"its socket is full; nothing acknowledged for {max(stuck_s, 0):.1f} s"
    if member.blocked:
        return "its socket is full"
    if member.lagging:
        return f"it fell behind; {member.behind_conflated} quotes conflated so far"
    return None
