"""Rules of a configuration that the types of its keys do not express: one function per section. Pure."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from marketfeed.config.cluster import cluster_problems
from marketfeed.config.guesses import guess
from marketfeed.config.validation import shown
from marketfeed.core.addresses import is_loopback, parse_ip
from marketfeed.core.authority import host_problem, origin_problem
from marketfeed.core.symbols import is_pattern, is_symbol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from marketfeed.config.schema import AuthConfig, Config

Problem = tuple[str, str]  # key paths, separated by ", "; what is allowed there

# The empty host binds every address.
_HOST: Final = re.compile(r"(?![0-9.]+$)([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?|")
CLAIMS: Final = (
    "sub", "tenant", "tier", "symbols", "channels", "consumers", "publish", "max_sessions", "max_symbols",
)  # fmt: skip
_TIER_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")


def problems(config: Config) -> Iterator[Problem]:
    """Yield every rule that ``config`` breaks, section by section."""
    for rules in (_engine, _gateway, _admin, _auth, _tiers, _limits, _cluster):
        yield from rules(config)


def _engine(config: Config) -> Iterator[Problem]:
    depth = config.engine.ring_depth
    if depth & (depth - 1):
        yield "engine.ring_depth", f"must be a power of two, not {depth}"


def _gateway(config: Config) -> Iterator[Problem]:
    gateway = config.gateway
    open_to_all = config.auth.mode == "none" and not config.auth.anonymous
    required = 'auth.anonymous = true, or auth.mode = "keys" or "jwt"' if open_to_all else ""
    yield from _listener("gateway.host", gateway.host, required)
    yield from _each("gateway.hosts", gateway.hosts, host_problem)
    yield from _each("gateway.allowed_origins", gateway.allowed_origins, origin_problem)
    yield from _each("gateway.trusted_proxies", gateway.trusted_proxies, _network_problem)
    if gateway.default_tier not in config.tiers:
        tiers = ", ".join(map(shown, config.tiers)) or "(there are none)"
        hint = guess(gateway.default_tier, config.tiers)
        yield (
            "gateway.default_tier",
            f"must be one of the tiers {tiers}, not {shown(gateway.default_tier)}{hint}",
        )
    if bool(gateway.tls_cert) != bool(gateway.tls_key):
        missing, given = ("tls_key", "tls_cert") if gateway.tls_cert else ("tls_cert", "tls_key")
        yield f"gateway.{missing}", f"missing; required with gateway.{given}: both are PEM files"


def _admin(config: Config) -> Iterator[Problem]:
    admin, gateway = config.admin, config.gateway
    required = (
        "" if admin.token_file else "admin.token_file, a file with the token that requests have to bear"
    )
    yield from _listener("admin.host", admin.host, required)
    yield from _each("admin.hosts", admin.hosts, host_problem)
    if gateway.port and gateway.port == admin.port and _overlap(gateway.host, admin.host):
        yield "admin.port, gateway.port", f"must differ, and both are {gateway.port}"


def _auth(config: Config) -> Iterator[Problem]:
    auth = config.auth
    if auth.mode == "keys" and auth.keys_file is None:
        yield "auth.keys_file", 'missing; required with auth.mode = "keys": marketfeed keys add writes it'
    if auth.mode == "jwt":
        yield from _jwt(auth)
    if auth.previous_key_file is not None and auth.valid_until is None:
        yield "auth.valid_until", "missing; required with auth.previous_key_file: until when it is accepted"
    if auth.valid_until is not None and auth.valid_until.tzinfo is None:
        yield "auth.valid_until", "must have an offset, such as 2030-01-31T00:00:00Z"
    for name in auth.claims:
        if name not in CLAIMS:
            yield f"auth.claims.{name}", f"unknown claim; one of {', '.join(CLAIMS)}{guess(name, CLAIMS)}"
    bits = auth.ticket_prefixes
    if bits and (len(bits) != 2 or not 0 <= bits[0] <= 32 or not 0 <= bits[1] <= 128):
        yield "auth.ticket_prefixes", "must be two numbers: bits of an IPv4, and of an IPv6 address: [24, 56]"
    yield from _scope("auth.defaults", auth.defaults.symbols, [auth.defaults.tier or ""], config)
    for name, tenant in auth.tenants.items():
        yield from _scope(f"auth.tenants.{name}", tenant.symbols, tenant.tiers or [], config)


def _jwt(auth: AuthConfig) -> Iterator[Problem]:
    if auth.algorithm is None:
        yield (
            "auth.algorithm",
            'missing; required with auth.mode = "jwt": the one that tokens are signed with',
        )
    if auth.jwks is None:
        return
    for key, value in (("key_file", auth.key_file), ("previous_key_file", auth.previous_key_file)):
        if value is not None:
            yield f"auth.{key}", "not allowed together with auth.jwks"
    if auth.algorithm == "HS256":
        yield "auth.algorithm", "must be RS256, ES256 or EdDSA with auth.jwks: HS256 has no public keys"
    for key in ("audience", "issuer"):
        if getattr(auth, key) is None:
            yield f"auth.{key}", "missing; required with auth.jwks: its keys may sign tokens for others too"
    scheme, _, rest = auth.jwks.partition("://")
    host = urlsplit(auth.jwks).hostname if rest else None
    if rest and (scheme not in ("http", "https") or not host):
        yield "auth.jwks", "must be the path of a file, or an https address"
    elif rest and scheme == "http" and not is_loopback(host or ""):
        yield "auth.jwks", "must be https: whoever can change the answer could make tokens"


def _scope(path: str, symbols: Sequence[str], tiers: Sequence[str], config: Config) -> Iterator[Problem]:
    """Check the symbols and tiers of defaults or of a tenant."""
    yield from _each(f"{path}.symbols", symbols, _symbols_problem)
    for tier in tiers:
        if tier and tier not in config.tiers:
            key = "tier" if path == "auth.defaults" else "tiers"
            allowed = ", ".join(map(shown, config.tiers))
            yield (
                f"{path}.{key}",
                f"no such tier: {shown(tier)}; there are {allowed}{guess(tier, config.tiers)}",
            )


def _symbols_problem(text: str) -> str | None:
    return None if is_symbol(text) or is_pattern(text) else f"{shown(text)} is no symbol or prefix*"


def _tiers(config: Config) -> Iterator[Problem]:
    for name, tier in config.tiers.items():
        if not _TIER_NAME.fullmatch(name):
            yield f"tiers.{name}", "a tier's name must be 1 to 32 letters, digits, _ or -"
        if 0 < tier.interval_ms < 1:
            yield f"tiers.{name}.interval_ms", f"must be 0, or from 1 to 3600000, not {tier.interval_ms:g}"


def _limits(config: Config) -> Iterator[Problem]:
    rate = config.limits.handshakes_per_s
    if 0 < rate < 1:
        yield "limits.handshakes_per_s", f"must be 0 (no limit), or from 1 to 1000000, not {rate:g}"


def _cluster(config: Config) -> Iterator[Problem]:
    return iter(()) if config.cluster is None else cluster_problems(config.cluster)


def _each(path: str, texts: Sequence[str], problem_of: Callable[[str], str | None]) -> Iterator[Problem]:
    """Check every item of the list at ``path``."""
    for index, text in enumerate(texts):
        if (problem := problem_of(text)) is not None:
            yield f"{path}.{index}", problem


def _listener(path: str, host: str, required: str) -> Iterator[Problem]:
    """Check the ``host`` that a listener binds. ``required`` is what one beyond loopback still requires."""
    if not _HOST.fullmatch(host) and not parse_ip(host):
        yield path, f"must be an address or a host name without a port, not {shown(host)}"
    elif required and not is_loopback(host):
        yield path, f"{shown(host)} is not loopback: that requires {required}"


def _network_problem(text: str) -> str | None:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return f"must be an address, or a network such as 10.0.0.0/8, not {shown(text)}"
    return None


def _overlap(one: str, other: str) -> bool:
    """Return whether listeners on these two hosts conflict if they use the same port."""
    hosts = ["127.0.0.1" if host == "localhost" else host or "0.0.0.0" for host in (one, other)]
    return hosts[0] == hosts[1] or any(found and found.is_unspecified for found in map(parse_ip, hosts))
