"""Access control of an engine: keys, tenants and revocations, and the desk that knows all sessions.

    files, MARKETFEED_JWT_KEY, KeySet ──► keys ──┐
    auth.path ◄──► KeptRevocations ──────────────┴► Material ──► the session server, to all processes

What changes is passed on at once. An answer to ``POST /v1/revoke`` is sent after all processes have it.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
import trio

from marketfeed.access.access import Access
from marketfeed.access.desk import LocalDesk
from marketfeed.access.jwks import KeySet
from marketfeed.access.kept_revocations import KeptRevocations
from marketfeed.access.loading import is_address, load_material
from marketfeed.access.verifier import Verifier
from marketfeed.core.units import S
from marketfeed.errors import AccessError, CloseCode, ConfigError, RevocationError, StartError, gathered
from marketfeed.folders import file_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from marketfeed.access.material import Material
    from marketfeed.access.revocations import Kind, Revocation
    from marketfeed.config.schema import AuthConfig, Config, Loaded
    from marketfeed.core.breaker import BreakerStatistics
    from marketfeed.server.api import SessionServer

# Of a session whose ticket has opened another one. Its client must not reconnect: each would end the other.
REPLACED: Final = CloseCode.AUTHENTICATION

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Planned:
    """Checked settings, for :meth:`AccessControl.apply`. ``keys`` are without revocations."""

    config: Config
    keys: Material
    key_set: KeySet | None


class AccessControl:
    """The access control of one engine, whose ``auth.mode`` is not ``none``.

    ``server`` has to be set before :meth:`open`.
    """

    server: SessionServer

    def __init__(
        self,
        loaded: Loaded,
        wall_ns: Callable[[], int] = time.time_ns,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Read the keys; raises ConfigError with all mistakes."""
        self._wall_ns, self._environ = wall_ns, environ
        auth = loaded.config.auth
        self._in_force = Planned(loaded.config, checked_keys(loaded, environ), self._key_set(auth))
        self._kept = KeptRevocations(auth, self.now_s)
        self.desk = LocalDesk(auth.tenants, prefixes_of(auth), self.now_s, self._refresh, self._replaced)
        self._fetching = trio.CancelScope()

    def now_s(self) -> float:
        """Return the Unix time in s."""
        return self._wall_ns() / S

    def access(self) -> Access:
        """Return the access control of this process, for sessions that it serves itself."""
        return Access(self._in_force.config, self.material, self.desk, self._wall_ns)

    def equip(self, server: SessionServer) -> None:
        """Have ``server``, which is not started yet, use the keys, tenants and revocations in force."""
        server.renew_access(self._in_force.config.auth, self.material)

    @property
    def material(self) -> Material:
        """Return the keys and revocations in force."""
        return msgspec.structs.replace(self._in_force.keys, revocations=self._kept.every())

    @contextmanager
    def open(self) -> Iterator[None]:
        """Put the kept revocations in force, and keep their file open until the block ends.

        Raises StartError.
        """
        try:
            with self._kept.open():
                self._pass_on()
                yield
        except RevocationError as error:
            raise StartError(f"auth.path: {error}") from None

    async def run(self) -> None:
        """Fetch the set of keys, if the configuration names one by address; until cancelled."""
        while True:
            with trio.CancelScope() as self._fetching:  # cancelled by a reload that names another one
                key_set = self._in_force.key_set
                if key_set is None:
                    await trio.sleep_forever()
                else:
                    await key_set.run()

    # Reload.

    def planned(self, loaded: Loaded) -> Planned:
        """Read everything again, for :meth:`apply`; raises ConfigError with all mistakes."""
        now, auth = self._in_force, loaded.config.auth
        keys = checked_keys(loaded, self._environ)
        key_set = now.key_set
        if _source(auth) != _source(now.config.auth):
            key_set = self._key_set(auth)
        elif key_set is not None:
            keys = msgspec.structs.replace(keys, jwks=now.keys.jwks)
        return Planned(loaded.config, keys, key_set)

    def changed_by(self, planned: Planned) -> bool:
        """Return whether :meth:`apply` would change anything."""
        now = self._in_force
        return (now.config.auth, now.keys) != (planned.config.auth, planned.keys)

    def apply(self, planned: Planned) -> Planned:
        """Put ``planned`` in force in all processes; return what was in force before."""
        before = self._in_force
        if planned.key_set is before.key_set:  # which may have fetched another document since
            keys = msgspec.structs.replace(planned.keys, jwks=before.keys.jwks)
            planned = replace(planned, keys=keys)
        self._in_force = planned
        auth = self._kept.auth = planned.config.auth
        self.desk.renew(auth.tenants, prefixes_of(auth))
        if planned.key_set is not before.key_set:
            self._fetching.cancel()
        self._pass_on()
        return before

    # Revocations.

    def revocations(self) -> tuple[Revocation, ...]:
        """Return the revocations in force, oldest first."""
        return self._kept.every()

    async def revoke(self, kind: Kind, value: str, comment: str) -> tuple[Revocation, int]:
        """Revoke what was issued up to now; return that, and how many sessions it ends.

        It is on disk, and in force in all processes, when this returns. Raises RevocationError; then nothing
        is revoked.
        """
        revocation = await self._kept.add(kind, value, comment)
        ended = await self.server.revoke(self._in_force.config.auth, self.material, revocation)
        log.info("revoked", kind=kind, value=value, sessions=ended, comment=comment)
        return revocation, ended

    async def take_back(self, kind: Kind, value: str) -> bool:
        """Remove a revocation, durably; return False if there is none. Raises RevocationError."""
        found = await self._kept.take_back(kind, value)
        if found:
            self._pass_on()
            log.info("revocation taken back", kind=kind, value=value)
        return found

    # For operators.

    def troubles(self) -> dict[str, str]:
        """Return what is wrong, by kind of condition."""
        key_set = self._in_force.key_set
        found = {"jwks": None if key_set is None else key_set.problem, "revocations": self._kept.problem}
        return {kind: trouble for kind, trouble in found.items() if trouble}

    def fetches(self) -> BreakerStatistics | None:
        """Return how fetches of the set of keys went; None without an address."""
        key_set = self._in_force.key_set
        return None if key_set is None else key_set.statistics()

    # What others call back.

    async def _refresh(self) -> bool:
        key_set = self._in_force.key_set
        if key_set is None:
            return True
        await key_set.refresh()
        return key_set.problem is None

    def _replaced(self, session: str) -> None:
        self.server.end_session(session, REPLACED)

    def _key_set(self, auth: AuthConfig) -> KeySet | None:
        return KeySet(auth, self._fetched) if _source(auth) else None

    def _fetched(self, document: bytes) -> None:
        now = self._in_force
        keys = msgspec.structs.replace(now.keys, jwks=document)
        self._in_force = replace(now, keys=keys)
        self._pass_on()

    def _pass_on(self) -> None:
        self.equip(self.server)


def checked_keys(loaded: Loaded, environ: Mapping[str, str]) -> Material:
    """Return the keys that a configuration names; raises ConfigError with all mistakes in ``[auth]``.

    Missing keys of the configuration are left to config/rules.py.
    """
    config = loaded.config
    auth = config.auth
    found: list[str] = []
    with gathered(found):
        keys = load_material(auth, environ)
        if auth.mode != "jwt" or auth.algorithm is not None:
            try:
                Verifier(config, keys)
            except AccessError as error:
                raise ConfigError(f"auth.jwks: {error}") from None
    if problem := file_problem(Path(auth.path)):
        found.append(f"auth.path: {problem}")
    if found:
        raise ConfigError(*found)
    return keys


def prefixes_of(auth: AuthConfig) -> tuple[int, int] | None:
    """Return the bits of IPv4 and IPv6 addresses that a ticket is bound to; None if it is bound to none."""
    match auth.ticket_prefixes:
        case [v4, v6]:
            return v4, v6
        case _:
            return None


def _source(auth: AuthConfig) -> tuple[object, ...]:
    """Return what the set of keys is fetched by; () if it is not fetched."""
    if auth.mode != "jwt" or auth.jwks is None or not is_address(auth.jwks):
        return ()
    return auth.jwks, auth.algorithm, auth.jwks_refresh_s
