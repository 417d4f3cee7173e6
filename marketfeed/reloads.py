"""Reloads of the configuration while the engine runs, on SIGHUP: applied as a whole, or refused.

files ──load──► checks, plan of feeds, secrets ──► access ──► server ──► feeds
└─ a mistake: nothing changes
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import structlog
import trio

from marketfeed.checks import addresses, admin_token, contents, exposed
from marketfeed.config.reload import changes, fixed
from marketfeed.errors import ConfigError, StartError, gathered
from marketfeed.server.local import validate
from marketfeed.server.settings import limits_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.admin.metrics import Sources
    from marketfeed.admin.token import AdminToken
    from marketfeed.alerts.escalation.registry import Escalation
    from marketfeed.config.schema import Config, Loaded
    from marketfeed.secret import Secret
    from marketfeed.server.access_control import Planned

log = structlog.get_logger()


class _Secrets(NamedTuple):
    """What a reload reads from files of secrets; their contents may have changed."""

    token: Secret | None
    escalations: list[Escalation]
    access: Planned | None


class Reloads:
    """Reloads of an engine made of ``parts``. ``load`` reads the configuration again; raises ConfigError."""

    def __init__(
        self, parts: Sources, admin_token: AdminToken, config: Config, load: Callable[[], Loaded]
    ) -> None:
        self._parts = parts
        self._admin_token = admin_token
        self._load = load
        self.config = config  # in force
        self._certificate = contents(config.gateway)
        self._in_force: tuple[Config, list[bytes]] | None = None  # of the last reload
        self._asked = trio.Event()
        self.lock = trio.Lock()  # held while the configuration or the life of the engine changes

    def ask(self) -> None:
        """Have :meth:`run` reload. Idempotent until it begins to."""
        self._asked.set()

    async def run(self, sources: trio.Nursery) -> None:
        """Reload whenever asked, until cancelled; new feeds run in ``sources``."""
        during = False  # whether this reload was requested while the last one was running
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            async with self.lock:
                await self._reload(sources, during)
            during = self._asked.is_set()

    async def _reload(self, sources: trio.Nursery, during: bool) -> None:
        """Apply the present configuration as a whole, or refuse it.

        A reload that was requested ``during`` the last one does nothing if the files have not changed since:
        another rolling restart would move every session once more.
        """
        try:
            loaded = self._load()
            config = loaded.config
            now = (config, contents(config.gateway))
            if during and now == self._in_force:
                secrets = self._secrets(loaded)
                self._renew_access(secrets.access)
                self._renew(secrets)
                log.info("reloaded", changed=[])
                return
            changed = changes(self.config, config)
            secrets = self._planned(loaded, changed)
        except ConfigError as error:
            self._parts.health.reload_failure = reason = "; ".join(error.mistakes)
            log.error("reload refused, nothing changed", reason=reason)
            return
        log.info("reloading", changed=changed)
        access_alone = self._is_access_alone(changed, now[1], secrets.access)
        before, self._parts.admission.limits = self._parts.admission.limits, limits_of(config.limits)
        # Before workers are replaced, which takes long: what is no longer good must end now.
        access_before = self._renew_access(secrets.access)
        try:
            if not access_alone:
                await self._parts.lives.reload(config)
        except (ConfigError, StartError) as error:
            self._parts.health.reload_failure = str(error)
            log.error("reload failed", reason=str(error))
            self._parts.admission.limits = before
            self._renew_access(access_before)
            self._parts.lives.roster.forget()
            return
        self.config = config
        self._in_force = now
        self._certificate = now[1]
        self._parts.health.reload_failure = None
        self._parts.taps.most = config.limits.taps
        self._renew(secrets)
        self._parts.metering.quotas.tenants = config.auth.tenants
        await self._parts.lives.roster.apply(sources)
        for warning in exposed(loaded):
            log.warning(warning)
        log.info("reloaded", changed=changed)

    def _planned(self, loaded: Loaded, changed: list[str]) -> _Secrets:
        """Check what is ``changed``, and plan the feeds; return the secrets. Raises ConfigError."""
        config = loaded.config
        forbidden = fixed(changed)
        found = [f"{', '.join(forbidden)}: cannot change without a restart"] if forbidden else []
        with gathered(found):
            validate(config)
        with gathered(found):
            self._parts.lives.roster.plan(config.feeds, addresses(config))
        with gathered(found):
            secrets = self._secrets(loaded)
        if found:
            self._parts.lives.roster.forget()
            raise loaded.refusal(found)
        return secrets

    def _secrets(self, loaded: Loaded) -> _Secrets:
        """Read the files of secrets again; raises ConfigError with all mistakes."""
        found: list[str] = []
        access = None
        with gathered(found):
            token = admin_token(loaded)
        with gathered(found):
            escalations = self._parts.alerting.planned(loaded)
        with gathered(found):
            if self._parts.access is not None:
                access = self._parts.access.planned(loaded)
        if found:
            raise ConfigError(*found)
        return _Secrets(token, escalations, access)

    def _renew(self, secrets: _Secrets) -> None:
        """Put secrets in force that concern this process alone."""
        self._admin_token.replace(secrets.token)
        self._parts.alerting.reload(secrets.escalations)

    def _renew_access(self, planned: Planned | None) -> Planned | None:
        """Put keys and tenants in force; return those that were. None: there is no access control."""
        return None if self._parts.access is None or planned is None else self._parts.access.apply(planned)

    def _is_access_alone(self, changed: list[str], certificate: list[bytes], planned: Planned | None) -> bool:
        """Return whether only keys and ``[auth]`` have changed: then workers need not be replaced."""
        if self._parts.access is None or planned is None or certificate != self._certificate:
            return False
        return self._parts.access.changed_by(planned) and all(key.startswith("auth.") for key in changed)
