"""Feed types by name, from the entry points ``marketfeed.feeds``, built-in and third-party."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from marketfeed.config.guesses import guess
from marketfeed.config.misplaced import homes, placed
from marketfeed.config.plugins import load_type
from marketfeed.config.schema import Config
from marketfeed.config.validation import checked, mistakes, shown, without
from marketfeed.errors import ConfigError
from marketfeed.ingest.pump import MAX_FEEDS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from marketfeed.ingest.feed import FeedType

GROUP: Final = "marketfeed.feeds"
_COMMON: Final = ("name", "type", "required")


@dataclass(frozen=True, slots=True)
class FeedSpec:
    """A validated ``[[feeds]]`` table with its feed type."""

    name: str
    factory: FeedType
    settings: msgspec.Struct
    required: bool = False  # the engine is not ready while this feed is not live
    wrong: frozenset[str] = frozenset()  # invalid keys, absent from ``settings``


class _Common(msgspec.Struct, frozen=True):
    """Keys common to all ``[[feeds]]`` tables."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    type: str
    required: bool = False


def feed_specs(tables: Sequence[dict[str, Any]]) -> list[FeedSpec]:
    """Parse the ``[[feeds]]`` tables; raises ConfigError (``feeds.0.key: …``)."""
    specs, found = read_specs(tables)
    if found:
        raise ConfigError(*found)
    return list(specs.values())


def read_specs(tables: Sequence[dict[str, Any]]) -> tuple[dict[int, FeedSpec], list[str]]:
    """Parse the ``[[feeds]]`` tables; return the feeds by index, and all mistakes.

    A feed with mistakes has ``wrong`` keys, or is missing if those keys are mandatory.
    """
    if len(tables) > MAX_FEEDS:
        return {}, [f"feeds: at most {MAX_FEEDS}, not {len(tables)}"]
    types = {point.name: point for point in entry_points(group=GROUP)}
    specs: dict[int, FeedSpec] = {}
    found: list[str] = []
    names: dict[str, int] = {}
    for index, table in enumerate(tables):
        try:
            spec, wrong = _spec(table, f"feeds.{index}", types)
            found += wrong
            if spec is not None:
                specs[index] = spec
        except ConfigError as error:
            found += error.mistakes
        name = table.get("name", table.get("type"))
        if isinstance(name, str) and names.setdefault(name, index) != index:
            found.append(f"feeds.{index}.name: another feed is named {shown(name)}: feeds.{names[name]}")
            specs.pop(index, None)
    return specs, found


def feed_keys() -> set[str]:
    """Return the keys that ``[[feeds]]`` tables of any type may have."""
    found = set(_COMMON)
    for point in entry_points(group=GROUP):
        with contextlib.suppress(ConfigError):  # reported for feeds of that type
            found |= {field.encode_name for field in msgspec.structs.fields(load_type(point, "").Config)}
    return found


def _spec(
    table: dict[str, Any], where: str, types: Mapping[str, EntryPoint]
) -> tuple[FeedSpec | None, list[str]]:
    """Parse one table at the path ``where``; return its feed and its mistakes; raises ConfigError."""
    kind = table.get("type")
    if not isinstance(kind, str) or kind not in types:
        what = "missing" if kind is None else f"unknown feed type {shown(kind)}"
        hint = guess(kind, types) if isinstance(kind, str) else ""
        raise ConfigError(f"{where}.type: {what}{hint or ';'} one of {', '.join(sorted(types))}")
    factory: FeedType = load_type(types[kind], f"{where}.type")
    # A third-party Config may define its own `required`.
    own = {field.encode_name for field in msgspec.structs.fields(factory.Config)}
    keys = [key for key in _COMMON if key not in own or key != "required"]
    common = {"name": kind} | {key: table[key] for key in keys if key in table}
    settings = {key: value for key, value in table.items() if key not in keys}
    found = [*mistakes(common, _Common), *mistakes(settings, factory.Config, (), keys)]
    here = [mistake._replace(path=(where, *mistake.path)) for mistake in found]
    told = placed(here, _other_tables(), ()) if found else []
    try:
        read = msgspec.convert({"name": kind} | without(common, found), _Common)
        right = checked(without(settings, found), factory.Config, where)
    except (ConfigError, msgspec.ValidationError):
        if not found:
            raise
        return None, told
    wrong = frozenset(str(mistake.path[0]) for mistake in found)
    return FeedSpec(read.name, factory, right, read.required, wrong), told


def _other_tables() -> dict[str, Collection[str]]:
    """Return the keys of all other tables, without those that some feed type also has."""
    keys = feed_keys()
    return {table: [key for key in own if key not in keys] for table, own in homes(Config, ()).items()}
