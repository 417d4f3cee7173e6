"""What can be wrong with a configuration beyond the values of its keys: files, folders, addresses, feeds.

The engine finds the same while it is built. This module looks without building one, so that these
mistakes are reported together with those of the values.
"""

from __future__ import annotations

import time
from pathlib import Path

import trio

from marketfeed.config.schema import AlertsConfig, Config, GatewayConfig, Loaded
from marketfeed.core.addresses import host_port
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter
from marketfeed.errors import ConfigError, gathered
from marketfeed.folders import file_problem
from marketfeed.ingest.pump import Pump
from marketfeed.ingest.roster import Roster
from marketfeed.server.local import validate
from marketfeed.server.tap_listener import check_path


def mistakes(loaded: Loaded) -> list[str]:
    """Return what is wrong beyond the values of keys: feeds and files (``key.path: what is allowed``)."""
    config = loaded.config
    found: list[str] = []
    with gathered(found):
        validate(config)
    with gathered(found):
        if (tap := tap_path(loaded)) is not None:
            check_path(tap)
    with gathered(found):
        check_log_path(loaded)
    symbols = SymbolTable(config.engine.max_symbols)
    # Feeds are made, to see whether they can be, and never run.
    pump = Pump(RingWriter(Rings.private(1, 4), time.time_ns), symbols, lambda: None)
    with gathered(found):
        Roster(pump, loaded.base, trio.sleep).plan(config.feeds, addresses(config))
    return found


def idle(loaded: Loaded) -> list[str]:
    """Return what will be served without, in lines: no feed, and keys that have no effect."""
    config = loaded.config
    found = [] if config.feeds else [f"{loaded.source}: no [[feeds]]: subscribers will get no ticks"]
    for section, names, why in (
        ("alerts", AlertsConfig.__struct_fields__, "alerts come with a later version"),
        ("auth", ("algorithm", "key_file"), "tokens come with a later version"),
    ):
        table = getattr(config, section)
        default = type(table)()
        keys = [f"{section}.{name}" for name in names if getattr(table, name) != getattr(default, name)]
        found += [loaded.sourced(f"{key}: has no effect in this version: {why}") for key in keys]
    return found


def log_problem(loaded: Loaded) -> str | None:
    """Return a line that says why the latency log cannot be written, None if it can."""
    latency = loaded.config.latency
    problem = file_problem(loaded.base / latency.path) if latency.enabled else ""
    return loaded.sourced(f"latency.path: {problem}, so there will be no latency log") if problem else None


def contents(gateway: GatewayConfig) -> list[bytes]:
    """Return what is in the files of the certificate; raises ConfigError."""
    try:
        return [Path(path).read_bytes() for path in (gateway.tls_cert, gateway.tls_key) if path]
    except OSError as error:
        raise ConfigError(f"gateway.tls_cert, gateway.tls_key: {error.filename}: {error.strerror}") from None


def tap_path(loaded: Loaded) -> Path | None:
    """Return where the rings are handed out, None if nowhere."""
    tap = loaded.config.engine.tap
    return None if tap is None else loaded.base / tap


def addresses(config: Config) -> dict[str, str]:
    """Return the addresses of the listeners that are no feeds', with the keys that they are from."""
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
    """Raise ConfigError if the latency log cannot be a file there."""
    path = loaded.base / loaded.config.latency.path
    if loaded.config.latency.enabled and path.is_dir():
        raise ConfigError(f"latency.path: {path} is a folder, and must be a file")
