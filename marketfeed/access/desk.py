"""What one process knows about all sessions of all workers: how many each holder and tenant has; tickets.

gateway of each process ── enter, hold, leave, issue, redeem ──► Desk, in the engine
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import msgspec

from marketfeed.access.tickets import Redeemed, Tickets, Use
from marketfeed.access.usage import User

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from marketfeed.config.schema import TenantConfig

REPLACED: Final = 10_000  # sessions that may enter late, after all those that were replaced since

T = TypeVar("T", bound=Hashable)


class Holder(msgspec.Struct, frozen=True):
    """Whose a session is, and how many sessions its claims allow."""

    sub: str
    tenant: str
    max_sessions: int | None = None


class Desk(Protocol):
    """The desk, from any process."""

    async def enter(self, session: str, holder: Holder) -> str | None:
        """Count a session; return the limit that forbids it, None if none does."""
        ...

    async def hold(self, session: str, symbols: int) -> str | None:
        """Count the names in a session's subscription; return the limit that forbids so many."""
        ...

    def leave(self, session: str) -> None:
        """Count the session no more. Idempotent."""
        ...

    async def issue(self, token: str, expires_s: float | None, address: str) -> str:
        """Return a new ticket for ``token``, which was verified; raises AccessError."""
        ...

    async def redeem(self, ticket: str, address: str, session: str, use: Use) -> Redeemed:
        """Use a ticket for ``session``. Raises AccessError."""
        ...

    async def refresh_keys(self) -> bool:
        """Fetch the set of keys again, unless that was done a moment ago.

        Return whether the last fetch succeeded.
        """
        ...


class LocalDesk:
    """The desk itself. ``now_s`` is the Unix clock, ``refresh`` is :meth:`refresh_keys`.

    ``on_replaced`` is called with a session that has to end because its ticket has opened another one.
    """

    def __init__(
        self,
        tenants: Mapping[str, TenantConfig],
        prefixes: tuple[int, int] | None,
        now_s: Callable[[], float],
        refresh: Callable[[], Awaitable[bool]],
        on_replaced: Callable[[str], None] = lambda session: None,
    ) -> None:
        self.tenants = tenants
        self._tickets = Tickets(prefixes)
        self._now_s = now_s
        self._refresh = refresh
        self._on_replaced = on_replaced
        # Called with a user, and the number of sessions that it has from now on.
        self.on_sessions: Callable[[User, int], None] = lambda user, number: None
        self._sessions: dict[str, Holder] = {}
        self._symbols: dict[str, int] = {}  # by session
        self._by_sub: Counter[tuple[str, str]] = Counter()  # sessions by tenant and sub
        self._by_tenant: Counter[str] = Counter()
        self._held: Counter[str] = Counter()  # symbols by tenant
        # Sessions whose tickets have opened others before they entered, oldest first.
        self._replaced: dict[str, None] = {}

    def __len__(self) -> int:
        """Return the number of sessions."""
        return len(self._sessions)

    def renew(self, tenants: Mapping[str, TenantConfig], prefixes: tuple[int, int] | None) -> None:
        """Use other bounds of tenants, and other prefixes of addresses for tickets, from now on."""
        self.tenants = tenants
        self._tickets.prefixes = prefixes

    @property
    def tickets(self) -> int:
        """Return the number of tickets that may still be used."""
        return len(self._tickets)

    async def enter(self, session: str, holder: Holder) -> str | None:
        """Count a session; return the limit that forbids it, None if none does."""
        most, tenant = holder.max_sessions, self.tenants.get(holder.tenant)
        if session in self._sessions:
            return None
        if session in self._replaced:
            del self._replaced[session]
            return "its ticket has opened another session"
        if most is not None and self._by_sub[holder.tenant, holder.sub] >= most:
            return f"max_sessions of the token: {most}"
        of_tenant = None if tenant is None else tenant.max_sessions
        if of_tenant is not None and self._by_tenant[holder.tenant] >= of_tenant:
            return f"max_sessions of the tenant: {of_tenant}"
        self._sessions[session] = holder
        self._by_sub[holder.tenant, holder.sub] += 1
        self._by_tenant[holder.tenant] += 1
        self._tell(holder)
        return None

    async def hold(self, session: str, symbols: int) -> str | None:
        """Count the names in a session's subscription; return the limit that forbids so many."""
        holder = self._sessions.get(session)
        if holder is None:
            return None
        tenant, had = self.tenants.get(holder.tenant), self._symbols.get(session, 0)
        most = None if tenant is None else tenant.max_symbols
        if most is not None and symbols > had and self._held[holder.tenant] + symbols - had > most:
            return f"max_symbols of the tenant: {most}"
        self._held[holder.tenant] += symbols - had
        self._symbols[session] = symbols
        return None

    def leave(self, session: str) -> None:
        """Count the session no more. Idempotent."""
        holder = self._sessions.pop(session, None)
        if holder is None:
            return
        _take(self._by_sub, (holder.tenant, holder.sub), 1)
        _take(self._by_tenant, holder.tenant, 1)
        _take(self._held, holder.tenant, self._symbols.pop(session, 0))
        self._tell(holder)

    def _tell(self, holder: Holder) -> None:
        self.on_sessions(User(holder.tenant, holder.sub), self._by_sub[holder.tenant, holder.sub])

    async def issue(self, token: str, expires_s: float | None, address: str) -> str:
        """Return a new ticket for ``token``, which was verified; raises AccessError."""
        return self._tickets.issue(token, expires_s, address, self._now_s())

    async def redeem(self, ticket: str, address: str, session: str, use: Use) -> Redeemed:
        """Use a ticket for ``session``, as ``use`` says. Raises AccessError.

        A session that it opened before is not counted any more from now on, and has to end.
        """
        redeemed = self._tickets.redeem(ticket, address, session, use, self._now_s())
        if redeemed.before in self._sessions:
            self.leave(redeemed.before)
            self._on_replaced(redeemed.before)
        elif redeemed.before:
            self._replaced[redeemed.before] = None
            if len(self._replaced) > REPLACED:
                del self._replaced[next(iter(self._replaced))]
        return redeemed

    async def refresh_keys(self) -> bool:
        """Fetch the set of keys again, unless that was done a moment ago.

        Return whether the last fetch succeeded.
        """
        return await self._refresh()


def _take(counts: Counter[T], key: T, number: int) -> None:
    counts[key] -= number
    if counts[key] <= 0:
        del counts[key]
