"""Secrets, from a file or the environment. Their values are in no message and no repr.

A file is refused if its group or all users may write it, because they could replace the secret. Its group may
read it: the engine and a scraper may run as different users.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta

from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        return secret_in(f"{key}_file", file, base)
    if env is not None:
        return Secret(_variable(f"{key}_env", env, environ))
    return None


def required(secret: Secret | None, key: str) -> Secret:
    """Return ``secret``; raises ConfigError if it is None."""
    if secret is None:
        raise ConfigError(f"{key}_file: missing; must be the path of a file, or {key}_env must be a variable")
    return secret


def secret_in(key: str, file: str, base: Path) -> Secret:
    """Return the secret in ``file``; a relative path starts at ``base``.

    White space around the secret is removed. The file must be a regular file of at most 4096 bytes of ASCII,
    and only its owner may write it. Raises ConfigError (``key: what is allowed``).
    """
    path = base / file
    try:
        data = owned_bytes(key, path, _MOST_BYTES)
    except OSError as error:
        if _LIKE_A_SECRET.fullmatch(_shown(file, base)):
            raise ConfigError(f"{key}: must be the path of a file that holds the secret") from None
        raise ConfigError(f"{key}: {path}: {error.strerror}") from None
    except ValueError:  # such as a null character
        raise ConfigError(f"{key}: must be the path of a file") from None
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{key}: {path} has more than {_MOST_BYTES} bytes")
    try:
        text = data.decode("ascii").strip()
    except UnicodeDecodeError:
        raise ConfigError(f"{key}: {path} is not plain ASCII text") from None
    if not text:
        raise ConfigError(f"{key}: {path} is empty")
    return Secret(text)


def owned_bytes(key: str, path: Path, most_bytes: int = -1) -> bytes:
    """Return the content of a regular file that only its owner may write.

    At most ``most_bytes`` of it and one more; -1: all. Raises OSError, ValueError and ConfigError.
    """
    # Without O_NONBLOCK, opening a named pipe would wait for its writer.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as source:
        mode = os.fstat(source.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise ConfigError(f"{key}: {path} is no regular file")
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ConfigError(f"{key}: {path} may be written by its group or by all users: chmod go-w {path}")
        return source.read(-1 if most_bytes < 0 else most_bytes + 1)


def readable_by_all(path: Path) -> bool:
    """Return whether every user of this machine may read the file; False if there is none."""
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def _shown(file: str, base: Path) -> str:
    """Return the part of a path that may be a secret in place of a path."""
    path = Path(file)
    if not path.is_absolute():
        return file
    return str(path.relative_to(base)) if path.is_relative_to(base) else path.name


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
