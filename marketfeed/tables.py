"""Tables of a TOML file checked against structs: what is wrong comes back as one line for the operator."""

from __future__ import annotations

import difflib
import re
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

from marketfeed.errors import ConfigError

T = TypeVar("T", bound=msgspec.Struct)

_WHERE: Final = re.compile(r"(?P<what>.*?)(?: - at `(?:key in )?\$(?P<path>[^`]*)`)?", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`")
_ANY_KEY: Final = "[...]"  # what msgspec says for a key of a dict


def checked(table: Any, struct: type[T], prefix: str = "") -> T:
    """Return ``table`` as a ``struct``; raises ConfigError (``key.path: what is allowed``, one line).

    ``prefix`` is the path of ``table`` itself. An unknown key is an error,
    which names the keys that are allowed.
    """
    try:
        return msgspec.convert(table, struct)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error), struct, table, prefix)) from None


def _explain(error: str, struct: type[msgspec.Struct], table: Any, prefix: str) -> str:
    match = _WHERE.fullmatch(error)
    what, path = (match["what"], match["path"] or "") if match else (error, "")
    path = _named(re.sub(r"\[(\d+)\]", r".\1", path).strip("."), struct, table)
    unknown = _UNKNOWN.fullmatch(what)
    if unknown:
        what = _allowed(unknown["key"], inspect.type_info(struct), path)
        path = _join(path, unknown["key"])
    elif what.startswith("Invalid enum value"):
        kind = inspect.type_info(struct)
        for part in filter(None, path.split(".")):
            kind = _below(kind, part)
        if isinstance(kind, inspect.LiteralType):
            what = f"one of {', '.join(map(str, kind.values))}, not {what.rpartition('value ')[2]}"
    return " ".join(f"{_join(prefix, path)}: {what[0].lower() + what[1:].replace('`', '')}".split())


def _join(*paths: str) -> str:
    return ".".join(filter(None, paths))


def _named(path: str, struct: type[msgspec.Struct], table: Any) -> str:
    """Put the key of the first entry that fails in place of each ``[...]`` of msgspec's path."""
    head, gap, tail = path.partition(_ANY_KEY)
    if not gap:
        return path
    head = head.strip(".")
    within: Any = table
    for key in filter(None, head.split(".")):
        within = within[int(key)] if isinstance(within, list) else within[key]
    for name, entry in within.items():
        try:
            msgspec.convert(_nested(head, {name: entry}), struct)
        except msgspec.ValidationError:
            return _named(_join(head, name, tail.strip(".")), struct, table)
    return _join(head, tail.strip("."))


def _nested(path: str, value: Any) -> Any:
    for key in reversed(path.split(".") if path else []):
        value = {key: value}
    return value


def _allowed(key: str, kind: inspect.Type, path: str) -> str:
    """Return what to say of the unknown ``key`` in the table at ``path``."""
    for part in filter(None, path.split(".")):
        kind = _below(kind, part)
    table = _struct(kind)
    if table is None:
        return "unknown key"
    names = [field.encode_name for field in table.fields]
    close = difflib.get_close_matches(key, names, 1)
    return f"unknown key; {f'did you mean {close[0]}? ' if close else ''}allowed: {', '.join(names)}"


def _below(kind: inspect.Type, part: str) -> inspect.Type:
    """Return the type of the key or index ``part`` of a value of type ``kind``."""
    match kind:
        case inspect.UnionType(types=types):
            below = (_below(one, part) for one in types)
            return next((one for one in below if not isinstance(one, inspect.AnyType)), inspect.AnyType())
        case inspect.ListType(item_type=item):
            return item
        case inspect.DictType(value_type=value):
            return value
        case inspect.StructType(fields=fields):
            return next((field.type for field in fields if field.encode_name == part), inspect.AnyType())
        case _:
            return inspect.AnyType()


def _struct(kind: inspect.Type) -> inspect.StructType | None:
    """Return the struct that ``kind`` is or, as an optional table, may be."""
    options = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    return next((option for option in options if isinstance(option, inspect.StructType)), None)
