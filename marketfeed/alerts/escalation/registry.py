"""Escalations from ``[[alerts.escalate]]`` tables, with kinds by entry point, built-in and third-party."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from marketfeed.alerts.alert import Severity
from marketfeed.alerts.escalation.message import Kind, Sender, Setup
from marketfeed.alerts.escalation.pending import Plan
from marketfeed.config.guesses import guess
from marketfeed.config.plugins import load_type
from marketfeed.config.validation import Mistake, checked, mistakes, shown, without
from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

GROUP: Final = "marketfeed.escalations"
PATH: Final = "alerts.escalate"
MOST: Final = 32  # escalations


class Common(msgspec.Struct, frozen=True):
    """Keys common to all ``[[alerts.escalate]]`` tables."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    kind: str
    severity: Severity = "critical"  # the least that escalates
    after_s: Annotated[float, Meta(ge=0, le=604_800)] = 300.0  # from the raised alert to the first message


_COMMON: Final = tuple(field.encode_name for field in msgspec.structs.fields(Common))


@dataclass(frozen=True, slots=True)
class Escalation:
    """A validated ``[[alerts.escalate]]`` table with its sender."""

    plan: Plan  # for the schedule
    sender: Sender


def escalations(tables: Sequence[dict[str, Any]], base: Path, environ: Mapping[str, str]) -> list[Escalation]:
    """Build the escalations of ``tables``; raises ConfigError with all mistakes.

    Each is a line ``alerts.escalate.0.key: what is allowed``. Reads the files of secrets, whose relative
    paths start at ``base``; ``environ`` is the environment. Connects to nothing.
    """
    if len(tables) > MOST:
        raise ConfigError(f"{PATH}: at most {MOST}, not {len(tables)}")
    kinds = {point.name: point for point in entry_points(group=GROUP)}
    built: list[Escalation] = []
    found: list[str] = []
    names: dict[str, int] = {}
    for index, table in enumerate(tables):
        where = f"{PATH}.{index}"
        try:
            built.append(_escalation(table, where, kinds, base, environ))
        except ConfigError as error:
            found += error.mistakes
        name = table.get("name", table.get("kind"))
        if isinstance(name, str) and names.setdefault(name, index) != index:
            found.append(f"{where}.name: another escalation is named {shown(name)}: {PATH}.{names[name]}")
    if found:
        raise ConfigError(*found)
    return built


def _escalation(
    table: dict[str, Any],
    where: str,
    kinds: Mapping[str, EntryPoint],
    base: Path,
    environ: Mapping[str, str],
) -> Escalation:
    """Build the escalation of the table at the path ``where``; raises ConfigError with all its mistakes."""
    name = table.get("kind")
    if not isinstance(name, str) or name not in kinds:
        what = "missing" if name is None else f"unknown kind {shown(name)}"
        hint = guess(name, kinds) if isinstance(name, str) else ""
        raise ConfigError(f"{where}.kind: {what}{hint or ';'} one of {', '.join(sorted(kinds))}")
    kind: Kind = load_type(kinds[name], f"{where}.kind")
    common = {"name": name} | {key: table[key] for key in _COMMON if key in table}
    settings = {key: value for key, value in table.items() if key not in _COMMON}
    wrong = [*mistakes(common, Common), *mistakes(settings, kind.Config, (), _COMMON)]
    found = [str(_discreet(mistake)._replace(path=(where, *mistake.path))) for mistake in wrong]
    try:
        read = msgspec.convert({"name": name} | without(common, wrong), Common)
        own = checked(without(settings, wrong), kind.Config)
    except (ConfigError, msgspec.ValidationError) as error:
        # A mandatory key is missing or wrong: without it there is nothing to build.
        raise ConfigError(*found or [f"{where}: {error}"]) from None
    sender = None
    try:
        sender = kind(own, Setup(read.name, base, environ))
    except ConfigError as error:
        keys = {str(mistake.path[0]) for mistake in wrong}
        found += [f"{where}.{line}" for line in error.mistakes if not _about(line, keys)]
    if found or sender is None:
        raise ConfigError(*found)
    return Escalation(Plan(read.name, read.severity, read.after_s, sender.resend_s, sender.batch), sender)


def _discreet(mistake: Mistake) -> Mistake:
    """Return ``mistake`` without the value of a URL: its path may hold a token."""
    is_url = str(mistake.path[0]).startswith("url")
    return mistake._replace(what=mistake.what.partition(", not ")[0]) if is_url else mistake


def _about(line: str, keys: set[str]) -> bool:
    """Return whether the mistake ``line`` follows from one in ``keys``, such as a missing alternative."""
    key = line.partition(":")[0].partition(".")[0]
    stem = key.removesuffix("_file").removesuffix("_env")
    return not keys.isdisjoint({key, f"{stem}_file", f"{stem}_env"})
