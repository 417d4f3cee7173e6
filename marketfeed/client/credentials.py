"""The token of a feed: a fixed one, or those of a callback, which is asked again before each expires.

needed ──► due ──► the front calls the callback ──► taken: `auth` with it | refused: asked again, later
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from marketfeed.core.backoff import Backoff

MARGIN_S: Final = 60.0  # before the end of a token's life, at most a fifth of it
_NEVER: Final = float("inf")


class Credentials:
    """The present token, and when the next one is needed.

    ``renewable``: there is a callback. ``due``: it is to be called now.
    """

    def __init__(self, token: str | None, *, renewable: bool, backoff: Backoff) -> None:
        self.token = token
        self.renewable = renewable
        self.due = False
        self.renew_s = _NEVER  # when the callback is to be called
        self._ends_s = _NEVER
        self._backoff = backoff

    def need(self, now_s: float) -> None:
        """A connection is about to begin: the callback is due if there is no token that is still valid."""
        if not self.renewable:
            self.due, self.renew_s = False, _NEVER
        elif self.token is None or now_s >= min(self._ends_s, self.renew_s):
            self.due, self.renew_s = True, _NEVER

    def tick(self, now_s: float) -> None:
        """Have the callback called if its time has come."""
        if now_s >= self.renew_s:
            self.due, self.renew_s = True, _NEVER

    def take(self, token: str) -> None:
        """Take what the callback has returned."""
        self.token, self.due = token, False
        self._ends_s = self.renew_s = _NEVER  # until the engine says how long it is good for

    def failed(self, now_s: float) -> None:
        """The callback has failed, or the engine does not take the token; ask again after a delay."""
        self.due = False
        self.renew_s = now_s + self._backoff.next_s()

    def accepted(self, ttl_s: float | None, now_s: float) -> None:
        """The engine has accepted the token, for ``ttl_s`` or without end."""
        self._backoff.reset()
        if ttl_s is not None and self.renewable:
            self._ends_s = now_s + ttl_s
            self.renew_s = now_s + max(ttl_s - min(MARGIN_S, ttl_s / 5), 0.0)

    def discard(self) -> None:
        """The token is not valid any more."""
        if self.renewable:
            self.token = None
