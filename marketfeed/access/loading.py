"""Reads what is needed to verify keys and tokens: the files and the variable that ``[auth]`` names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from marketfeed.access.keys_file import load_keys, regular_content
from marketfeed.access.material import Material
from marketfeed.access.tokens import key_of, keys_of_set
from marketfeed.errors import AccessError, ConfigError, gathered
from marketfeed.http_client import trusting
from marketfeed.secret import readable_by_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from marketfeed.config.schema import AuthConfig

VARIABLE: Final = "MARKETFEED_JWT_KEY"
MAX_KEY_BYTES: Final = 65_536  # of a key file
MAX_SET_BYTES: Final = 1 << 20  # of a JWKS document


def load_material(config: AuthConfig, environ: Mapping[str, str]) -> Material:
    """Return the keys that ``config`` names, after checking each of them.

    The paths in ``config`` are absolute. A set of keys at an address is not fetched: see jwks.KeySet.
    Raises ConfigError with all mistakes, ``auth.key: what is allowed``. What config/rules.py reports, such as
    a missing ``algorithm``, is not reported again.
    """
    if config.mode == "keys" and config.keys_file is not None:
        return Material(keys=load_keys(Path(config.keys_file)))
    if config.mode != "jwt" or config.algorithm is None:
        return Material()
    found: list[str] = []
    key = previous = jwks = b""
    with gathered(found):
        if config.jwks is None:
            key = key_from(config, environ, config.algorithm)
        elif environ.get(VARIABLE):
            raise ConfigError(f"auth.jwks: not allowed together with the environment variable {VARIABLE}")
    with gathered(found):
        if config.jwks is not None:
            jwks = _set(config.jwks, config.algorithm)
    with gathered(found):
        if config.jwks is None and config.previous_key_file is not None:
            name = "auth.previous_key_file"
            previous = _checked(_content(config.previous_key_file, name), config.algorithm, name)
    if found:
        raise ConfigError(*found)
    until = config.valid_until
    return Material(
        key=key,
        previous_key=previous,
        previous_until_s=None if until is None else until.timestamp(),
        jwks=jwks,
    )


def is_address(jwks: str) -> bool:
    """Return whether ``auth.jwks`` is an address, from which the set of keys is fetched, and not a path."""
    return "://" in jwks


def exposed(config: AuthConfig) -> list[str]:
    """Return warnings, ``auth.key: what is wrong``: files with secrets that every user can read."""
    names = {"none": (), "keys": ("keys_file",), "jwt": ("key_file", "previous_key_file")}[config.mode]
    found: list[str] = []
    for name in names:
        path = getattr(config, name)
        try:
            if path is None or not readable_by_all(Path(path)):
                continue
            with Path(path).open("rb") as file:
                private = name != "keys_file" and b"PRIVATE KEY" in file.read(MAX_KEY_BYTES)
        except (OSError, ValueError):
            continue  # load_material reports it
        if private:
            found.append(
                f"auth.{name}: {path} has a private key, and every user may read it: keep the public half"
            )
        elif name == "keys_file" or config.algorithm == "HS256":
            found.append(f"auth.{name}: every user may read {path}: chmod o-r {path}")
    return found


def key_from(config: AuthConfig, environ: Mapping[str, str], algorithm: str) -> bytes:
    """Return the key in ``auth.key_file`` or the environment, checked; raises ConfigError."""
    text = environ.get(VARIABLE, "")
    if config.key_file is None and not text:
        raise ConfigError(
            'auth.key_file: missing; auth.mode = "jwt" requires it, the environment variable '
            f"{VARIABLE}, or auth.jwks: marketfeed token --new-key FILE makes a key"
        )
    if config.key_file is None:
        data = text.encode("utf-8", "surrogateescape")
        return _checked(data, algorithm, f"auth.key_file: the environment variable {VARIABLE}")
    if text:
        raise ConfigError(f"auth.key_file: not allowed together with the environment variable {VARIABLE}")
    return _checked(_content(config.key_file, "auth.key_file"), algorithm, "auth.key_file")


def _content(path: str, name: str) -> bytes:
    data = regular_content(Path(path), name, MAX_KEY_BYTES)
    if not data.strip():
        raise ConfigError(f"{name}: {path} is empty")
    return data


def _checked(data: bytes, algorithm: str, name: str) -> bytes:
    """Return ``data`` if it is a key for ``algorithm``; raises ConfigError (``name: …``)."""
    key_of(data, algorithm, name)
    return data


def _set(jwks: str, algorithm: str) -> bytes:
    """Return the JWKS document at a path, b"" for an address; raises ConfigError."""
    name = "auth.jwks"
    if is_address(jwks):
        trusting(jwks.partition("://")[0].lower(), name)
        return b""
    document = regular_content(Path(jwks), name, MAX_SET_BYTES)
    try:
        keys_of_set(document, algorithm)
    except AccessError as error:
        raise ConfigError(f"{name}: {jwks}: {error}") from None
    return document
