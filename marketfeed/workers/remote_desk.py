"""The desk of access control for the sessions of a worker: the engine has it and makes every call."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import trio

from marketfeed.errors import AccessError
from marketfeed.workers import desk_messages as calls
from marketfeed.workers.messages import AskDesk, CancelDesk, DeskAnswered, Down, LeaveDesk
from marketfeed.workers.requests import Requests

if TYPE_CHECKING:
    from marketfeed.access.desk import Holder
    from marketfeed.access.tickets import Redeemed, Use
    from marketfeed.workers.channel import Channel


class RemoteDesk:
    """A :class:`marketfeed.access.desk.Desk` over the control channel of a worker.

    All calls raise AccessError if the engine ends or cannot make them. A session whose :meth:`enter` is
    cancelled leaves.
    """

    def __init__(self, channel: Channel[Down]) -> None:
        self._channel = channel
        self._requests: Requests[DeskAnswered] = Requests()
        self._entered: set[str] = set()  # sessions that have to leave

    async def enter(self, session: str, holder: Holder) -> str | None:
        """Count a session; return the limit that forbids it, None if none does."""
        self._entered.add(session)
        try:
            limit = cast("str | None", await self._ask(calls.Enter(session, holder)))
        except BaseException:
            self.leave(session)
            raise
        if limit is not None:
            self._entered.discard(session)
        return limit

    async def hold(self, session: str, symbols: int) -> str | None:
        """Count the names in a session's subscription; return the limit that forbids so many."""
        return cast("str | None", await self._ask(calls.Hold(session, symbols)))

    def leave(self, session: str) -> None:
        """Count the session no more. Idempotent."""
        if session in self._entered:
            self._entered.discard(session)
            self._channel.send(LeaveDesk(session))

    async def issue(self, token: str, expires_s: float | None, address: str) -> str:
        """Return a new ticket for ``token``, which was verified."""
        return cast("str", await self._ask(calls.Issue(token, expires_s, address)))

    async def redeem(self, ticket: str, address: str, session: str, use: Use) -> Redeemed:
        """Use a ticket for ``session``."""
        return cast("Redeemed", await self._ask(calls.Redeem(ticket, address, session, use)))

    async def refresh_keys(self) -> bool:
        """Fetch the set of keys again, unless that was done a moment ago.

        Return whether the last fetch succeeded. What it brought is in force here when this returns.
        """
        return cast("bool", await self._ask(calls.RefreshKeys()))

    def answer(self, answered: DeskAnswered) -> None:
        """Pass on an answer of the engine."""
        self._requests.respond(answered.number, answered)

    def end(self) -> None:
        """End all calls, because the engine has ended."""
        self._requests.end()

    async def _ask(self, call: calls.Call) -> calls.Result:
        with self._requests.open() as request:
            self._channel.send(AskDesk(request.number, call))
            try:
                await request.wait()
            except trio.Cancelled:
                if request.response is None:
                    self._channel.send(CancelDesk(request.number))
                raise
        answered = request.response
        if answered is None:
            raise AccessError("the engine has ended")
        if answered.refusal:
            raise AccessError(answered.refusal)
        return answered.result
