"""Access control for tests: tokens of a known secret, and keys."""

from __future__ import annotations

import time
from typing import Any

import jwt
import msgspec

from marketfeed.access.access import Access
from marketfeed.access.desk import LocalDesk
from marketfeed.access.material import Material
from marketfeed.access.revocations import Revocation
from marketfeed.config.schema import AuthConfig, Config, DefaultsConfig, TenantConfig, TierConfig

SECRET = "a secret of tests, 32 bytes or more"
TIERS = {
    "vip": TierConfig(0, "every"),
    "premium": TierConfig(20, "latest"),
}


class Control:
    """Access control with a clock that a test may set, and what an operator may change."""

    def __init__(self, tenants: dict[str, TenantConfig] | None = None, **auth: Any) -> None:
        self.fetched = True  # whether the last fetch of the set of keys succeeded
        self.config = Config(
            auth=AuthConfig(
                mode="jwt", algorithm="HS256", tenants=tenants or {}, defaults=DefaultsConfig(), **auth
            ),
            tiers=TIERS,
        )
        self.material = Material(key=SECRET.encode())
        self.passed_s = 0.0
        self.desk = LocalDesk(tenants or {}, None, self.now_s, self._refresh)
        self.access = Access(self.config, self.material, self.desk, lambda: int(self.now_s() * 1e9))

    def now_s(self) -> float:
        return time.time() + self.passed_s

    async def _refresh(self) -> bool:
        """Have nothing to fetch."""
        return self.fetched

    def revoke(self, kind: Any, value: str) -> None:
        more = Revocation(kind, value, self.now_s())
        self.material = msgspec.structs.replace(self.material, revocations=(*self.material.revocations, more))
        self.access.renew(self.config, self.material)

    def bound(self, **tenants: TenantConfig) -> None:
        """Set the bounds of tenants."""
        auth = msgspec.structs.replace(self.config.auth, tenants=tenants)
        self.config = msgspec.structs.replace(self.config, auth=auth)
        self.desk.tenants = tenants
        self.access.renew(self.config, self.material)

    def token(self, symbols: list[str], ttl_s: float = 3600, **claims: Any) -> str:
        """Return a token."""
        now_s = self.now_s()
        payload = {"sub": "ann", "tier": "vip", "iat": now_s, "exp": now_s + ttl_s, "symbols": symbols}
        return jwt.encode({**payload, **claims}, SECRET, algorithm="HS256")


def bearer(token: str) -> list[tuple[bytes, bytes]]:
    """Return the header of a request with a token."""
    return [(b"Authorization", f"Bearer {token}".encode())]
