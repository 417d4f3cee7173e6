"""Authentication of a session: what it presents at its start, and renewals while it lives.

none yet ── auth, header or ticket ──► granted ── auth again ──► granted otherwise ──► expired, revoked
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketfeed.access.desk import Holder
from marketfeed.errors import AccessError, CloseCode, ErrorCode, KeysUnavailableError, RequestError
from marketfeed.gateway.protocol import authenticated

if TYPE_CHECKING:
    from marketfeed.access.access import Access
    from marketfeed.access.grant import Grant
    from marketfeed.fanout.interest import Names
    from marketfeed.gateway.protocol import RequestId
    from marketfeed.gateway.session import Session

MAX_FAILURES: Final = 3  # in a row; then the session ends


class Authentication:
    """Authenticates one session with ``access``."""

    __slots__ = ("_access", "_failures", "_session", "timeout_code")

    def __init__(self, session: Session, access: Access) -> None:
        self._session, self._access = session, access
        self._failures = 0
        self.timeout_code = CloseCode.AUTHENTICATION  # if nothing valid is presented in time

    async def present(self, token: str, id_: RequestId) -> None:
        """Authenticate the session, or renew what it holds. Raises RequestError."""
        session = self._session
        try:
            grant = await self._access.verify(token)
        except KeysUnavailableError as error:
            session.counters.authentications["unavailable"] += 1
            self.timeout_code = CloseCode.INTERNAL
            raise RequestError(ErrorCode.INTERNAL, str(error), id_) from None
        except AccessError as error:
            self._failures += 1
            self.timeout_code = CloseCode.AUTHENTICATION
            session.counters.authentications["failed"] += 1
            if self._failures >= MAX_FAILURES:
                session.end(CloseCode.AUTHENTICATION)
            raise RequestError(
                ErrorCode.AUTHENTICATION_FAILED, f"authentication failed: {error}", id_
            ) from None
        self._failures = 0
        session.counters.authentications["ok"] += 1
        held = session.grant
        if held is not None and (held.claims.sub, held.claims.tenant) != (
            grant.claims.sub,
            grant.claims.tenant,
        ):
            raise RequestError(
                ErrorCode.ALREADY_AUTHENTICATED, "this session is another subject's: open another", id_
            )
        if held is None:
            await self.admit(grant, id_)
            grant = self.again(grant, id_)
        await session.renew(grant, id_)

    async def admit(self, grant: Grant, id_: RequestId = None) -> None:
        """Count the session with those of its holder. Raises RequestError, and ends the session, if over."""
        claims = grant.claims
        limit = await self._access.desk.enter(
            self._session.id, Holder(claims.sub, claims.tenant, claims.max_sessions)
        )
        if limit is not None:
            self._session.end(CloseCode.OVERLOADED)
            raise RequestError(ErrorCode.CONNECTION_LIMIT, f"too many sessions: {limit}", id_)

    def again(self, grant: Grant, id_: RequestId = None) -> Grant:
        """Return what ``grant`` is now; raises RequestError, and ends the session, if it was revoked."""
        try:
            return self._access.again(grant)
        except AccessError as error:
            self._session.end(CloseCode.REVOKED)
            raise RequestError(
                ErrorCode.AUTHENTICATION_FAILED, f"authentication failed: {error}", id_
            ) from None

    async def hold(self, grant: Grant, names: Names, id_: RequestId = None) -> None:
        """Count the names in the session's subscription with those of its tenant. Raises RequestError."""
        if not self._access.bounds_symbols(grant):
            return
        limit = await self._access.desk.hold(self._session.id, len(names.distinct()))
        if limit is not None:
            raise RequestError(ErrorCode.SYMBOL_LIMIT, limit, id_)

    async def release(self, grant: Grant, names: Names) -> None:
        """Count the names that are left in the subscription: fewer than before, so none is refused."""
        if self._access.bounds_symbols(grant):
            await self._access.desk.hold(self._session.id, len(names.distinct()))

    def leave(self) -> None:
        """Count the session no more. Idempotent."""
        self._access.desk.leave(self._session.id)

    def answer(self, grant: Grant, tier: str, id_: RequestId) -> bytes:
        """Return the answer to a successful ``auth``."""
        return authenticated(tier, id_, grant.ttl_s(self._access.now_s()))
