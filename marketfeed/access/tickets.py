"""Tickets: what a browser puts into the URL of an event stream or WebSocket, in place of a token. Pure.

A ticket opens one session within TICKET_S. An ``EventSource`` reconnects to the same URL by itself, with
``Last-Event-ID``: so the ticket of an event stream reopens it, one at a time, until its token expires.
"""

from __future__ import annotations

import heapq
import secrets
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from marketfeed.core.addresses import same_network
from marketfeed.errors import AccessError

TICKET_S: Final = 30.0  # until it has to be used first
USED_S: Final = 86_400.0  # for which one is kept whose key does not expire
MOST: Final = 100_000  # at a time; the oldest makes room for the next one
MOST_EACH: Final = 100  # likewise of one token
Use = Literal[
    "once", "open", "reopen"
]  # a WebSocket; an event stream; the latter, which may be its first use


class Redeemed(msgspec.Struct, frozen=True):
    """What a ticket stands for: a token, and the session that it opened before, which ends ("": none)."""

    token: str
    before: str = ""


@dataclass(slots=True)
class _Ticket:
    token: str
    ends_s: float  # of the token
    address: str
    issued_s: float
    session: str = ""  # that it opened


class Tickets:
    """The tickets that may still be used. Times are Unix times in s.

    With ``prefixes``, a ticket is good for addresses that agree with that of its issue in so many bits, of
    IPv4 and of IPv6.
    """

    def __init__(self, prefixes: tuple[int, int] | None = None) -> None:
        self.prefixes = prefixes
        self._all: dict[str, _Ticket] = {}
        self._due: list[tuple[float, str]] = []  # when to forget a ticket, unless it was used; a heap
        self._of: dict[str, dict[str, None]] = {}  # tickets by token, oldest first

    def __len__(self) -> int:
        return len(self._all)

    def issue(self, token: str, expires_s: float | None, address: str, now_s: float) -> str:
        """Return a new ticket for ``token``, which was verified."""
        self._forget(now_s)
        mine = self._of.get(token, {})
        if len(mine) >= MOST_EACH:
            self._drop(next(iter(mine)))
        if len(self._all) >= MOST:
            self._drop(next(iter(self._all)))
        text = secrets.token_urlsafe(32)
        ends_s = now_s + USED_S if expires_s is None else expires_s
        self._all[text] = _Ticket(token, ends_s, address, now_s)
        self._of.setdefault(token, {})[text] = None
        heapq.heappush(self._due, (now_s + TICKET_S, text))
        return text

    def redeem(self, text: str, address: str, session: str, use: Use, now_s: float) -> Redeemed:
        """Use a ticket for ``session``. Raises AccessError."""
        self._forget(now_s)
        ticket = self._all.get(text)
        if ticket is None:
            raise AccessError("no such ticket, or it has expired")
        if self.prefixes is not None and not same_network(address, ticket.address, self.prefixes):
            raise AccessError("the ticket was issued to another address")
        if ticket.session and use != "reopen":
            raise AccessError("the ticket was used")
        before, ticket.session = ticket.session, session
        if use == "once":
            self._drop(text)
        return Redeemed(ticket.token, before)

    def _forget(self, now_s: float) -> None:
        """Forget tickets that were not used in time, and those whose token has expired."""
        while self._due and self._due[0][0] < now_s:
            text = heapq.heappop(self._due)[1]
            ticket = self._all.get(text)
            if ticket is None:  # made room for a newer one
                continue
            if ticket.session and ticket.ends_s >= now_s:
                heapq.heappush(self._due, (ticket.ends_s, text))
            else:
                self._drop(text)

    def _drop(self, text: str) -> None:
        token = self._all.pop(text).token
        del self._of[token][text]
        if not self._of[token]:
            del self._of[token]
