"""Sources of a configuration's values: a TOML file, and ``--set`` on the command line."""

from __future__ import annotations

import re
import shlex
import tomllib
from typing import TYPE_CHECKING, Any, Final

from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_KEY_PATH: Final = re.compile(r"[a-z_]+(?:\.[A-Za-z0-9_-]+)+")
MAX_ITEMS_LISTED: Final = 8  # in an error about an index that is out of range
MAX_NAME_CHARACTERS: Final = 64  # of an item in that error


def file_text(path: Path, source: str) -> str:
    """Return the text of ``path``. Raises ConfigError, which calls the file ``source``."""
    try:
        return path.read_text("utf-8-sig")  # editors on Windows begin a file with a byte order mark
    except OSError as error:
        raise ConfigError(f"{source}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        byte, line = error.object[error.start], error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{source}: not UTF-8 text: byte 0x{byte:02x} in line {line}") from None


def parsed(text: str, source: str) -> dict[str, Any]:
    """Parse TOML; raises ConfigError with line and column."""
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

    Values are TOML; a value that is not valid TOML is used as a string. Items
    of lists are addressed by index. Returns the override that set each path
    (``gateway.port``; also the tables that it added), and one line for each
    override that cannot be applied.
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
    """Set one value in ``data``; return the paths that were set or added. Raises ValueError."""
    path, equals, text = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise ValueError("must have the form dotted.path=value")
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
            at = at[_index(at, key, keys[:depth])]
    last = keys[-1]
    if isinstance(at, dict):
        at[last] = _value(text)
    else:
        at[_index(at, last, keys[:-1])] = _value(text)
    return [*made, ".".join(keys)]


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # ValueError: also numbers with too many digits
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _index(items: Any, key: str, path: Sequence[str]) -> int:
    """Return ``key`` as an index into ``items``, the value at ``path``; raises ValueError."""
    if not isinstance(items, list):
        raise ValueError(f"{'.'.join(path)} is neither a table nor a list")
    if not (key.isascii() and key.isdecimal()) or len(key) > 6 or int(key) >= len(items):
        name = ".".join(path)
        if not items:
            example = shlex.quote(f'{name}=["…"]')
            raise ValueError(f"{name} is empty and has no {key}; set the whole list: --set {example}")
        there = [f"{i}{_label(item)}" for i, item in enumerate(items[:MAX_ITEMS_LISTED])]
        there += [f"… {len(items) - 1}"] if len(items) > MAX_ITEMS_LISTED else []
        found = f"{name} has no {key}; it has"
        if name == "feeds":
            count = "is one feed," if len(items) == 1 else f"are {len(items)} feeds,"
            found = f"there is no feed {key}; there {count}"
        raise ValueError(f"{found} {', '.join(there)}")
    return int(key)


def _label(item: Any) -> str:
    """Return a plain value, or the name or type of a table, in brackets."""
    if isinstance(item, dict):
        item = item.get("name", item.get("type", ""))
    text = str(item)
    return f" ({text[:MAX_NAME_CHARACTERS]})" if text else ""


def sourced(mistake: str, source: str, origins: dict[str, str]) -> str:
    """Return the line for ``mistake``, prefixed with the ``--set`` or the file that the value is from.

    If the value is from the file, but the message names a key that was set by
    ``--set``, that ``--set`` is appended to the line.
    """
    where, _, what = mistake.partition(": ")
    for key in where.split(", "):
        parts = key.split(".")
        for end in range(len(parts), 0, -1):
            path = ".".join(parts[:end])
            if path in origins:
                override = origins[path]
                itself = where == ".".join(part.strip() for part in override.partition("=")[0].split("."))
                said, write, value = what.rpartition(": write [")
                if itself and write:  # a list: a shell would remove its quotes
                    what = f"{said}: write --set {shlex.quote(f'{where}=[{value}')}"
                return f"--set {override}: {what if itself else mistake}"
    named = [origins[key] for key in dict.fromkeys(_KEY_PATH.findall(what)) if key in origins]
    return f"{source}: {mistake}" + "".join(f" (--set {override})" for override in named)
