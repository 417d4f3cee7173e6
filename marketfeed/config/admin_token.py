"""The bearer token of the admin port, from its file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from marketfeed.errors import ConfigError
from marketfeed.secret import Secret, readable_by_all, secret_in

if TYPE_CHECKING:
    from pathlib import Path

KEY: Final = "admin.token_file"
LEAST: Final = 32  # characters: 128 bits if they are hexadecimal digits
_TOKEN: Final = re.compile(r"[!-~]+")


def token_in(file: str, base: Path, key: str = KEY) -> Secret:
    """Return the token in ``file``; a relative path starts at ``base``.

    Raises ConfigError (``key: what is allowed``).
    """
    token = secret_in(key, file, base)
    text = token.reveal()
    if not _TOKEN.fullmatch(text):
        raise ConfigError(f"{key}: {base / file} must hold one token: printable characters without space")
    if len(text) < LEAST:
        raise ConfigError(
            f"{key}: the token in {base / file} must have at least {LEAST} characters: openssl rand -hex 32"
        )
    return token


def exposure(file: str, base: Path) -> str | None:
    """Return one line on why others may know the token in ``file``, else None."""
    path = base / file
    return f"{KEY}: every user may read {path}: chmod o-r {path}" if readable_by_all(path) else None
