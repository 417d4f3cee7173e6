"""Feed types by name; built-in and third-party ones alike are entry points of ``marketfeed.feeds``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

import msgspec

from marketfeed.errors import ConfigError
from marketfeed.ingest.feed import FeedType
from marketfeed.ingest.pump import MAX_FEEDS
from marketfeed.tables import checked

GROUP: Final = "marketfeed.feeds"


@dataclass(frozen=True, slots=True)
class FeedSpec:
    """A ``[[feeds]]`` table, its type found and its keys checked."""

    name: str
    factory: FeedType
    settings: msgspec.Struct


def feed_specs(tables: Sequence[dict[str, Any]]) -> list[FeedSpec]:
    """Return the feeds that the ``[[feeds]]`` tables describe; raises ConfigError (``feeds.0.key: …``)."""
    if len(tables) > MAX_FEEDS:
        raise ConfigError(f"feeds: at most {MAX_FEEDS}")
    types = {point.name: point for point in entry_points(group=GROUP)}
    specs: list[FeedSpec] = []
    for index, table in enumerate(tables):
        where = f"feeds.{index}"
        settings = dict(table)
        kind = settings.pop("type", None)
        name = settings.pop("name", kind)
        if not isinstance(kind, str) or kind not in types:
            raise ConfigError(f"{where}.type: {_said(kind)}; one of {', '.join(sorted(types))}")
        if not isinstance(name, str) or not 0 < len(name) <= 64:
            raise ConfigError(f"{where}.name: a text of 1 to 64 characters")
        if any(spec.name == name for spec in specs):
            raise ConfigError(f"{where}.name: another feed is named {name} already")
        factory = _load(types[kind], where)
        specs.append(FeedSpec(name, factory, checked(settings, factory.Config, where)))
    return specs


def _load(point: EntryPoint, where: str) -> FeedType:
    # Third-party code: whatever its import raises, the operator is told which feed type it was.
    try:
        factory: FeedType = point.load()
        is_feed_type = issubclass(factory.Config, msgspec.Struct)
    except Exception as error:
        why = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ConfigError(f"{where}.type: {point.name} ({point.value}) cannot be loaded: {why}") from error
    if not is_feed_type:
        raise ConfigError(
            f"{where}.type: {point.name} ({point.value}) has a Config that is no msgspec.Struct"
        )
    return factory


def _said(kind: object) -> str:
    return "missing" if kind is None else f"unknown feed type {kind!r}"
