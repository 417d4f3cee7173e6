"""``marketfeed token``: sign tokens for development, and make the keys that sign them."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from marketfeed.cli.claims import (
    ChannelsOption,
    ConsumersOption,
    MaxSessionsOption,
    MaxSymbolsOption,
    PublishOption,
    SymbolsOption,
    TenantOption,
    TierOption,
    given_claims,
    tell,
    warn,
    warn_of_claims,
    warn_of_nothing,
    warn_of_refusal,
)
from marketfeed.cli.options import ConfigOption, SetOption, fail, load_config
from marketfeed.errors import AccessError, ConfigError

if TYPE_CHECKING:
    from marketfeed.access.minting import Algorithm
    from marketfeed.config.schema import AuthConfig, Config

EXAMPLES: Final = (
    "The token is alone on stdout. HS256 signs with the secret in auth.key_file or MARKETFEED_JWT_KEY; the "
    "other algorithms sign with --private-key, since the engine has only the public half.\n\nExamples:\n\n"
    "marketfeed token --new-key jwt.key   (prints what to put into config.toml)\n\n"
    "marketfeed token --private-key jwt.key --sub ann --tier vip --symbols 'BTC*,AAPL' --ttl 1h\n\n"
    "export MARKETFEED_TOKEN=$(marketfeed token --sub ann --symbols '*')\n\n"
    "marketfeed watch 'BTC*'"
)
ALGORITHMS: Final = ("HS256", "RS256", "ES256", "EdDSA")
NEW_ALGORITHM: Final = "EdDSA"
LONG: Final = 7 * 1024  # characters of a token: with it, other headers may not fit into a head of 8 KiB


def token(
    context: typer.Context,
    sub: Annotated[str | None, typer.Option(metavar="NAME", help="Who will use it; required.")] = None,
    tenant: TenantOption = None,
    tier: TierOption = None,
    symbols: SymbolsOption = None,
    channels: ChannelsOption = None,
    consumers: ConsumersOption = None,
    publish: PublishOption = None,
    max_sessions: MaxSessionsOption = None,
    max_symbols: MaxSymbolsOption = None,
    ttl: Annotated[
        str, typer.Option(metavar="DURATION", help="How long it is valid: 30s, 15m, 1h30m, 7d.")
    ] = "1h",
    private_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The key to sign with, in PEM; a secret for HS256.")
    ] = None,
    kid: Annotated[
        str | None, typer.Option(metavar="ID", help="Name of the key in a set of keys (auth.jwks).")
    ] = None,
    new_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Make a key instead: FILE, and FILE.pub for the engine."),
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(
            help=f"One of {', '.join(ALGORITHMS)}. Default: auth.algorithm; for a new key {NEW_ALGORITHM}."
        ),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Sign a token for development, or make a key that signs tokens."""
    if algorithm is not None and algorithm not in ALGORITHMS:
        raise fail(f"--algorithm {algorithm}: must be one of {', '.join(ALGORITHMS)}")
    if new_key is not None:
        if sub is not None or private_key is not None:
            raise fail("--new-key: makes a key and no token; use --private-key to sign with it")
        _make_key(new_key, algorithm or NEW_ALGORITHM)  # type: ignore[arg-type]
        return
    if sub is None:
        raise fail("--sub: required: who will use the token")
    claims = given_claims(context.params)
    settings = load_config(config, set_).config
    now_s = int(time.time())
    payload = _payload(claims, settings.auth, now_s, now_s + _seconds(ttl))
    try:
        key, chosen, name = _signing_key(settings.auth, private_key, algorithm)
        from marketfeed.access.minting import signed

        text = signed(payload, key, chosen, name, kid)
    except ConfigError as error:
        raise fail(str(error)) from None
    print(text, flush=True)
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(payload["exp"]))
    tell(f"token {payload['jti']} of {sub}, valid until {until}")
    if len(text) > LONG:
        warn(
            f"the token has {len(text):,} characters, and a head over HTTP may have 8 KiB: send it in `auth` "
            "over a WebSocket, or use prefixes in --symbols, or a key (marketfeed keys add)"
        )
    _warn_of_token(text, claims, settings, payload, kid)


def _payload(claims: dict[str, Any], auth: AuthConfig, now_s: int, expires_s: int) -> dict[str, Any]:
    """Return the payload, with the names, the audience and the issuer of the configuration."""
    payload = {auth.claims.get(name, name): value for name, value in claims.items()}
    payload |= {"iat": now_s, "exp": expires_s, "jti": secrets.token_hex(8)}
    wanted = {"aud": auth.audience, "iss": auth.issuer}
    return payload | {name: value for name, value in wanted.items() if value is not None}


def _seconds(ttl: str) -> int:
    from marketfeed.cli.alerts_times import duration_ns
    from marketfeed.core.units import S

    try:
        return duration_ns(ttl) // S
    except ValueError as error:
        raise fail(f"--ttl: {error}") from None


def _signing_key(
    auth: AuthConfig, private_key: Path | None, algorithm: str | None
) -> tuple[bytes, Algorithm, str]:
    """Return the key, its algorithm, and how errors name it. Raises ConfigError."""
    from marketfeed.access.keys_file import regular_content
    from marketfeed.access.loading import MAX_KEY_BYTES, key_from
    from marketfeed.access.minting import algorithm_of

    chosen: Any = algorithm or auth.algorithm
    if private_key is not None:
        name = f"--private-key: {private_key}"
        key = regular_content(private_key, "--private-key", MAX_KEY_BYTES)
        if chosen is None:
            try:
                chosen = algorithm_of(key)
            except ValueError as error:
                raise ConfigError(f"{name}: {error}") from None
        return key, chosen, name
    if chosen is None:
        raise ConfigError("auth.algorithm: missing; marketfeed token --new-key FILE makes a key to configure")
    if chosen != "HS256":
        raise ConfigError(f"--private-key: required with {chosen}: the engine has only the public half")
    return key_from(auth, os.environ, "HS256"), "HS256", "auth.key_file"


def _warn_of_token(
    text: str, claims: dict[str, Any], config: Config, payload: dict[str, Any], kid: str | None
) -> None:
    """Warn if the engine with this configuration would refuse the token, or if it shows nothing."""
    from marketfeed.access.loading import is_address, load_material
    from marketfeed.access.verifier import Verifier

    auth = config.auth
    if auth.mode != "jwt":
        warn(f'auth.mode is "{auth.mode}": set it to "jwt" for an engine that takes tokens')
        _warn_of_unverified(claims, config, payload)
        return
    if auth.jwks is not None and is_address(auth.jwks):
        if kid is None:
            warn("auth.jwks: without --kid it is verified only if the set has one key")
        _warn_of_unverified(claims, config, payload)
        return
    try:
        grant = Verifier(config, load_material(auth, os.environ)).verify(text, payload["iat"])
    except (AccessError, ConfigError) as error:
        warn_of_refusal(error, claims, config)
        return
    warn_of_nothing(grant.entitlement)


def _warn_of_unverified(claims: dict[str, Any], config: Config, payload: dict[str, Any]) -> None:
    """Warn of what the engine would refuse in a token that cannot be verified here."""
    if payload["exp"] - payload["iat"] > config.auth.max_ttl_s:
        warn("the engine will refuse it: the token is valid for longer than auth.max_ttl_s")
    warn_of_claims(claims, config)


def _make_key(path: Path, algorithm: Algorithm) -> None:
    """Write a new key to ``path``, and its public half to ``path``.pub; existing files stay."""
    from marketfeed.access.minting import new_signing_key

    private, public = new_signing_key(algorithm)
    public_path = path.with_name(f"{path.name}.pub")
    if public and os.path.lexists(public_path):
        raise fail(f"--new-key {path}: {public_path} exists; it is not overwritten")
    _create(path, private, 0o600)
    if public:
        _create(public_path, public, 0o644)
    named = str(public_path if public else path).replace("\\", "\\\\").replace('"', '\\"')
    tell(f"{path} has the {'private key' if public else 'secret'}: keep it from others. In config.toml:")
    for line in ("[auth]", 'mode = "jwt"', f'algorithm = "{algorithm}"', f'key_file = "{named}"'):
        typer.echo(line, err=True)


def _create(path: Path, data: bytes, mode: int) -> None:
    from marketfeed.folders import make_secrets_folder

    try:
        make_secrets_folder(path.parent)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(fd, "wb") as file:
            file.write(data)
    except FileExistsError as error:
        why = "the file exists; it is not overwritten"
        if error.filename != str(path):
            why = f"{error.filename} is a file, and no folder"
        raise fail(f"--new-key {path}: {why}") from None
    except (OSError, ValueError) as error:
        raise fail(f"--new-key {path}: {getattr(error, 'strerror', None) or error}") from None
