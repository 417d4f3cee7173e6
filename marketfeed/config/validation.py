"""Validation of TOML tables against msgspec structs that reports every mistake, one line each.

msgspec stops at the first mistake and names neither the value nor, in a dict, the key. So this module walks
the table and the struct's fields itself, and has msgspec validate the single values.
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import json
import math
import typing
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec import inspect

from marketfeed.config.guesses import guess
from marketfeed.errors import ConfigError

if typing.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

T = TypeVar("T", bound=msgspec.Struct)
Path = tuple[str | int, ...]  # keys and list indices

_SHOWN_CHARACTERS: Final = 60  # of a value in an error
_LISTED: Final = 5  # items of a list in an error
_PER_TABLE: Final = 10  # mistakes reported per list, and per table whose keys are names


class Mistake(NamedTuple):
    """One mistake in a table: the path of the value, and what is allowed there."""

    path: Path
    what: str
    unknown: bool = False  # whether the key does not exist

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path))}: {' '.join(self.what.split())}"


def checked(table: Any, struct: type[T], prefix: str = "", further_keys: Sequence[str] = ()) -> T:
    """Convert ``table`` to ``struct``; raises ConfigError with a line ``key.path: what is allowed`` each.

    ``prefix`` is the path of ``table`` itself. Unknown keys are mistakes,
    except ``further_keys``, which are allowed beside the struct's fields.
    """
    path = (prefix,) if prefix else ()
    if found := mistakes(table, struct, path, further_keys):
        raise ConfigError(*map(str, found))
    try:
        return msgspec.convert(table, struct)
    except msgspec.ValidationError as error:  # raised by the struct itself, such as in __post_init__
        raise ConfigError(str(Mistake(path, str(error)))) from None


def mistakes(
    table: Any, struct: type[msgspec.Struct], path: Path = (), further_keys: Sequence[str] = ()
) -> list[Mistake]:
    """Return every mistake that keeps ``table``, at ``path``, from being a ``struct``, in order of keys."""
    return list(_of_struct(table, struct, path, further_keys))


def without(data: dict[str, Any], wrong: Iterable[Mistake]) -> dict[str, Any]:
    """Return a copy of ``data`` without the values at the paths of ``wrong``, and the lists they are in."""
    data = copy.deepcopy(data)
    for path in (mistake.path for mistake in wrong):
        keys = path[: next((i for i, key in enumerate(path) if isinstance(key, int)), len(path))]
        at: Any = data
        for key in keys[:-1]:
            at = at.get(key, {})
        at.pop(keys[-1], None)
    return data


def shown(value: Any) -> str:
    """Return ``value`` as it is written in TOML, shortened to about 60 characters."""
    match value:
        case str():
            text = json.dumps(value if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}…",
                              ensure_ascii=not value.isprintable())  # fmt: skip
        case bool():
            text = str(value).lower()
        case int() if abs(value) >= 10**_SHOWN_CHARACTERS:
            text = f"an integer of {value.bit_length()} bits"
        case dict():
            text = "a table"
        case list():
            text = "an empty list" if not value else f"a list of {len(value)}"
        case datetime.date() | datetime.time():
            text = value.isoformat()
        case _:
            text = str(value)
    return text


# The walk over a table.


def _of_struct(
    table: Any, struct: type[msgspec.Struct], path: Path, further_keys: Sequence[str] = ()
) -> Iterator[Mistake]:
    if not isinstance(table, dict):
        yield Mistake(path, _no_table(table, path))
        return
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    allowed = [*further_keys, *fields]
    for key, value in table.items():
        if key in fields:
            yield from _of_value(value, fields[key].type, (*path, key))
        elif key not in further_keys and struct.__struct_config__.forbid_unknown_fields:
            # Suggest only keys whose type fits: tables for tables, plain keys for plain values.
            like = [name for name in allowed if name not in fields or _takes(fields[name].type, value)]
            hint = guess(key, like)
            text = f"unknown key{hint or ';'} allowed: {', '.join(allowed)}"
            yield Mistake((*path, key), text, unknown=True)
    for key, field in fields.items():
        if field.required and key not in table:
            yield Mistake((*path, key), f"missing; must be {_allowed(inspect.type_info(field.type))}")


def _of_value(value: Any, kind: Any, path: Path) -> Iterator[Mistake]:
    """Yield the mistakes in ``value``, at ``path``, which must be of the type ``kind``."""
    inner = _matching(value, kind)
    origin, arguments = typing.get_origin(inner) or inner, typing.get_args(inner)
    if _is_plain_struct(origin):
        yield from _of_struct(value, origin, path)
    elif origin in (list, dict) and arguments and isinstance(value, origin):
        items = enumerate(value) if origin is list else value.items()
        found = [one for key, item in items for one in _of_value(item, arguments[-1], (*path, key))]
        # If no item is invalid, the collection itself may be, such as by its length.
        yield from found[:_PER_TABLE] or _of_leaf(value, kind, path)
        if len(found) > _PER_TABLE:
            yield Mistake(path, f"and {len(found) - _PER_TABLE} further mistakes like these")
    else:
        yield from _of_leaf(value, kind, path)


def _of_leaf(value: Any, kind: Any, path: Path) -> Iterator[Mistake]:
    try:
        msgspec.convert(value, kind)
    except (msgspec.ValidationError, ValueError) as error:
        yield Mistake(path, _refusal(value, inspect.type_info(kind), path, str(error)))


def _matching(value: Any, kind: Any) -> Any:
    """Return ``kind`` without annotations; of a union, the member with the shape of ``value``."""
    if typing.get_origin(kind) is Annotated:
        return _matching(value, typing.get_args(kind)[0])
    if not isinstance(inspect.type_info(kind), inspect.UnionType):
        return kind
    for member in (_matching(value, one) for one in typing.get_args(kind)):
        origin = typing.get_origin(member) or member
        if isinstance(value, dict) and (origin is dict or _is_plain_struct(origin)):
            return member
        if isinstance(value, list) and origin is list:
            return member
    return kind


def _takes(kind: Any, value: Any) -> bool:
    """Return whether ``kind`` and ``value`` agree in shape: both are tables, or neither is."""
    info = inspect.type_info(kind)
    kinds = info.types if isinstance(info, inspect.UnionType) else (info,)
    tables = [
        isinstance(one, inspect.StructType | inspect.DictType)
        or (
            isinstance(one, inspect.ListType)
            and isinstance(one.item_type, inspect.StructType | inspect.DictType)
        )
        for one in kinds
    ]
    is_table = isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(v, dict) for v in value)
    )
    return any(tables) if is_table else not all(tables)


def _is_plain_struct(kind: Any) -> bool:
    """Return whether ``kind`` is a struct that is written as a table of its fields and nothing else."""
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return False
    config = kind.__struct_config__
    return config.tag is None and not config.array_like


# Messages.


def _refusal(value: Any, kind: inspect.Type, path: Path, error: str) -> str:
    """Return the message for ``value``, which is not a ``kind``; ``error`` is msgspec's text."""
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    if all(isinstance(one, inspect.StructType | inspect.DictType | inspect.NoneType) for one in kinds):
        named = any(isinstance(one, inspect.DictType) for one in kinds)
        return _no_table(value, (*path, "NAME") if named else path)
    lists = [one.item_type for one in kinds if isinstance(one, inspect.ListType)]
    if isinstance(value, dict) and any(
        isinstance(one, inspect.StructType | inspect.DictType) for one in lists
    ):
        name = ".".join(map(str, path))
        return f"must be a list of tables: write [[{name}]] instead of [{name}]"
    allowed = _allowed(kind)
    if not allowed:
        return f"{error[0].lower()}{error[1:].replace('`', '')}, not {shown(value)}" if error else "invalid"
    text = f"must be {allowed}, not {'the string ' if isinstance(value, str) else ''}{shown(value)}"
    if isinstance(value, dict) and any(map(_is_text, lists)):  # such as by `--set hosts.0=a`
        text += f": write {_listed(', '.join(map(str, value.values())))}"
    if isinstance(value, str):
        if any(isinstance(one, inspect.IntType | inspect.FloatType) for one in kinds) and _is_number(value):
            text += ": write it without quotes"
        elif isinstance(kind, inspect.BoolType) and value.lower() in ("true", "false"):
            text += f": write {value.lower()} without quotes"
        elif any(map(_is_text, lists)):
            text += f": write {_listed(value)}"
        elif isinstance(kind, inspect.LiteralType):
            text += guess(value, map(str, kind.values))
    return text


def _no_table(value: Any, path: Path) -> str:
    name = ".".join(map(str, path))
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return f"must be one table: write [{name}] instead of [[{name.removesuffix('.NAME')}]]"
    return f"must be a table, not {shown(value)}"


def _is_text(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.StrType)


def _listed(text: str) -> str:
    """Return ``text``, such as ``[a, b]``, as a TOML list of strings."""
    inner = text.strip().removeprefix("[").removesuffix("]")
    items = [item.strip().strip("'\"") for item in inner.split(",")] if inner.strip() else []
    return f"[{', '.join(map(shown, items[:_LISTED]))}{', …' if len(items) > _LISTED else ''}]"


def _is_number(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return math.isfinite(float(text))
    return False


def _allowed(kind: inspect.Type) -> str:
    """Describe the values that ``kind`` accepts, such as ``an integer from 0 to 65535``; "" if unknown."""
    match kind:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() | inspect.FloatType():
            return f"{'an integer' if isinstance(kind, inspect.IntType) else 'a number'}{_range(kind)}"
        case inspect.StrType(min_length=low, max_length=high, pattern=pattern):
            return f"a string{_length(low, high)}" + (f" that matches {pattern}" if pattern else "")
        case inspect.LiteralType(values=values):
            return f"one of {', '.join(map(shown, values))}"
        case inspect.EnumType(cls=cls):
            return f"one of {', '.join(shown(one.value) for one in cls)}"
        case inspect.DateType():
            return "a date such as 2014-05-08"
        case inspect.ListType(item_type=item):
            if isinstance(item, inspect.StructType | inspect.DictType):
                return "a list of tables, each written with [[…]]"
            return "a list of strings" if _is_text(item) else "a list"
        case inspect.DictType() | inspect.StructType():
            return "a table"
        case inspect.UnionType(types=types):
            told = [_allowed(one) for one in types if not isinstance(one, inspect.NoneType)]
            return " or ".join(told) if all(told) else ""
        case _:
            return ""


def _range(kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.ge is not None and kind.le is not None:
        return f" from {_number(kind.ge)} to {_number(kind.le)}"
    bounds = (("of at least", kind.ge), ("above", kind.gt), ("at most", kind.le), ("below", kind.lt))
    text = ", ".join(f"{word} {_number(bound)}" for word, bound in bounds if bound is not None)
    return f" {text}" if text else ""


def _number(bound: float) -> str:
    return str(int(bound) if bound == int(bound) else bound)


def _length(low: int | None, high: int | None) -> str:
    match low, high:
        case None | 0, None:
            return ""
        case 1, None:
            return " that is not empty"
        case _, None:
            return f" of at least {low} characters"
        case None | 0, _:
            return f" of at most {high} characters"
        case _ if low == high:
            return f" of {low} character{'' if low == 1 else 's'}"
        case _:
            return f" of {low} to {high} characters"
