"""Checks of a configuration beyond the values of its keys: files, folders, addresses, feeds.

Building the engine finds the same mistakes. This module finds them without building it, so that they are
reported together with invalid values.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from marketfeed.access import loading
from marketfeed.cluster.link_settings import link_settings, warnings
from marketfeed.config.admin_token import exposure, token_in
from marketfeed.core.addresses import host_port
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter
from marketfeed.errors import ConfigError, gathered
from marketfeed.folders import file_problem
from marketfeed.ingest.pump import Pump
from marketfeed.ingest.roster import Roster
from marketfeed.server.access_control import checked_keys
from marketfeed.server.alerting import enabled, escalations_of, rules_of, unmatched_patterns
from marketfeed.server.local import validate
from marketfeed.server.tap_listener import check_path

if TYPE_CHECKING:
    from marketfeed.config.schema import AlertsConfig, AuthConfig, Config, GatewayConfig, Loaded
    from marketfeed.secret import Secret


_Idle = tuple[str, tuple[str, ...], str]  # a section, keys of it that have no effect, and why
# Keys of [auth] that have an effect with access control, in mode keys alone, and in mode jwt alone.
_OF_EITHER: Final = "ticket_prefixes", "defaults", "tenants"
_OF_KEYS: Final = ("keys_file",)
_OF_TOKENS: Final = (
    "algorithm", "key_file", "jwks", "jwks_refresh_s", "previous_key_file", "valid_until", "audience",
    "issuer", "max_ttl_s", "claims",
)  # fmt: skip


def mistakes(loaded: Loaded) -> list[str]:
    """Return the mistakes in feeds and files, as ``key.path: what is allowed``."""
    config = loaded.config
    found: list[str] = []
    with gathered(found):
        validate(config)
    with gathered(found):
        if (tap := tap_path(loaded)) is not None:
            check_path(tap)
    with gathered(found):
        check_log_path(loaded)
    with gathered(found):
        admin_token(loaded)
    with gathered(found):
        if config.auth.mode != "none":
            checked_keys(loaded, os.environ)
    with gathered(found):
        if config.cluster is not None:
            link_settings(config.cluster, os.environ)
    with gathered(found):
        rules_of(loaded)
    with gathered(found):
        escalations_of(loaded)
    with gathered(found):
        planned_symbols(loaded)
    return found


def planned_symbols(loaded: Loaded) -> list[str]:
    """Construct the feeds, which checks their settings, without running them; return the symbols they name.

    Raises ConfigError.
    """
    symbols = SymbolTable(loaded.config.engine.max_symbols)
    pump = Pump(RingWriter(Rings.private(1, 4), time.time_ns), symbols, lambda: None)
    Roster(pump, loaded.base, trio.sleep).plan(loaded.config.feeds, addresses(loaded.config))
    return symbols.names()


def idle(loaded: Loaded) -> list[str]:
    """Return warnings, one line each.

    Such as no feed, keys without effect, patterns of rules without a symbol, a secret that others may read.

    Raises ConfigError if :func:`mistakes` finds any in feeds or rules.
    """
    config = loaded.config
    mirrors = config.cluster is not None and config.cluster.role == "gateway"
    has_ticks = config.feeds or mirrors
    found = [] if has_ticks else [f"{loaded.source}: no [[feeds]]: subscribers will get no ticks"]
    alerts = config.alerts
    for section, names, why in (_idle_alerts(alerts), _idle_auth(config.auth), _idle_refresh(config.auth)):
        table = getattr(config, section)
        default = type(table)()
        keys = [f"{section}.{name}" for name in names if getattr(table, name) != getattr(default, name)]
        found += [loaded.sourced(f"{key}: has no effect: {why}") for key in keys]
    found += exposed(loaded)
    if config.cluster is not None:
        found += map(loaded.sourced, warnings(config.cluster))
    if alerts.rules and enabled(alerts):
        found += unmatched_patterns(loaded, planned_symbols(loaded))
    return found


def _idle_alerts(alerts: AlertsConfig) -> _Idle:
    off = "keep_days", "keep_alerts", "max_tries", "in_flight", "rules", "escalate"
    why = "without [[alerts.rules]], [[alerts.escalate]] or enabled = true"
    if alerts.enabled is False:
        why = "alerts.enabled is false"
    return "alerts", () if enabled(alerts) else off, f"alerts are off, {why}"


def _idle_auth(auth: AuthConfig) -> _Idle:
    names = {"none": (*_OF_EITHER, *_OF_KEYS, *_OF_TOKENS), "keys": _OF_TOKENS, "jwt": _OF_KEYS}[auth.mode]
    return "auth", names, f'auth.mode is "{auth.mode}"'


def _idle_refresh(auth: AuthConfig) -> _Idle:
    fetched = auth.mode != "jwt" or (auth.jwks is not None and loading.is_address(auth.jwks))
    return "auth", () if fetched else ("jwks_refresh_s",), "auth.jwks is not an address"


def log_problem(loaded: Loaded) -> str | None:
    """Return one line on why the latency log cannot be written; None if it can."""
    latency = loaded.config.latency
    problem = file_problem(loaded.base / latency.path) if latency.enabled else ""
    return loaded.sourced(f"latency.path: {problem}, so there will be no latency log") if problem else None


def contents(gateway: GatewayConfig) -> list[bytes]:
    """Return the contents of the certificate's files; raises ConfigError."""
    try:
        return [Path(path).read_bytes() for path in (gateway.tls_cert, gateway.tls_key) if path]
    except OSError as error:
        raise ConfigError(f"gateway.tls_cert, gateway.tls_key: {error.filename}: {error.strerror}") from None


def admin_token(loaded: Loaded) -> Secret | None:
    """Return the token of the admin port, None if it has none; raises ConfigError."""
    file = loaded.config.admin.token_file
    return None if file is None else token_in(file, loaded.base)


def exposed(loaded: Loaded) -> list[str]:
    """Return warnings about secrets that every user may read, one line each."""
    file = loaded.config.admin.token_file
    told = None if file is None else exposure(file, loaded.base)
    return [
        *map(loaded.sourced, [] if told is None else [told]),
        *map(loaded.sourced, loading.exposed(loaded.config.auth)),
    ]


def tap_path(loaded: Loaded) -> Path | None:
    """Return the path of the tap's socket; None without a tap."""
    tap = loaded.config.engine.tap
    return None if tap is None else loaded.base / tap


def addresses(config: Config) -> dict[str, str]:
    """Return the addresses of the gateway's and the admin listener, each with its key."""
    found: dict[str, str] = {}
    for key, host, port in (
        ("admin.port", config.admin.host, config.admin.port),
        ("gateway.port", config.gateway.host, config.gateway.port),
    ):
        if port:
            every = host in ("", "0.0.0.0", "::", "localhost")
            found |= {host_port(one, port): key for one in (("127.0.0.1", "::1") if every else (host,))}
    return found


def check_log_path(loaded: Loaded) -> None:
    """Raise ConfigError if the path of the latency log is a folder."""
    path = loaded.base / loaded.config.latency.path
    if loaded.config.latency.enabled and path.is_dir():
        raise ConfigError(f"latency.path: {path} is a folder, and must be a file")
