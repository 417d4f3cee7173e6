"""Reports of usage: by user, by tenant, and distinct users by symbol prefix. Pure."""

from __future__ import annotations

import datetime
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from marketfeed.access.usage import ALERTS, Counts, User, plus
from marketfeed.api.usage import BY, MAX_DAYS, MAX_PREFIX, PrefixRow, UsageCount, UsageRow
from marketfeed.core.symbols import is_symbol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_EPOCH: Final = datetime.date(1970, 1, 1)
_LAST_YEAR: Final = 9998
DEFAULT_PREFIX: Final = 2  # characters


@dataclass(slots=True)
class DayOfUser:
    """What one user got on one day; ``day`` is a number of days since 1970."""

    day: int
    user: User
    peak: int = 0  # most sessions at a time
    symbols: frozenset[str] = frozenset()
    counts: Counts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a report is about: the days from ``first`` to ``last``, and how it adds up."""

    first: int
    last: int
    tenant: str | None = None  # None: all
    by: str = "user"  # one of BY
    prefixes: tuple[str, ...] | int = DEFAULT_PREFIX  # these, or the number of their characters


def asked(
    today: int,
    day: str = "today",
    days: str = "1",
    tenant: str | None = None,
    by: str = "user",
    prefix: str | None = None,
    prefixes: Sequence[str] | None = None,
) -> Asked:
    """Return what a report is about, from its parameters as text. Raises ValueError with the name of one."""
    last = _day_from(day, today)
    number = _number("days", days, MAX_DAYS)
    if by not in BY:
        raise ValueError(f"by: must be one of {', '.join(BY)}, not {by[:40]!r}")
    if by != "symbols" and (prefix is not None or prefixes):
        raise ValueError(f"{'prefix' if prefix is not None else 'prefixes'}: only with by symbols")
    if prefix is not None and prefixes:
        raise ValueError("prefix: not together with prefixes")
    names = tuple(dict.fromkeys(one.removesuffix("*") for one in prefixes or ()))
    wrong = next((one for one in names if not is_symbol(one)), None)
    if wrong is not None:
        raise ValueError(f"prefixes: not the beginning of a symbol: {wrong[:40]!r}")
    length = DEFAULT_PREFIX if prefix is None else _number("prefix", prefix, MAX_PREFIX)
    return Asked(last - number + 1, last, tenant, by, names or length)


def report(days: Sequence[DayOfUser], about: Asked) -> list[UsageRow] | list[PrefixRow]:
    """Return the rows of a report about some days."""
    if about.by == "symbols":
        return by_prefix(days, about.prefixes)
    return by_user(days) if about.by == "user" else by_tenant(days)


def day_text(day: int) -> str:
    """Return a day as ``2026-11-28``."""
    return (_EPOCH + datetime.timedelta(days=day)).isoformat()


def by_user(days: Iterable[DayOfUser]) -> list[UsageRow]:
    """Return one row per day and user."""
    return [
        _row(
            UsageRow(day=day_text(one.day), tenant=one.user.tenant, sub=one.user.sub, peak=one.peak),
            len(one.symbols),
            one.counts,
        )
        for one in days
    ]


def by_tenant(days: Iterable[DayOfUser]) -> list[UsageRow]:
    """Return one row per day and tenant."""
    of_tenant: dict[tuple[int, str], list[DayOfUser]] = {}
    for one in days:
        of_tenant.setdefault((one.day, one.user.tenant), []).append(one)
    rows: list[UsageRow] = []
    for (day, tenant), users in of_tenant.items():
        counts: Counts = {}
        for one in users:
            plus(counts, one.counts)
        names = frozenset[str]().union(*{one.symbols for one in users})
        row = UsageRow(
            day=day_text(day), tenant=tenant, users=len(users), peak=sum(one.peak for one in users)
        )
        rows.append(_row(row, len(names), counts))
    return rows


def by_prefix(days: Iterable[DayOfUser], prefixes: Sequence[str] | int) -> list[PrefixRow]:
    """Return the distinct users of each prefix and day, as exchanges ask for them.

    ``prefixes`` are these, or the number of characters of all that occur.
    """
    by_day: dict[int, list[DayOfUser]] = {}
    for one in days:
        by_day.setdefault(one.day, []).append(one)
    return [row for day, users in by_day.items() for row in _prefixes_of(day, users, prefixes)]


def _row(row: UsageRow, symbols: int, counts: Counts) -> UsageRow:
    """Return ``row`` with its figures."""
    row.symbols = symbols
    row.counts = [UsageCount(*what, *both) for what, both in sorted(counts.items())]
    row.quotes, row.trades, row.alerts = (
        sum(one.ticks for one in row.counts if one.channel == channel)
        for channel in ("quotes", "trades", ALERTS)
    )
    row.bytes = sum(one.bytes for one in row.counts)
    return row


def _prefixes_of(day: int, users: list[DayOfUser], prefixes: Sequence[str] | int) -> list[PrefixRow]:
    # Many users share a set, whose prefixes are found once.
    sharing: dict[frozenset[str], list[DayOfUser]] = {}
    for one in users:
        sharing.setdefault(one.symbols, []).append(one)
    counts: Counter[str] = Counter()
    tenants: dict[str, set[str]] = {}
    symbols: dict[str, set[str]] = {}
    for names, having in sharing.items():
        matched: dict[str, set[str]] = {}
        for name in names:
            for prefix in _of_name(name, prefixes):
                matched.setdefault(prefix, set()).add(name)
        for prefix, found in matched.items():
            counts[prefix] += len(having)
            tenants.setdefault(prefix, set()).update(one.user.tenant for one in having)
            symbols.setdefault(prefix, set()).update(found)
    wanted = sorted(counts) if isinstance(prefixes, int) else prefixes
    return [
        PrefixRow(day_text(day), one, counts[one], len(tenants.get(one, ())), len(symbols.get(one, ())))
        for one in wanted
    ]


def _of_name(name: str, prefixes: Sequence[str] | int) -> Iterable[str]:
    if isinstance(prefixes, int):
        return (name[:prefixes],)
    return [prefix for prefix in prefixes if name.startswith(prefix)]


def _day_from(text: str, today: int) -> int:
    if text in ("today", "yesterday"):
        return today - (text == "yesterday")
    try:
        found = datetime.date.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or len(text) != len("2026-11-28") or not _EPOCH.year <= found.year <= _LAST_YEAR:
        raise ValueError(f"day: today, yesterday, or a day such as 2026-11-28 in UTC, not {text[:40]!r}")
    return (found - _EPOCH).days


def _number(key: str, text: str, most: int) -> int:
    digits = text.isascii() and text.isdecimal() and len(text) <= len(str(most))
    if not digits or not 1 <= int(text) <= most:
        raise ValueError(f"{key}: 1 to {most}, not {text[:40]!r}")
    return int(text)
