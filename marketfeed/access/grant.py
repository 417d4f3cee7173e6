"""A grant: what a valid key or token gives its holder, and for how long. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from marketfeed.access.claims import Claims
    from marketfeed.access.entitlement import Entitlement

SKEW_S: Final = 30.0  # between our clock and that of who issued a token
GRACE_S: Final = 25.0  # after a token's expiry, for clients that renew late


@dataclass(frozen=True, slots=True)
class Grant:
    """What a valid key or token gives. Times are Unix times in seconds.

    ``token_id`` is the token's `jti`, or the id of the key; "" if it has none. ``issued_s`` is None if the
    token does not say when it was issued, and ``expires_s`` for a key.
    """

    claims: Claims
    entitlement: Entitlement
    token_id: str = ""
    issued_s: float | None = None
    expires_s: float | None = None

    @property
    def holder(self) -> str:
        """Return tenant and `sub` as one text, such as ``["desk-3","ann"]``, which no other pair has."""
        return msgspec.json.encode((self.claims.tenant, self.claims.sub)).decode()

    def ttl_s(self, now_s: float) -> int | None:
        """Return for how many seconds it is good; None: until it is revoked."""
        return None if self.expires_s is None else max(0, int(self.expires_s - now_s))

    def ends_s(self, presented_s: float) -> float | None:
        """Return when a session ends that presented it at ``presented_s``; None: it does not."""
        if self.expires_s is None:
            return None
        late_s = self.expires_s + GRACE_S
        return late_s if presented_s < late_s else self.expires_s + SKEW_S
