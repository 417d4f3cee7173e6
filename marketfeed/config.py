"""Configuration: TOML to checked, frozen structs. An error is one line: where, and what is allowed there."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from marketfeed.core.symbols import MAX_SYMBOLS
from marketfeed.errors import ConfigError
from marketfeed.tables import checked

Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1)]
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


class AuthConfig(_Section, frozen=True):
    """``[auth]``"""

    mode: Literal["none", "jwt"] = "none"
    anonymous: bool = False
    algorithm: Literal["HS256", "RS256", "ES256", "EdDSA"] | None = None
    key_file: str | None = None


class TierConfig(_Section, frozen=True):
    """``[tiers.NAME]``"""

    interval_ms: Annotated[float, Meta(ge=0, le=3_600_000)] = 0
    delivery: Literal["every", "latest"] = "every"
    send_buffer_bytes: Annotated[int, Meta(ge=4096, le=1 << 30)] = 65536


class LimitsConfig(_Section, frozen=True):
    """``[limits]``"""

    request_bytes: Annotated[int, Meta(ge=256, le=1 << 28)] = 262_144
    symbols_per_session: Count = 5000
    sessions: Count = 100_000
    sessions_per_ip: Count = 100_000
    requests_per_s: Annotated[float, Meta(ge=1, le=1_000_000)] = 50
    handshake_s: Seconds = 5.0
    stall_s: Seconds = 10.0
    heartbeat_s: Seconds = 20.0
    ping_s: Seconds = 60.0
    taps: Count = 16


class AlertsConfig(_Section, frozen=True):
    """``[alerts]``"""

    path: str = "var/alerts.db"
    max_tries: Count = 10
    in_flight: Count = 1000
    rules: list[dict[str, Any]] = []


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
    """A whole configuration. ``feeds`` are tables that their feed types check (ingest/registry.py)."""

    engine: EngineConfig = EngineConfig()
    gateway: GatewayConfig = GatewayConfig()
    admin: AdminConfig = AdminConfig()
    auth: AuthConfig = AuthConfig()
    tiers: dict[str, TierConfig] = {}
    limits: LimitsConfig = LimitsConfig()
    feeds: list[dict[str, Any]] = []
    alerts: AlertsConfig = AlertsConfig()
    latency: LatencyConfig = LatencyConfig()


class Loaded(msgspec.Struct, frozen=True):
    """A configuration, where it came from, and where its relative paths start."""

    config: Config
    source: str
    base: Path


def load(path: Path | None, overrides: Sequence[str] = ()) -> Loaded:
    """Read and check ``path``, or ./config.toml, or the embedded default.

    ``overrides`` are ``dotted.path=value`` with values in TOML; a value that
    is no TOML is taken as text. Raises ConfigError.
    """
    if path is None and DEFAULT_PATH.is_file():
        path = DEFAULT_PATH
    if path is None:
        source, base = "the built-in configuration", Path.cwd()
        text = resources.files("marketfeed").joinpath("default.toml").read_text("utf-8")
    else:
        source, base = str(path), path.resolve().parent
        try:
            text = path.read_text("utf-8")
        except OSError as error:
            raise ConfigError(f"{source}: {error.strerror or error}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{source}: not UTF-8 text") from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not TOML: {_one_line(str(error))}") from None
    # Twice: --set may change one of the default tiers, and may add one.
    _complete_tiers(data)
    for override in overrides:
        _override(data, override)
    _complete_tiers(data)
    config = _config(data, source)
    gateway = config.gateway
    # Whoever serves, a worker process too, finds the files without knowing where the configuration was.
    paths = {key: str(base / path) for key in ("tls_cert", "tls_key") if (path := getattr(gateway, key))}
    config = msgspec.structs.replace(config, gateway=msgspec.structs.replace(gateway, **paths))
    return Loaded(config, source, base)


def _config(data: dict[str, Any], source: str) -> Config:
    try:
        config = checked(data, Config)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    for where, problem in _problems(config):
        raise ConfigError(f"{source}: {where}: {problem}")
    return config


def _complete_tiers(data: dict[str, Any]) -> None:
    """Fill in what the default tiers leave out; a file that names tiers has these and no others."""
    tiers = data.get("tiers")
    if tiers is None:
        data["tiers"] = {name: dict(tier) for name, tier in DEFAULT_TIERS.items()}
    elif isinstance(tiers, dict):
        for name, tier in tiers.items():
            if isinstance(tier, dict):
                tiers[name] = {**DEFAULT_TIERS.get(name, {}), **tier}


def _problems(config: Config) -> list[tuple[str, str]]:
    """Return what no single key's type can say: where, and what is wrong there."""
    engine, gateway, auth = config.engine, config.gateway, config.auth
    found: list[tuple[str, str]] = []
    if engine.ring_depth & (engine.ring_depth - 1):
        found.append(("engine.ring_depth", f"a power of two, not {engine.ring_depth}"))
    if gateway.default_tier not in config.tiers:
        tiers = ", ".join(config.tiers) or "(no tier is defined)"
        found.append(("gateway.default_tier", f"one of {tiers}; {gateway.default_tier} is none"))
    for index, text in enumerate(gateway.trusted_proxies):
        try:
            ipaddress.ip_network(text)
        except ValueError:
            allowed = "an address, or a network such as 10.0.0.0/8"
            found.append((f"gateway.trusted_proxies.{index}", f"{allowed}, not {text!r}"))
    if (gateway.host, gateway.port) == (config.admin.host, config.admin.port) and gateway.port:
        found.append(("admin.port", f"another one than gateway.port, which is {gateway.port} too"))
    found += [
        (f"tiers.{name}.interval_ms", f"0, or 1 to 3600000, not {tier.interval_ms:g}")
        for name, tier in config.tiers.items()
        if 0 < tier.interval_ms < 1
    ]
    found += [
        (f"tiers.{name}", "a tier's name has 1 to 32 letters, digits, _ or -")
        for name in config.tiers
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", name)
    ]
    if auth.mode != "none":
        found.append(("auth.mode", 'only "none" in this version'))
    if bool(gateway.tls_cert) != bool(gateway.tls_key):
        which = "tls_key" if gateway.tls_cert else "tls_cert"
        found.append((f"gateway.{which}", "tls_cert and tls_key go together: two PEM files"))
    if auth.mode == "none" and not auth.anonymous and not _is_loopback(gateway.host):
        found.append(("gateway.host", f"{gateway.host!r} is not loopback: that needs auth.anonymous = true"))
    if not _is_loopback(config.admin.host) and not auth.anonymous:
        found.append(
            ("admin.host", f"{config.admin.host!r} is not loopback: that needs auth.anonymous = true")
        )
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _override(data: dict[str, Any], override: str) -> None:
    """Set one ``dotted.path=value`` in ``data``; a list of tables goes by index."""
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"--set {override}: written as dotted.path=value")
    try:
        parsed = tomllib.loads(f"value = {text}")
        value = parsed["value"] if len(parsed) == 1 else text
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text
    *parents, last = path.strip().split(".")
    at: Any = data
    for key in parents:
        if isinstance(at, list):
            at = _item(at, key, override)
        elif not isinstance(at, dict):
            raise ConfigError(f"--set {override}: {key} is below a plain value")
        elif key == "feeds" and key not in at:
            raise ConfigError(f"--set {override}: the configuration has no feeds")
        else:
            at = at.setdefault(key, {})
    if isinstance(at, list):
        _item(at, last, override)
        at[int(last)] = value
    elif isinstance(at, dict):
        at[last] = value
    else:
        raise ConfigError(f"--set {override}: {last} is below a plain value")


def _item(items: list[Any], key: str, override: str) -> Any:
    if not key.isdecimal() or len(key) > 6 or int(key) >= len(items):
        raise ConfigError(f"--set {override}: {key} is not an index from 0 to {len(items) - 1}")
    return items[int(key)]


def _one_line(text: str) -> str:
    return " ".join(text.split())
