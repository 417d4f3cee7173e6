"""Sessions as ``/v1/sessions`` lists them, with the reason if one is slow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import trio

from marketfeed.api.answers import LedgerRow
from marketfeed.api.operations import Channels, SessionRow
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


def row_of(session: Session, figures: Figures) -> SessionRow:
    """Return the row of one session."""
    member, alerts = session.member, session.alerts
    assert member is not None
    claims = None if session.grant is None else session.grant.claims
    return SessionRow(
        session=session.id,
        address=session.address,
        sub=msgspec.UNSET if claims is None else claims.sub,
        tenant=msgspec.UNSET if claims is None or not claims.tenant else claims.tenant,
        transport=member.encoding.transport,
        tier=member.tier.name,
        phase=member.phase,
        encoding=member.encoding.name,
        age_s=round(trio.current_time() - session.opened_at_s, 1),
        state=SHOWN_STATES[member.state],
        slow=why_slow(session),
        names=Channels(len(member.names.quotes), len(member.names.trades)),
        symbols=Channels(*map(len, member.interest.symbols)),
        alerts=0 if alerts is None else len(alerts.patterns),
        consumer=msgspec.UNSET if alerts is None or alerts.consumer is None else alerts.consumer,
        unsent_bytes=session.unsent_bytes,
        ledger=msgspec.convert(figures.ledgers(member), dict[str, LedgerRow], from_attributes=True),
    )


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
        return f"it fell behind; {member.lag_conflated} quotes conflated so far"
    return None
