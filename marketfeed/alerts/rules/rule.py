"""Interfaces between rules and the engine. The only module of the rules that third-party rules need.

A rule type is a class (or any callable) registered under the entry-point group ``marketfeed.rules``;
built-in and third-party types are found the same way. Its attribute ``Config`` is a frozen
``msgspec.Struct`` with ``forbid_unknown_fields``, which defines the keys of its ``[[alerts.rules]]`` table
besides the common ones. The engine calls ``rule_type(config, episodes)``. If ``Config`` has a method
``problems()``, it yields pairs of a key and what is allowed there: the limits between keys that their types
do not express.

Cost: perf/alerts.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from marketfeed.alerts.rules.episodes import Episodes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import msgspec

    from marketfeed.alerts.rules.ticks import Ticks

__all__ = ["Episodes", "FeedState", "Problem", "Rule", "RuleType"]

Problem = tuple[str, str]  # a key, and what is allowed there


class FeedState(NamedTuple):
    """Whether the feed ``name`` is live: connected, and its ticks are current."""

    name: str
    live: bool


class Rule(Protocol):
    """Measures ticks and reports to its :class:`Episodes`.

    What it reports must depend on the ticks alone, not on how they are cut into batches.

    It may be about thousands of symbols in one batch, or at one time. :class:`Episodes` spreads its part of
    that over several turns of the event loop. :meth:`evaluate` and :meth:`Timed.advance` may do so as well,
    as generators: where they yield, other tasks run.
    """

    def evaluate(self, ticks: Ticks) -> Iterator[None] | None:
        """Measure a batch, in order of ``g``. Called under ``numpy.errstate(all="ignore")``."""
        ...


@runtime_checkable
class Timed(Protocol):
    """A rule that time drives as well."""

    @property
    def next_ns(self) -> int | None:
        """Earliest time at which :meth:`advance` may have something to do; None without one."""
        ...

    def advance(self, now_ns: int) -> Iterator[None] | None:
        """Let time pass up to ``now_ns``, inclusive; later ticks are at ``now_ns`` or after."""
        ...


@runtime_checkable
class FeedWatching(Protocol):
    """A rule that depends on the states of feeds."""

    def feeds(self, states: Mapping[int, FeedState], now_ns: int) -> None:
        """Take the state of every feed, by the feed's number in records."""
        ...


@runtime_checkable
class Reloading(Protocol):
    """A rule that reads a file, at start and again on SIGHUP."""

    def reload(self, base: Path) -> None:
        """Read the file again, relative to the folder ``base``; raises ConfigError (``key: …``)."""
        ...


@runtime_checkable
class Naming(Protocol):
    """A rule that needs the names of symbols."""

    def learn(self, first: int, names: list[str]) -> None:
        """Take the names of the symbols ``first``, ``first + 1`` …"""
        ...


class RuleType(Protocol):
    """Object registered in the entry-point group ``marketfeed.rules``."""

    @property
    def Config(self) -> type[msgspec.Struct]:  # noqa: N802 - a class, under the name that rules give it
        """The settings of a rule, as the configuration has them."""
        ...

    def __call__(self, config: Any, episodes: Episodes) -> Rule:
        """Create a rule; raises ConfigError."""
        ...


def clear_problem(clear_at: float | None, threshold: float | None, *, below: bool = False) -> list[Problem]:
    """Return the problem of a ``clear_at`` on the wrong side of its threshold."""
    if clear_at is None or threshold is None or (clear_at >= threshold if below else clear_at <= threshold):
        return []
    return [
        (
            "clear_at",
            f"must be at {'least' if below else 'most'} the threshold ({threshold:g}), not {clear_at:g}",
        )
    ]
