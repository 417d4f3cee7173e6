"""Where the values of a configuration come from: the text of a file, and ``--set`` on the command line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from marketfeed.errors import ConfigError

_KEY_PATH: Final = re.compile(r"[a-z_]+(?:\.[A-Za-z0-9_-]+)+")


def file_text(path: Path, source: str) -> str:
    """Return the text of ``path``, which is called ``source`` in errors; raises ConfigError."""
    try:
        return path.read_text("utf-8-sig")  # editors on Windows begin a file with a byte order mark
    except OSError as error:
        raise ConfigError(f"{source}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        byte, line = error.object[error.start], error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{source}: not UTF-8 text: byte 0x{byte:02x} in line {line}") from None


def parsed(text: str, source: str) -> dict[str, Any]:
    """Return the tables of a TOML ``text``; raises ConfigError, with line and column."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{source}: not TOML: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and numbers with too many digits
        lines = text.split("\n")
        end = f"(at line {len(lines)}, column {len(lines[-1]) + 1}, the end of the file)"
        reason = " ".join(str(error).replace("(at end of document)", end).split())
        raise ConfigError(f"{source}: not TOML: {reason}") from None


def applied(data: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Apply ``overrides`` to ``data`` in order.

    Values are TOML; a value that is no TOML is taken as a string. A list of
    tables goes by index. Returns which override set each path (``gateway.port``;
    tables that it had to add, too), and one line for each override that
    cannot be applied.
    """
    origins: dict[str, str] = {}
    refused: list[str] = []
    for override in overrides:
        try:
            for path in _apply(data, override):
                origins[path] = override
        except ValueError as error:
            refused.append(f"--set {override}: {error}")
    return origins, refused


def _apply(data: dict[str, Any], override: str) -> list[str]:
    """Set one value in ``data``; return the paths that this made. Raises ValueError."""
    path, equals, text = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise ValueError("written as dotted.path=value")
    made: list[str] = []
    at: Any = data
    for depth, key in enumerate(keys[:-1]):
        if isinstance(at, dict):
            if key == "feeds" and key not in at:
                raise ValueError("the configuration has no feeds")
            if key not in at:
                made.append(".".join(keys[: depth + 1]))
            at = at.setdefault(key, {})
        else:
            at = at[_index(at, key)]
    last = keys[-1]
    if isinstance(at, dict):
        at[last] = _value(text)
    else:
        at[_index(at, last)] = _value(text)
    return [*made, ".".join(keys)]


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # of numbers with too many digits, too
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _index(items: Any, key: str) -> int:
    if not isinstance(items, list):
        raise ValueError(f"{key} is below a plain value")
    if not items:
        raise ValueError(f"{key} is an index into an empty list")
    if not (key.isascii() and key.isdecimal()) or len(key) > 6 or int(key) >= len(items):
        raise ValueError(f"{key} is not an index from 0 to {len(items) - 1}")
    return int(key)


def sourced(mistake: str, source: str, origins: dict[str, str]) -> str:
    """Return the line that reports ``mistake``, with the ``--set`` that the value is from, or the file.

    Where the value is the file's, and what is said of it names a key that was set, the ``--set`` stands at
    the end of the line.
    """
    where, _, what = mistake.partition(": ")
    for key in where.split(", "):
        parts = key.split(".")
        for end in range(len(parts), 0, -1):
            path = ".".join(parts[:end])
            if path in origins:
                override = origins[path]
                itself = where == ".".join(part.strip() for part in override.partition("=")[0].split("."))
                return f"--set {override}: {what if itself else mistake}"
    named = [origins[key] for key in dict.fromkeys(_KEY_PATH.findall(what)) if key in origins]
    return f"{source}: {mistake}" + "".join(f" (--set {override})" for override in named)
