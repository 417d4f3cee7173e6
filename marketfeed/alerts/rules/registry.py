"""Rule types by name, from the entry points ``marketfeed.rules``, built-in and third-party."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from marketfeed.alerts.alert import Severity
from marketfeed.alerts.patterns import Patterns
from marketfeed.config.guesses import guess
from marketfeed.config.plugins import load_type
from marketfeed.config.validation import checked, mistakes, shown, without
from marketfeed.core.symbols import is_pattern, is_symbol
from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from marketfeed.alerts.rules.rule import Problem, RuleType

GROUP: Final = "marketfeed.rules"
RESERVED: Final = ("notice", "watcher", "escalation")  # names of alerts that no rule raises
FEED_DOWN: Final = "feed_down"  # the type whose alerts are about feeds, not symbols
MAX_RULES: Final = 256
_SECTION: Final = "alerts.rules"


class Common(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keys common to all ``[[alerts.rules]]`` tables."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    type: str
    symbols: str | list[str] = "*"
    severity: Severity = "warning"
    cooldown_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    inhibited_by: list[str] = []

    @property
    def patterns(self) -> tuple[str, ...]:
        """Names and prefix patterns of the symbols that the rule is about."""
        return (self.symbols,) if isinstance(self.symbols, str) else tuple(self.symbols)


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """A validated ``[[alerts.rules]]`` table with its rule type."""

    common: Common
    factory: RuleType
    settings: msgspec.Struct
    where: str  # path of its table, such as alerts.rules.0


def rule_specs(tables: Sequence[dict[str, Any]]) -> list[RuleSpec]:
    """Parse the ``[[alerts.rules]]`` tables; raises ConfigError (``alerts.rules.0.key: …``)."""
    specs, found = read_specs(tables)
    if found:
        raise ConfigError(*found)
    return specs


def read_specs(tables: Sequence[dict[str, Any]]) -> tuple[list[RuleSpec], list[str]]:
    """Parse the ``[[alerts.rules]]`` tables; return the rules without mistakes, and all mistakes."""
    if len(tables) > MAX_RULES:
        return [], [f"{_SECTION}: at most {MAX_RULES}, not {len(tables)}"]
    types = {point.name: point for point in entry_points(group=GROUP)}
    names = [table.get("name", table.get("type")) for table in tables]
    specs: list[RuleSpec] = []
    found: list[str] = []
    for index, table in enumerate(tables):
        where = f"{_SECTION}.{index}"
        wrong = list(_relations(index, table, names))
        try:
            spec = _spec(table, where, types)
            if not wrong:
                specs.append(spec)
        except ConfigError as error:
            found += error.mistakes
        found += wrong
    return specs, found


def unmatched(specs: Iterable[RuleSpec], names: Iterable[str]) -> list[str]:
    """Return a warning per pattern that matches none of the ``names`` of symbols."""
    known = list(names)
    return [
        f"{spec.where}.symbols: {shown(pattern)} matches no symbol yet (rule {shown(spec.common.name)})"
        for spec in specs
        if spec.common.type != FEED_DOWN
        for pattern in spec.common.patterns
        if pattern != "*" and not any(map(Patterns((pattern,)).match, known))
    ]


def _relations(index: int, table: dict[str, Any], names: Sequence[Any]) -> Iterator[str]:
    """Yield the mistakes between this table and the others."""
    where, name = f"{_SECTION}.{index}", names[index]
    if isinstance(name, str):
        first = names.index(name)
        if first != index:
            yield f"{where}.name: another rule is named {shown(name)}: {_SECTION}.{first}"
        if name in RESERVED:
            yield f"{where}.name: {shown(name)} is reserved"
    others = [other for other in names if isinstance(other, str) and other != name]
    inhibitors = table.get("inhibited_by")
    for number, other in enumerate(inhibitors if isinstance(inhibitors, list) else ()):
        if isinstance(other, str) and other not in others:
            rules = ", ".join(others) or "(there are none)"
            hint = guess(other, others)
            yield (
                f"{where}.inhibited_by.{number}: must be the name of another rule, not {shown(other)}"
                f"{hint or ';'} one of {rules}"
            )


def _spec(table: dict[str, Any], where: str, types: Mapping[str, EntryPoint]) -> RuleSpec:
    """Parse one table at the path ``where``; raises ConfigError with all its mistakes."""
    kind = table.get("type")
    if not isinstance(kind, str) or kind not in types:
        what = "missing" if kind is None else f"unknown rule type {shown(kind)}"
        hint = guess(kind, types) if isinstance(kind, str) else ""
        raise ConfigError(f"{where}.type: {what}{hint or ';'} one of {', '.join(sorted(types))}")
    factory: RuleType = load_type(types[kind], f"{where}.type")
    shared = [field.encode_name for field in msgspec.structs.fields(Common)]
    common = {"name": kind} | {key: table[key] for key in shared if key in table}
    settings = {key: value for key, value in table.items() if key not in shared}
    found = [*mistakes(common, Common, (where,)), *mistakes(settings, factory.Config, (where,), shared)]
    lines = [str(mistake) for mistake in found]
    read: Common | None = None
    if not any(mistake.path[1] in common for mistake in found):
        read = msgspec.convert(common, Common)
        lines += [f"{where}.{key}: {what}" for key, what in _symbol_problems(read)]
    own = [mistake._replace(path=mistake.path[1:]) for mistake in found]
    try:
        right = checked(without(settings, own), factory.Config, where)
    except ConfigError as error:
        raise ConfigError(*(lines or error.mistakes)) from None
    wrong = {str(mistake.path[0]) for mistake in own}
    problems: Iterable[Problem] = getattr(right, "problems", tuple)()
    lines += [f"{where}.{key}: {what}" for key, what in problems if not wrong]
    if lines or read is None:
        raise ConfigError(*lines)
    return RuleSpec(read, factory, right, where)


def _symbol_problems(common: Common) -> Iterator[tuple[str, str]]:
    if not common.patterns:
        yield "symbols", "must have at least one name or pattern"
    for number, pattern in enumerate(common.patterns):
        if not is_symbol(pattern) and not is_pattern(pattern):
            key = "symbols" if isinstance(common.symbols, str) else f"symbols.{number}"
            yield key, f"must be a symbol, a prefix with * at its end, or *, not {shown(pattern)}"
