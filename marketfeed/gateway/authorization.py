"""Authorization of HTTP requests: `Authorization: Bearer`, or a ticket where a browser cannot send a header.

A token in a URL is refused: URLs end in logs, histories and referrers. It is repeated nowhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketfeed.access.tickets import TICKET_S
from marketfeed.api.answers import TicketAnswer
from marketfeed.errors import AccessError, ErrorCode, KeysUnavailableError, RequestError
from marketfeed.gateway.http import Request, Response, error_response, json_response
from marketfeed.gateway.query import LAST_EVENT_ID, check_keys

if TYPE_CHECKING:
    from marketfeed.access.access import Access
    from marketfeed.access.grant import Grant
    from marketfeed.access.tickets import Use
    from marketfeed.gateway.limits import Counters

TICKET: Final = "ticket"
# Names under which clients of other services put a token into a URL.
_TOKENS: Final = frozenset(
    {
        "token",
        "access_token",
        "auth_token",
        "id_token",
        "jwt",
        "bearer",
        "authorization",
        "api_key",
        "apikey",
        "key",
    }
)


class Authorizer:
    """Authorizes the requests of one service; without ``access`` everybody may do everything."""

    def __init__(self, access: Access | None, counters: Counters) -> None:
        self._access = access
        self._counters = counters

    def refuse(self, request: Request) -> Response | None:
        """Return 400 for a request with a token in its URL, judged before anything else of the URL."""
        if self._access is None or _TOKENS.isdisjoint(key.lower() for key in request.query):
            return None
        self._counters.authentications["in the URL"] += 1
        what = "a token does not belong in a URL: Authorization: Bearer, or a ticket of POST /v1/tickets"
        return error_response(400, what)

    async def grant(self, request: Request) -> Grant | None:
        """Return what the token of a request gives, None without access control. Raises RequestError."""
        if self._access is None:
            return None
        token = self._token(request)
        if token is None:
            self._counters.authentications["missing"] += 1
            raise RequestError(ErrorCode.NOT_AUTHENTICATED, "a token is needed: Authorization: Bearer")
        return await self._verified(token)

    def check(self, grant: Grant | None) -> None:
        """Raise RequestError if ``grant`` does not hold any more, after a wait."""
        if self._access is None or grant is None:
            return
        try:
            now = self._access.again(grant)
        except AccessError as error:
            raise self._failed(error) from None
        if now.entitlement != grant.entitlement:
            raise RequestError(ErrorCode.NOT_ENTITLED, "what is entitled has changed: ask again")

    async def opening(self, request: Request, session: str, kept: bool) -> Grant | None:
        """Return what the token or ticket gives that is to open ``session``; None if there is neither.

        A ticket is ``kept`` if the client may open the session again with it.
        """
        if self._access is None:
            return None
        token, ticket = self._token(request), request.first(TICKET, "")
        if token is not None and ticket:
            raise RequestError(ErrorCode.SYNTAX, "ticket: not together with Authorization")
        if ticket:
            last = request.header(b"last-event-id") or any(request.first(k, "") for k in LAST_EVENT_ID)
            use: Use = ("reopen" if last else "open") if kept else "once"
            try:
                redeemed = await self._access.desk.redeem(ticket[:100], request.address, session, use)
            except AccessError as error:
                raise self._failed(error) from None
            token = redeemed.token
        return None if token is None else await self._verified(token)

    async def issue(self, request: Request) -> Response:
        """Answer ``POST /v1/tickets``."""
        check_keys(request.query, ())
        access = self._access
        if access is None:
            raise RequestError(ErrorCode.SYNTAX, "no ticket is needed: auth.mode is none")
        grant, token = await self.grant(request), self._token(request)
        assert grant is not None
        assert token is not None
        try:
            ticket = await access.desk.issue(token, grant.expires_s, request.address)
        except AccessError as error:
            raise RequestError(ErrorCode.TOO_MANY_REQUESTS, str(error)) from None
        return json_response(TicketAnswer(ticket, int(TICKET_S)), 201)

    def _token(self, request: Request) -> str | None:
        header = request.header(b"authorization")
        if header is None:
            return None
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            self._counters.authentications["failed"] += 1
            raise RequestError(ErrorCode.NOT_AUTHENTICATED, "Authorization: Bearer and a token")
        return token.strip()

    async def _verified(self, token: str) -> Grant:
        assert self._access is not None
        try:
            grant = await self._access.verify(token)
        except AccessError as error:
            raise self._failed(error) from None
        self._counters.authentications["ok"] += 1
        return grant

    def _failed(self, error: AccessError) -> RequestError:
        if isinstance(error, KeysUnavailableError):
            self._counters.authentications["unavailable"] += 1
            return RequestError(ErrorCode.INTERNAL, str(error))
        self._counters.authentications["failed"] += 1
        return RequestError(ErrorCode.NOT_AUTHENTICATED, f"authentication failed: {error}")
