"""Whether a request may use the admin port, by its bearer token. Pure. Source: RFC 6750, section 2.1."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from marketfeed.secret import Secret

MISSING: Final = "admin token missing"
WRONG: Final = "admin token wrong"
_SCHEME: Final = "bearer"


class AdminToken:
    """The token that requests have to bear; without one, all are admitted."""

    def __init__(self, token: Secret | None) -> None:
        self.replace(token)

    def replace(self, token: Secret | None) -> None:
        """Require ``token`` from now on."""
        self._digest = None if token is None else _digest(token.reveal())

    @property
    def needed(self) -> bool:
        """Return whether requests have to bear a token."""
        return self._digest is not None

    def refusal(self, authorization: str | None) -> str | None:
        """Return why a request with this Authorization header is refused; None if it is admitted."""
        if self._digest is None:
            return None
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != _SCHEME:
            return MISSING
        # In constant time, and independent of the length, since digests are compared.
        return None if hmac.compare_digest(_digest(given.strip(" ")), self._digest) else WRONG


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("latin-1")).digest()
