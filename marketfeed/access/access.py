"""Access control of one process: verifies what clients present, and tells sessions when that changes.

engine: AccessControl ── Material ──► Access of each process ── Grant ──► sessions
        LocalDesk ◄── enter, hold, leave, issue, redeem ── RemoteDesk of each worker, or directly
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketfeed.access.tokens import UnknownKeyError
from marketfeed.access.verifier import Verifier
from marketfeed.errors import KeysUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.access.desk import Desk
    from marketfeed.access.grant import Grant
    from marketfeed.access.material import Material
    from marketfeed.config.schema import Config, Mode


class Access:
    """``wall_ns`` is the Unix clock. Raises ConfigError if a key is not one for the configured algorithm."""

    def __init__(self, config: Config, material: Material, desk: Desk, wall_ns: Callable[[], int]) -> None:
        self.desk = desk
        self._config = config
        self._material = material
        self._wall_ns = wall_ns
        self._verifier = Verifier(config, material)
        self.on_change: list[Callable[[], None]] = []  # called after each change: grants may be others now

    @property
    def mode(self) -> Mode:
        """Return ``auth.mode``."""
        return self._config.auth.mode

    @property
    def material(self) -> Material:
        """Return the keys and revocations in force."""
        return self._material

    def now_s(self) -> float:
        """Return the Unix time in s."""
        return self._wall_ns() / 1e9

    def renew(self, config: Config, material: Material) -> None:
        """Use other keys, tenants or revocations from now on; raises ConfigError, then nothing changes."""
        if (config.auth, config.tiers) == (
            self._config.auth,
            self._config.tiers,
        ) and material == self._material:
            return
        self._verifier = Verifier(config, material)
        self._config, self._material = config, material
        for tell in self.on_change:
            tell()

    async def verify(self, presented: str) -> Grant:
        """Return what a key or token gives; raises AccessError.

        If the set of keys does not have the token's, it is fetched again first, but not too often. Raises
        KeysUnavailableError if it still has not, and the last fetch failed: the set may have the key.
        """
        try:
            return self._verifier.verify(presented, self.now_s())
        except UnknownKeyError:
            current = await self.desk.refresh_keys()
        try:
            return self._verifier.verify(presented, self.now_s())
        except UnknownKeyError:
            if current:
                raise
            raise KeysUnavailableError("keys are not available yet: try again") from None

    def again(self, grant: Grant) -> Grant:
        """Return what ``grant`` is now, by the present keys, tenants and revocations; raises AccessError."""
        return self._verifier.again(grant, self.now_s())

    def bounds_symbols(self, grant: Grant) -> bool:
        """Return whether names are counted for the tenant of ``grant``: a reload may bound them any time."""
        return grant.claims.tenant in self._config.auth.tenants
