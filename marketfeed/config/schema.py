"""Configuration: loads TOML into frozen structs, and reports all mistakes at once, one line each."""

from __future__ import annotations

from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from marketfeed.config.cluster import PATHS, ClusterConfig
from marketfeed.config.misplaced import homes, placed
from marketfeed.config.rules import problems
from marketfeed.config.sources import applied, file_text, parsed, sourced
from marketfeed.config.validation import Mistake, mistakes, without
from marketfeed.core.symbols import MAX_SYMBOLS
from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1)]
Channel = Literal["quotes", "trades", "alerts"]
Path_ = Annotated[str, Meta(min_length=1)]
Seconds = Annotated[float, Meta(ge=0.001, le=86_400)]
DEFAULT_PATH: Final = Path("config.toml")


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class EngineConfig(_Section, frozen=True):
    """``[engine]``"""

    workers: Annotated[int, Meta(ge=0, le=64)] = 0
    max_symbols: Annotated[int, Meta(ge=1, le=MAX_SYMBOLS)] = 8192
    ring_depth: Annotated[int, Meta(ge=4, le=1 << 20)] = 1024
    resume_ticks: Count = 100_000
    drain_s: Seconds = 5.0
    tap: Annotated[str, Meta(min_length=1)] | None = None


class GatewayConfig(_Section, frozen=True):
    """``[gateway]``"""

    host: str = "127.0.0.1"
    port: Port = 8765
    hosts: list[str] = []
    allowed_origins: list[str] = []
    trusted_proxies: list[str] = []
    default_tier: str = "vip"
    encoding: Literal["json", "binary"] = "json"
    tls_cert: str | None = None
    tls_key: str | None = None


class AdminConfig(_Section, frozen=True):
    """``[admin]``"""

    host: str = "127.0.0.1"
    port: Port = 8766
    hosts: list[str] = []
    token_file: Annotated[str, Meta(min_length=1)] | None = None


class DefaultsConfig(_Section, frozen=True, omit_defaults=True):
    """``[auth.defaults]``: claims that a key or token does not have."""

    tenant: Annotated[str, Meta(max_length=256)] = ""
    tier: str | None = None  # None: the slowest
    symbols: list[str] = []
    channels: tuple[Channel, ...] = ("quotes", "trades")
    consumers: list[str] = []
    publish: list[str] = []
    max_sessions: Count | None = None
    max_symbols: Count | None = None


class TenantConfig(_Section, frozen=True):
    """``[auth.tenants.NAME]``: bounds of a tenant as a whole, whatever its tokens say."""

    symbols: tuple[str, ...] = ("*",)
    tiers: list[str] | None = None  # None: all
    channels: tuple[Channel, ...] = ("quotes", "trades", "alerts")
    max_sessions: Count | None = None
    max_symbols: Count | None = None
    max_ticks_per_s: Count | None = None
    max_ticks_per_day: Count | None = None
    max_bytes_per_day: Count | None = None
    over: Literal["slower", "stop"] = "slower"


Mode = Literal["none", "keys", "jwt"]


class AuthConfig(_Section, frozen=True):
    """``[auth]``"""

    mode: Mode = "none"
    anonymous: bool = False
    keys_file: Path_ | None = None
    algorithm: Literal["HS256", "RS256", "ES256", "EdDSA"] | None = None
    key_file: Path_ | None = None
    jwks: Path_ | None = None
    jwks_refresh_s: Annotated[float, Meta(ge=10, le=86_400)] = 300.0
    previous_key_file: Path_ | None = None
    valid_until: datetime | None = None
    audience: str | None = None
    issuer: str | None = None
    path: str = "var/access.db"
    ticket_prefixes: Annotated[list[int], Meta(max_length=2)] = []
    max_ttl_s: Annotated[float, Meta(ge=60, le=3_153_600_000)] = 2_592_000.0
    claims: dict[str, str] = {}
    defaults: DefaultsConfig = DefaultsConfig()
    tenants: dict[str, TenantConfig] = {}


class TierConfig(_Section, frozen=True):
    """``[tiers.NAME]``"""

    interval_ms: Annotated[float, Meta(ge=0, le=3_600_000)] = 0
    delivery: Literal["every", "latest"] = "every"
    send_buffer_bytes: Annotated[int, Meta(ge=4096, le=1 << 30)] = 65536


class LimitsConfig(_Section, frozen=True):
    """``[limits]``"""

    request_bytes: Annotated[int, Meta(ge=256, le=1 << 28)] = 262_144
    symbols_per_session: Count = 5000
    patterns_per_session: Count = 500
    sessions: Count = 100_000
    sessions_per_ip: Count = 100_000
    requests_per_s: Annotated[float, Meta(ge=1, le=1_000_000)] = 50
    handshakes_per_s: Annotated[float, Meta(ge=0, le=1_000_000)] = 0
    handshake_s: Seconds = 5.0
    stall_s: Seconds = 10.0
    heartbeat_s: Seconds = 20.0
    ping_s: Seconds = 60.0
    taps: Count = 16


class AlertsConfig(_Section, frozen=True):
    """``[alerts]``"""

    enabled: bool | None = None  # None: if there are rules or escalations
    path: str = "var/alerts.db"
    keep_days: Annotated[float, Meta(gt=0, le=36_500)] = 30.0
    keep_alerts: Count = 1_000_000
    max_tries: Annotated[int, Meta(ge=1, le=1000)] = 10
    in_flight: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    rules: list[dict[str, Any]] = []
    escalate: list[dict[str, Any]] = []


class LatencyConfig(_Section, frozen=True):
    """``[latency]``"""

    enabled: bool = True
    path: str = "var/latency.hlog"
    interval_s: Annotated[float, Meta(ge=0.1, le=3600)] = 10.0
    top_symbols: Annotated[int, Meta(ge=0, le=1000)] = 20
    probe: bool = True
    interruption_s: Seconds = 1.0
    max_bytes: Annotated[int, Meta(ge=65_536)] = 64 << 20
    keep_files: Count = 30


DEFAULT_TIERS: Final[dict[str, dict[str, Any]]] = {
    "vip": {"interval_ms": 0, "delivery": "every", "send_buffer_bytes": 262_144},
    "premium": {"interval_ms": 100, "delivery": "latest", "send_buffer_bytes": 65_536},
    "basic": {"interval_ms": 500, "delivery": "latest", "send_buffer_bytes": 65_536},
}


class Config(_Section, frozen=True):
    """The whole configuration. Feed types validate the tables in ``feeds`` (ingest/registry.py)."""

    engine: EngineConfig = EngineConfig()
    gateway: GatewayConfig = GatewayConfig()
    admin: AdminConfig = AdminConfig()
    auth: AuthConfig = AuthConfig()
    tiers: dict[str, TierConfig] = {}
    limits: LimitsConfig = LimitsConfig()
    feeds: list[dict[str, Any]] = []
    alerts: AlertsConfig = AlertsConfig()
    latency: LatencyConfig = LatencyConfig()
    cluster: ClusterConfig | None = None  # None: one node


class Loaded(msgspec.Struct, frozen=True):
    """A configuration, the name of its source, and the folder that its relative paths start at."""

    config: Config
    source: str
    base: Path
    origins: dict[str, str] = {}  # the --set that set the value, by key path

    def refusal(self, mistakes: Iterable[str]) -> ConfigError:
        """Return the error for ``mistakes``, lines ``key.path: what is allowed``, with their sources."""
        return ConfigError(*map(self.sourced, mistakes))

    def sourced(self, line: str) -> str:
        """Return ``line`` (``key.path: text``) prefixed with the value's source: the file or a ``--set``."""
        return sourced(line, self.source, self.origins)


def load(
    path: Path | None,
    overrides: Sequence[str] = (),
    further: Callable[[Loaded], Sequence[str]] = lambda loaded: (),
    feed_keys: Callable[[], Collection[str]] = tuple,
) -> Loaded:
    """Load ``path``, else ./config.toml, else the embedded default; raises ConfigError with all mistakes.

    ``overrides`` have the form ``dotted.path=value`` with values in TOML; a
    value that is not valid TOML is used as a string. The callbacks run only if
    there are mistakes: ``further`` gets the configuration without the invalid
    values, and returns mistakes that this module cannot find, such as those in
    feeds, as lines ``key.path: what is allowed``. ``feed_keys`` returns the
    keys that a [[feeds]] table may have.
    """
    if path is None and DEFAULT_PATH.is_file():
        path = DEFAULT_PATH
    if path is None:
        source, base, text = "the built-in configuration", Path.cwd(), default_text()
    else:
        source, base = str(path), path.resolve().parent
        text = file_text(path, source)
    data = parsed(text, source)
    # Before and after: --set may change a default tier, and may add a tier.
    _complete_tiers(data)
    origins, refused = applied(data, overrides)
    _complete_tiers(data)
    wrong = mistakes(data, Config)
    usable = without(data, wrong)
    for mistake in wrong:  # an invalid tier still counts as one that default_tier may name
        if mistake.path[0] == "tiers" and len(mistake.path) == 2:
            usable["tiers"][mistake.path[1]] = {}
    _complete_tiers(usable)
    config = msgspec.convert(usable, Config)
    told = placed(wrong, homes(Config, feed_keys()), origins) if wrong else []
    found = [*told, *_consequent(config, wrong)]
    loaded = Loaded(_with_absolute_paths(config, base), source, base, origins)
    if refused or found:
        raise ConfigError(*refused, *loaded.refusal([*found, *further(loaded)]).mistakes)
    return loaded


def default_text() -> str:
    """Return the embedded default configuration, which is the shipped config.toml."""
    return resources.files("marketfeed").joinpath("default.toml").read_text("utf-8")


def _consequent(config: Config, wrong: Iterable[Mistake]) -> list[str]:
    """Return the rules that ``config`` breaks, except those about keys that are ``wrong`` already."""
    known = {str(mistake).partition(": ")[0] for mistake in wrong}
    return [
        f"{where}: {problem}"
        for where, problem in problems(config)
        if not any(key == path or key.startswith(f"{path}.") for key in where.split(", ") for path in known)
    ]


def _with_absolute_paths(config: Config, base: Path) -> Config:
    """Return ``config`` for processes that do not know the folder of the configuration."""
    changed = {}
    for section, keys in (
        ("gateway", ("tls_cert", "tls_key")),
        ("admin", ("token_file",)),
        ("auth", ("keys_file", "key_file", "previous_key_file", "jwks", "path")),
        ("cluster", PATHS),
    ):
        table = getattr(config, section)
        if table is None:
            continue
        found = {key: getattr(table, key) for key in keys}
        paths = {key: str(base / path) for key, path in found.items() if path and "://" not in path}
        changed[section] = msgspec.structs.replace(table, **paths)
    return msgspec.structs.replace(config, **changed)


def _complete_tiers(data: dict[str, Any]) -> None:
    """Add the default tiers if ``data`` has none; else complete default tiers that it changes in part."""
    tiers = data.get("tiers")
    if tiers is None:
        data["tiers"] = {name: dict(tier) for name, tier in DEFAULT_TIERS.items()}
    elif isinstance(tiers, dict):
        for name, tier in tiers.items():
            if isinstance(tier, dict):
                tiers[name] = {**DEFAULT_TIERS.get(name, {}), **tier}
