"""The alert log: what keeps alerts, and what each consumer has had of them.

Delivery and commands use this interface alone. :mod:`marketfeed.alerts.sqlite_log` implements it in a file; a
cluster keeps alerts elsewhere. ``marketfeed.testing.check_alert_log`` tests an implementation.

An entry has a position: 1, 2, 3 … without holes in order of appending. A consumer has a *floor*: everything
up to it is settled, which means acknowledged, parked as a dead letter, or not for this consumer. Above the
floor the log keeps one mark per settled position. Delivery computes the floor, since it reads every entry.

Patterns of a consumer decide about what is appended from when they were set on: entries before keep the
decision of the former patterns, until they are settled.

An async method returns when its effect is durable, and raises AlertLogError if it may not be. Times are Unix
times in ns, passed in by the caller.

The file is longer than 300 lines because it holds the whole interface with its types.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec

from marketfeed.alerts.alert import Alert, Severity
from marketfeed.alerts.patterns import about, symbol_set

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from marketfeed.core.symbol_set import SymbolSet

Mark = Literal["inhibited", "silenced"]  # the entry is kept, and not delivered
Start = Literal["now", "all"]
Action = Literal["acknowledged", "parked", "requeued", "resolved", "dropped", "silenced", "expired"]

NAME_BYTES: Final = 64  # longest name of a consumer
PATTERNS: Final = 500  # most patterns of a consumer
FORMER: Final = 16  # most former patterns of a consumer; beyond it the oldest two are joined
ALL_SYMBOLS: Final = ("*",)
CONSUMERS: Final = 1000  # most consumers, as any client may create one
_PATTERN: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}\*?|\*")
EXPIRED: Final = 1000  # silences that have ended and are kept, the newest
COMMIT_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Appended(msgspec.Struct, frozen=True):
    """What became of an appended alert. ``new`` is False if it was in the log already.

    ``id`` is that of the entry: a repeated notice gets that of its publisher's first. ``mark`` is that of a
    new entry.
    """

    id: str
    position: int
    new: bool
    mark: Mark | None = None


class Entry(msgspec.Struct, frozen=True):
    """An alert in the log."""

    position: int
    alert: Alert
    at_ns: int  # when it was appended
    mark: Mark | None = None


class Former(msgspec.Struct, frozen=True):
    """Patterns that a consumer had before; they decide about entries up to the position ``upto``."""

    upto: int
    patterns: tuple[str, ...]


class Consumer(msgspec.Struct, frozen=True, dict=True):
    """A durable consumer. ``patterns`` are names of rules, or prefixes that end in ``*``.

    ``symbols`` are names and prefixes likewise, of the symbols that its sessions are entitled to. ``former``
    are the patterns that decide about entries above the floor which were appended before ``patterns`` were
    set, oldest first.
    """

    name: str
    start: Start
    patterns: tuple[str, ...]
    created_ns: int
    floor: int  # everything up to this position is settled
    symbols: tuple[str, ...] = ALL_SYMBOLS
    former: tuple[Former, ...] = ()

    @cached_property
    def symbol_set(self) -> SymbolSet:
        """Return what ``symbols`` match."""
        return symbol_set(self.symbols)

    def wants(self, entry: Entry) -> bool:
        """Return whether ``entry``, above the floor, is delivered to this consumer.

        A directed alert is, whatever the patterns and symbols; a silenced or inhibited one is not. An alert
        about no symbol is within all symbols.
        """
        if not self.may_have(entry):
            return False
        return entry.alert.to is not None or matches(self.patterns_at(entry.position), entry.alert.rule)

    def may_have(self, entry: Entry) -> bool:
        """Return whether ``entry`` may be delivered, whatever the patterns are, or were."""
        if entry.mark is not None:
            return False
        if entry.alert.to is not None:
            return entry.alert.to == self.name
        return about(self.symbol_set, entry.alert.symbol)

    def patterns_at(self, position: int) -> tuple[str, ...]:
        """Return the patterns that decide about the entry at ``position``, above the floor."""
        for former in self.former:
            if position <= former.upto:
                return former.patterns
        return self.patterns

    def former_once(self, patterns: Sequence[str], head: int) -> tuple[Former, ...]:
        """Return ``former`` once ``patterns`` are set, when ``head`` is the newest position.

        It is bounded, however often patterns change: the oldest two are joined, so that what one of them
        wants and is not settled may be delivered for a position of the other.
        """
        kept = [former for former in self.former if former.upto > self.floor]
        if tuple(patterns) != self.patterns and head > max(self.floor, kept[-1].upto if kept else 0):
            if kept and kept[-1].patterns == self.patterns:
                kept.pop()
            kept.append(Former(head, self.patterns))
        while len(kept) > FORMER:
            both = tuple(dict.fromkeys(kept[0].patterns + kept[1].patterns))
            kept[:2] = [Former(kept[1].upto, both if len(both) <= PATTERNS else ("*",))]
        return tuple(kept)


class Progress(msgspec.Struct, frozen=True):
    """What delivery has to know of a consumer when it starts."""

    floor: int
    settled: frozenset[int] = frozenset()  # positions above the floor that are acknowledged or parked
    requeued: tuple[Entry, ...] = ()  # unsettled again although the floor has passed them, by position
    tries: dict[int, int] = {}  # deliveries so far of unsettled positions; absent = none


class Acknowledged(msgspec.Struct, frozen=True):
    """Answer to an acknowledgement, in the order of its ids.

    ``unknown`` are ids that are not in the log, not this consumer's, or acknowledged before.
    """

    ids: tuple[str, ...]
    positions: tuple[int, ...]  # of ``ids``
    unknown: tuple[str, ...]


class DeadLetter(msgspec.Struct, frozen=True):
    """An alert that a consumer did not acknowledge in ``tries`` deliveries."""

    consumer: str
    entry: Entry
    tries: int
    parked_ns: int


class Episode(msgspec.Struct, frozen=True):
    """What lies between a ``raised`` and its ``cleared``; ``key`` is the id of the ``raised``."""

    key: str
    rule: str
    symbol: str
    severity: Severity
    raised_ns: int  # when it was appended
    shown: bool  # an entry of it was neither silenced nor inhibited
    cleared_ns: int = 0  # 0 = open
    resolved_ns: int = 0  # 0 = no person has taken it on
    resolved_by: str = ""
    comment: str = ""
    last_position: int = 0  # of its newest entry


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """Alerts that are kept and not delivered for some time; the fields of Alertmanager's silences.

    ``rules`` and ``symbols`` are names, or prefixes that end in ``*``.
    """

    id: str
    rules: tuple[str, ...] = ("*",)
    symbols: tuple[str, ...] = ("*",)
    starts_ns: int
    ends_ns: int
    created_by: str
    comment: str

    def covers(self, rule: str, symbol: str, now_ns: int) -> bool:
        """Return whether alerts of ``rule`` about ``symbol`` are silenced at ``now_ns``."""
        in_time = self.starts_ns <= now_ns < self.ends_ns
        return in_time and matches(self.rules, rule) and matches(self.symbols, symbol)


class AuditRecord(msgspec.Struct, frozen=True):
    """One line of the audit trail. ``subject`` is a consumer, an episode's key or a silence's id."""

    number: int
    at_ns: int
    action: Action
    subject: str
    by: str = ""
    detail: Any = None  # such as the ids acknowledged


class Retention(msgspec.Struct, frozen=True):
    """What is kept: entries of the last ``keep_days`` that are among the newest ``keep_alerts``."""

    keep_days: float
    keep_alerts: int


class Pruned(msgspec.Struct, frozen=True):
    """One step of pruning: entries removed, and whether there is more to look at."""

    removed: int
    more: bool


class AlertLog(Protocol):
    """A log of alerts, for one process at a time."""

    async def append(
        self, alerts: Sequence[Alert], now_ns: int, marks: Mapping[str, Mark] | None = None
    ) -> list[Appended]:
        """Keep alerts in this order, all or none; ``marks`` by id are kept with them.

        An id that is in the log already is not kept again, and neither is a notice with key and publisher of
        one that is, nor a ``cleared`` of an episode that has been cleared. The mark of a ``cleared`` is left
        out if an entry of its episode has none, so that a consumer that saw it raised sees it cleared.
        """
        ...

    async def head(self) -> int:
        """Return the position of the newest entry; 0 if there is none."""
        ...

    async def read(self, after: int, limit: int) -> list[Entry]:
        """Return up to ``limit`` entries with positions above ``after``, in order."""
        ...

    async def read_back(self, before: int | None, limit: int) -> list[Entry]:
        """Return up to ``limit`` entries with positions below ``before``, None: any, newest first."""
        ...

    async def find(self, alert: str) -> Entry | None:
        """Return the entry of the alert with this id."""
        ...

    async def episodes(self, open_only: bool = False) -> list[Episode]:
        """Return episodes whose entries are in the log, oldest first."""
        ...

    async def episode(self, key: str) -> Episode | None:
        """Return the episode with this key."""
        ...

    async def resolve(self, key: str, by: str, comment: str, now_ns: int) -> Episode | None:
        """Record that a person took on the episode, if nobody has yet; None if there is no such episode."""
        ...

    async def use_consumer(
        self,
        name: str,
        now_ns: int,
        start: Start = "all",
        patterns: Sequence[str] = ("*",),
        symbols: Sequence[str] = ALL_SYMBOLS,
    ) -> Consumer:
        """Return the consumer, which the first use creates; later, ``start`` has no effect.

        Other ``patterns`` and ``symbols`` than before replace them: the patterns for what is appended from
        then on (:meth:`Consumer.former_once`), the symbols for everything that is not settled. Without any
        symbol it gets only alerts about no symbol, and directed ones. Raises ValueError for an invalid name,
        pattern or symbol.
        """
        ...

    async def consumers(self) -> list[Consumer]:
        """Return all consumers by name."""
        ...

    async def progress(self, name: str) -> Progress | None:
        """Return what the consumer has had; None if there is no such consumer."""
        ...

    async def drop_consumer(self, name: str, now_ns: int, by: str = "") -> bool:
        """Remove a consumer with all that is kept for it; False if there is none."""
        ...

    async def acknowledge(self, name: str, ids: Sequence[str], now_ns: int) -> Acknowledged:
        """Settle alerts of a consumer, dead letters included."""
        ...

    def record_attempts(self, name: str, tries: Mapping[int, int]) -> None:
        """Keep how often unsettled positions were delivered.

        Never waits: it is durable with the next change that somebody waits for, and a crash may lose it.
        """
        ...

    def advance(self, name: str, floor: int) -> None:
        """Raise the consumer's floor: the caller knows that everything up to it is settled.

        Never waits, as :meth:`record_attempts`. A lower floor than before has no effect.
        """
        ...

    async def park(self, name: str, tries: Mapping[int, int], now_ns: int) -> list[int]:
        """Make dead letters of unsettled positions, and keep ``tries`` with them; return which."""
        ...

    async def dead_letters(self, name: str | None = None, limit: int | None = None) -> list[DeadLetter]:
        """Return the first ``limit`` dead letters of one consumer, or of all, by consumer and position."""
        ...

    async def dead_letter_counts(self) -> dict[str, int]:
        """Return how many dead letters each consumer has, by name; 0 if none."""
        ...

    async def requeue(self, name: str, ids: Sequence[str], now_ns: int, by: str = "") -> list[Entry]:
        """Make dead letters unsettled again, with no tries; return those that were dead letters.

        Those that the consumer does not want any more stay dead letters.
        """
        ...

    async def add_silence(self, silence: Silence, now_ns: int) -> None:
        """Keep a silence; one with the same id is replaced.

        Of those that have ended at ``now_ns``, only the newest EXPIRED remain.
        """
        ...

    async def silences(self) -> list[Silence]:
        """Return all silences, expired ones included, by start."""
        ...

    async def expire_silence(self, silence: str, now_ns: int, by: str = "") -> bool:
        """End a silence at ``now_ns``; False if there is none that ends later."""
        ...

    async def audit(self, after: int, limit: int) -> list[AuditRecord]:
        """Return up to ``limit`` records of the audit trail with numbers above ``after``."""
        ...

    async def prune(self, now_ns: int, keep: Retention) -> Pruned:
        """Remove some of what retention no longer keeps, in one small transaction.

        Not removed: the newest entry, unsettled entries and dead letters of a consumer, open episodes.
        """
        ...


def matches(patterns: Collection[str], name: str) -> bool:
    """Return whether one of ``patterns`` is ``name``, or a prefix of it followed by ``*``."""
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns
    )


def consumer_problem(name: str, patterns: Sequence[str]) -> str | None:
    """Return why a consumer cannot have this name and these patterns; None if it can."""
    if not 0 < len(name) <= NAME_BYTES or not all("!" <= character <= "~" for character in name):
        return f"a consumer's name must be 1 to {NAME_BYTES} printable ASCII characters without space"
    if not 0 < len(patterns) <= PATTERNS:
        return f"a consumer must have 1 to {PATTERNS} patterns, not {len(patterns)}"
    return next(filter(None, map(pattern_problem, patterns)), None)


def pattern_problem(pattern: str) -> str | None:
    """Return why this is no pattern of rules; None if it is one."""
    if _PATTERN.fullmatch(pattern) is None:
        return f"a pattern is the name of a rule, the beginning of one and *, or *; not {pattern[:40]!r}"
    return None
