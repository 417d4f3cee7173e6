"""Types that packages register as entry points: feeds, rules of alerts, escalations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def load_type(point: EntryPoint, where: str) -> Any:
    """Return the object of an entry point, whose ``Config`` is a ``msgspec.Struct``.

    Raises ConfigError, beginning with ``where``, the key that names it, such as ``feeds.0.type``.
    """
    # Third-party code: an import may raise anything, and the error must name the type.
    try:
        found = point.load()
        is_type = issubclass(found.Config, msgspec.Struct)
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{where}: {point.name} ({point.value}) cannot be loaded: {why}") from error
    if not is_type:
        raise ConfigError(f"{where}: {point.name} ({point.value}) has a Config that is not a msgspec.Struct")
    return found
