"""Reads what is needed to verify keys and tokens: the files and the variable that ``[auth]`` names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from marketfeed.access.material import KeyEntry, Material
from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from marketfeed.config.schema import AuthConfig

VARIABLE: Final = "MARKETFEED_JWT_KEY"
MAX_SET_BYTES: Final = 1 << 20  # of a JWKS document


class _KeysFile(msgspec.Struct, frozen=True):
    keys: tuple[KeyEntry, ...]


def load_material(config: AuthConfig, environ: Mapping[str, str]) -> Material:
    """Return the keys that ``config`` names. Raises ConfigError (``auth.key: what is allowed``).

    A set of keys at an address is not fetched: see jwks.KeySet.
    """
    if config.mode == "keys" and config.keys_file is not None:
        try:
            found = msgspec.json.decode(_content(config.keys_file, "keys_file"), type=_KeysFile)
        except msgspec.DecodeError as error:
            raise ConfigError(f"auth.keys_file: {config.keys_file}: {error}") from None
        return Material(keys=found.keys)
    if config.mode != "jwt" or config.algorithm is None:
        return Material()
    if config.jwks is not None:
        return Material(jwks=b"" if is_address(config.jwks) else _content(config.jwks, "jwks"))
    key = environ.get(VARIABLE, "").encode("utf-8", "surrogateescape")
    if config.key_file is not None:
        key = _content(config.key_file, "key_file")
    if not key:
        raise ConfigError(f"auth.key_file: missing; required, or the environment variable {VARIABLE}")
    previous, until = config.previous_key_file, config.valid_until
    return Material(
        key=key,
        previous_key=b"" if previous is None else _content(previous, "previous_key_file"),
        previous_until_s=None if until is None else until.timestamp(),
    )


def is_address(jwks: str) -> bool:
    """Return whether ``auth.jwks`` is an address, from which the set of keys is fetched, and not a path."""
    return "://" in jwks


def _content(path: str, key: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"auth.{key}: {path}: {error.strerror or error}") from None
