"""Calls of :class:`marketfeed.access.desk.Desk` that a worker passes to the engine. Pure.

They hold tokens and tickets, so the repr of a call and of its answer shows none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import msgspec

from marketfeed.access.desk import Holder
from marketfeed.access.tickets import Redeemed, Use

if TYPE_CHECKING:
    from marketfeed.access.desk import Desk


class _Call(msgspec.Struct, frozen=True, tag=True, array_like=True):
    def __repr__(self) -> str:
        return type(self).__name__


class Enter(_Call, frozen=True):
    """:meth:`Desk.enter`."""

    session: str
    holder: Holder


class Hold(_Call, frozen=True):
    """:meth:`Desk.hold`."""

    session: str
    symbols: int


class Issue(_Call, frozen=True):
    """:meth:`Desk.issue`."""

    token: str
    expires_s: float | None
    address: str


class Redeem(_Call, frozen=True):
    """:meth:`Desk.redeem`."""

    ticket: str
    address: str
    session: str
    use: Use


class RefreshKeys(_Call, frozen=True):
    """:meth:`Desk.refresh_keys`."""


Call = Enter | Hold | Issue | Redeem | RefreshKeys
Result = str | bool | Redeemed | None


async def perform(call: Call, desk: Desk) -> Result:
    """Make the call and return its result. Raises AccessError."""
    match call:
        case Enter(session, holder):
            return await desk.enter(session, holder)
        case Hold(session, symbols):
            return await desk.hold(session, symbols)
        case Issue(token, expires_s, address):
            return await desk.issue(token, expires_s, address)
        case Redeem(ticket, address, session, use):
            return await desk.redeem(ticket, address, session, use)
        case RefreshKeys():
            return await desk.refresh_keys()
        case _:
            assert_never(call)
