"""Secrets of escalations, from a file or the environment. Their values are in no message and no repr."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta

from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Name = Annotated[str, Meta(min_length=1)]  # of a file, or of a variable
_MOST_BYTES: Final = 4096
# What a person may write in place of a file's or a variable's name. Never repeated in an error.
_LIKE_A_SECRET: Final = re.compile(r"whsec_.*|[A-Za-z0-9+/=_-]{20,}", re.DOTALL)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Secret:
    """A value that is shown nowhere; :meth:`reveal` returns it to the code that sends it."""

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """Return the value."""
        return self.__value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> str:
        raise TypeError("a Secret cannot be pickled or copied")


def read_secret(
    key: str, file: str | None, env: str | None, base: Path, environ: Mapping[str, str]
) -> Secret | None:
    """Return the secret in the file ``file`` or the variable ``env``; None if neither is given.

    ``key`` is the name without ``_file`` and ``_env``. Raises ConfigError (``key_file: what is allowed``).
    White space around the value is removed.
    """
    if file is not None and env is not None:
        raise ConfigError(f"{key}_env: not allowed together with {key}_file: there must be one of them")
    if file is not None:
        return Secret(_content(f"{key}_file", file, base))
    if env is not None:
        return Secret(_variable(f"{key}_env", env, environ))
    return None


def required(secret: Secret | None, key: str) -> Secret:
    """Return ``secret``; raises ConfigError if it is None."""
    if secret is None:
        raise ConfigError(f"{key}_file: missing; must be the path of a file, or {key}_env must be a variable")
    return secret


def _content(key: str, file: str, base: Path) -> str:
    try:
        with (base / file).open("rb") as source:
            data = source.read(_MOST_BYTES + 1)
    except OSError as error:
        if _LIKE_A_SECRET.fullmatch(file):
            raise ConfigError(f"{key}: must be the path of a file that holds the secret") from None
        raise ConfigError(f"{key}: {base / file}: {error.strerror}") from None
    except ValueError:  # such as a null character
        raise ConfigError(f"{key}: must be the path of a file") from None
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{key}: {base / file} has more than {_MOST_BYTES} bytes")
    try:
        text = data.decode("ascii").strip()
    except UnicodeDecodeError:
        raise ConfigError(f"{key}: {base / file} is not plain ASCII text") from None
    if not text:
        raise ConfigError(f"{key}: {base / file} is empty")
    return text


def _variable(key: str, env: str, environ: Mapping[str, str]) -> str:
    if not _VARIABLE.fullmatch(env) or env.startswith("whsec_"):
        raise ConfigError(f"{key}: must be the name of an environment variable")
    text = environ.get(env, "").strip()
    if not text:
        named = "of that name" if _LIKE_A_SECRET.fullmatch(env) and "_" not in env else env
        raise ConfigError(f"{key}: the environment variable {named} is not set, or is empty")
    if not text.isascii():
        raise ConfigError(f"{key}: the environment variable {env} is not plain ASCII text")
    return text
