"""Keys written in the wrong table of a configuration: error messages that name the right one. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import inspect

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from marketfeed.config.validation import Mistake, Path

FEEDS: Final = "[[feeds]]"


def homes(config: type[msgspec.Struct], feed_keys: Collection[str]) -> dict[str, Collection[str]]:
    """Return the keys of each table of a ``config``, keyed by the table's header, such as ``[gateway]``."""
    found: dict[str, Collection[str]] = {}
    for field in inspect.type_info(config).fields:  # type: ignore[attr-defined]
        match field.type:
            case (
                inspect.StructType(fields=fields)
                | inspect.UnionType(types=(inspect.StructType(fields=fields), inspect.NoneType()))
            ):
                found[f"[{field.encode_name}]"] = [one.encode_name for one in fields]
            case inspect.DictType(value_type=inspect.StructType(fields=fields)):
                found[f"[{field.encode_name}.NAME]"] = [one.encode_name for one in fields]
    return {**found, FEEDS: feed_keys}


def placed(
    wrong: Iterable[Mistake], tables: Mapping[str, Collection[str]], overridden: Collection[str]
) -> list[str]:
    """Return one line per mistake in ``wrong``.

    Unknown keys of one table that belong to another one of ``tables`` (see :func:`homes`) share a
    line, which names that table. ``overridden`` holds the paths that ``--set`` has set.
    """
    lines: dict[int, str] = {}
    strays: dict[tuple[Path, bool], dict[int, Path]] = {}
    for number, mistake in enumerate(wrong):
        lines[number] = str(mistake)
        if mistake.unknown and any(mistake.path[-1] in keys for keys in tables.values()):
            group = mistake.path[:-1], _dotted(mistake.path) in overridden
            strays.setdefault(group, {})[number] = mistake.path
    for (_, by_set), paths in strays.items():
        while paths:
            has = {
                table: [n for n, path in paths.items() if path[-1] in keys] for table, keys in tables.items()
            }
            most = max(map(len, has.values()))
            # Several tables have `path`; only feeds have both `path` and `format`.
            best = [table for table, numbers in has.items() if len(numbers) == most]
            numbers = has[best[0]]
            lines[numbers[0]] = _line([paths[number] for number in numbers], best, by_set)
            for number in numbers:
                del paths[number]
                if number != numbers[0]:
                    del lines[number]
    return list(lines.values())


def _line(paths: list[Path], tables: list[str], by_set: bool) -> str:
    where = ", ".join(map(_dotted, paths))
    each, them = ("each ", "them") if len(paths) > 1 else ("", "it")
    table = " or ".join(f"{'a' if table == FEEDS else 'the'} {table}" for table in tables)
    if by_set:
        heads = [table.strip("[]") + (".0" if table == FEEDS else "") for table in tables]
        write = " or ".join(f"--set {head}.{paths[0][-1]}=…" for head in heads)
    else:
        write = f"{' or '.join(tables)} above {them}"
    return f"{where}: unknown here; {each}belongs in {table} table: write {write}"


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))
