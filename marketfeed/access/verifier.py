"""The verifier of one process: keys and tokens in, grants out; revocations are looked up each time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from marketfeed.access.claims import claims_of
from marketfeed.access.entitlement import Entitlement, entitlement_of
from marketfeed.access.grant import SKEW_S, Grant
from marketfeed.access.revocations import Revocations
from marketfeed.access.secrets import entry_of
from marketfeed.access.tokens import MAX_TOKEN, TokenVerifier
from marketfeed.errors import AccessError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from marketfeed.access.claims import Claims
    from marketfeed.access.material import KeyEntry, Material
    from marketfeed.config.schema import AuthConfig, Config

KEPT: Final = 4096  # grants of tokens that were verified: clients send theirs again with each request


class Verifier:
    """Verifies what clients present, by ``[auth]`` and the tiers of ``config`` and by ``material``."""

    def __init__(self, config: Config, material: Material) -> None:
        """Raise ConfigError if a key is not one for the configured algorithm."""
        auth = config.auth
        self._auth, self._tiers = auth, config.tiers
        self._defaults = defaults_of(auth)
        self._tokens = TokenVerifier(auth, material) if auth.mode == "jwt" else None
        self._entries: Mapping[str, KeyEntry] = {entry.id: entry for entry in material.keys}
        self._revocations = Revocations(material.revocations)
        self._kept: dict[str, Grant] = {}  # by what was presented, oldest first
        self._entitlements: dict[Claims, Entitlement] = {}  # shared, as many sessions have the same claims

    def verify(self, presented: str, now_s: float) -> Grant:
        """Return what a key or token gives; raises AccessError, UnknownKeyError among them."""
        if len(presented) > MAX_TOKEN:
            raise AccessError(f"the token has more than {MAX_TOKEN} characters")
        grant = self._kept.get(presented)
        if grant is None:
            grant = self._granted(presented, now_s)
            if self._tokens is not None and self._tokens.rotates:
                self._check(grant, now_s)
                return grant  # and do not keep it: its key may be the one that is accepted for some time only
            if len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[presented] = grant
        self._check(grant, now_s)
        return grant

    def again(self, grant: Grant, now_s: float) -> Grant:
        """Return what ``grant`` is by the present keys, tenants and revocations; raises AccessError.

        A token's signature is not verified again: it holds until it expires or is revoked.
        """
        claims = grant.claims
        if self._tokens is None:
            entry = self._entries.get(grant.token_id)
            if entry is None:
                raise AccessError("the key was revoked")
            claims = self._claims_of(entry)
        renewed = Grant(claims, self._entitled(claims), grant.token_id, grant.issued_s, grant.expires_s)
        self._check(renewed, now_s)
        return renewed

    def _granted(self, presented: str, now_s: float) -> Grant:
        if self._tokens is None:
            entry = entry_of(presented, self._entries)
            claims = self._claims_of(entry)
            return Grant(claims, self._entitled(claims), entry.id, entry.created_s)
        payload = self._tokens.verify(presented, now_s)
        claims = claims_of(payload, self._auth.claims, self._defaults)
        return Grant(
            claims,
            self._entitled(claims),
            token_id=_text(payload, "jti"),
            issued_s=None if payload.get("iat") is None else float(payload["iat"]),
            expires_s=float(payload["exp"]),
        )

    def _claims_of(self, entry: KeyEntry) -> Claims:
        return claims_of(entry.claims, None, self._defaults)

    def _entitled(self, claims: Claims) -> Entitlement:
        found = self._entitlements.get(claims)
        if found is None:
            if len(self._entitlements) >= KEPT:
                self._entitlements.clear()
            found = self._entitlements[claims] = entitlement_of(claims, self._auth.tenants, self._tiers)
        return found

    def _check(self, grant: Grant, now_s: float) -> None:
        if grant.expires_s is not None and now_s > grant.expires_s + SKEW_S:
            raise AccessError("the token has expired")
        if self._revocations.revokes(grant):
            raise AccessError("revoked")


def defaults_of(auth: AuthConfig) -> dict[str, Any]:
    """Return ``[auth.defaults]`` as claims."""
    found = msgspec.structs.asdict(auth.defaults)
    return {name: value for name, value in found.items() if value is not None}


def _text(payload: Mapping[str, Any], claim: str) -> str:
    value = payload.get(claim, "")
    if not isinstance(value, str) or len(value) > 256 or not value.isprintable():
        raise AccessError(f"the token's {claim} is no printable text of at most 256 characters")
    return value
