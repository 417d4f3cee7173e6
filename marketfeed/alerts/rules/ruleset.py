"""All rules of a configuration, evaluated together on batches of ticks.

The clock of the rules is the arrival time of ticks: it never goes back, and what is due at a time comes
before the ticks of that time. The alerts are the same however the ticks are cut into batches, if
:meth:`RuleSet.tick` is only called with times up to which all ticks have been evaluated.

Thousands of symbols may be raised in one moment. So there is a generator for each method that returns alerts:
between two of its values other tasks may run, and each value has at most ``slice_size`` alerts. It has to be
used up before the next call. A rule that is no generator, and measures in one go, takes as long as it takes.

Cost: perf/alerts.py.
"""

from __future__ import annotations

import heapq
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from marketfeed.alerts.patterns import Patterns
from marketfeed.alerts.rules.episodes import SLICE, Episodes
from marketfeed.alerts.rules.registry import FEED_DOWN
from marketfeed.alerts.rules.rule import FeedWatching, Naming, Reloading, Timed
from marketfeed.alerts.rules.silence import FEEDS, NO_FEED
from marketfeed.alerts.rules.ticks import Ticks
from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from marketfeed.alerts.alert import Alert
    from marketfeed.alerts.rules.readings import Found
    from marketfeed.alerts.rules.registry import RuleSpec
    from marketfeed.alerts.rules.rule import FeedState, Rule
    from marketfeed.core.records import Records


_PLACE: Final = itemgetter(0, 1, 2)  # of what was found, among that of other rules


class Judged(NamedTuple):
    """An alert, and whether another rule inhibits it: it is logged then, and not delivered."""

    alert: Alert
    inhibited: bool


class _Member(NamedTuple):
    spec: RuleSpec
    rule: Rule
    episodes: Episodes
    timed: Timed | None  # the rule itself, if time drives it: isinstance() with a protocol takes µs


class RuleSet:
    """The rules of one engine. Not thread-safe; never waits. Rules start with every symbol clear."""

    def __init__(
        self,
        specs: Sequence[RuleSpec],
        max_symbols: int,
        base: Path | None = None,
        slice_size: int = SLICE,
    ) -> None:
        """Create the rules; relative paths start at ``base``. Raises ConfigError with all mistakes."""
        self._base = Path() if base is None else base
        self._slice_size = slice_size
        self._names: list[str] = []
        self._feed_names: dict[int, str] = {}
        self._feed_of = np.full(max_symbols, NO_FEED, np.uint8)  # that sent the symbol's first tick
        self._clock_ns = 0
        self._members: list[_Member] = []
        mistakes: list[str] = []
        for spec in specs:
            try:
                self._members.append(self._member(spec, max_symbols))
            except ConfigError as error:
                mistakes += (f"{spec.where}.{mistake}" for mistake in error.mistakes)
        if mistakes:
            raise ConfigError(*mistakes)
        self._raised: dict[str, set[str]] = {spec.common.name: set() for spec in specs}
        self._inhibited: set[str] = set()  # keys of raised episodes whose alert was inhibited
        self._inhibitors = {spec.common.name: self._inhibitors_of(spec) for spec in specs}
        self._has_inhibitors = any(self._inhibitors.values())
        self.failed: dict[str, str] = {}  # rules that raised an exception, and are not evaluated any more

    @property
    def next_ns(self) -> int | None:
        """Time of the next :meth:`tick` that may return alerts; None if only ticks matter."""
        times: list[int] = []
        for member in self._members:
            works = member.spec.common.name not in self.failed
            own = member.timed.next_ns if member.timed is not None and works else None
            times += (time for time in (own, member.episodes.next_ns) if time is not None)
        return min(times, default=None)

    def learn(self, names: Iterable[str]) -> None:
        """Take the names of the symbols after those learned before, in order of their numbers.

        A symbol has to be learned before its first tick is evaluated.
        """
        first, new = len(self._names), list(names)
        self._names += new
        for spec, rule, episodes, _ in self._members:
            if spec.common.type == FEED_DOWN:
                continue
            if isinstance(rule, Naming):
                rule.learn(first, new)
            patterns = Patterns(spec.common.patterns)
            episodes.add([number for number, name in enumerate(new, first) if patterns.match(name)])

    def evaluate(self, quotes: Records, trades: Records) -> list[Judged]:
        """Return the alerts of a batch, in order of time, then ``g``; see :meth:`evaluate_in_slices`."""
        return _all(self.evaluate_in_slices(quotes, trades))

    def evaluate_in_slices(self, quotes: Records, trades: Records) -> Iterator[list[Judged]]:
        """Yield the alerts of a batch, in order of time, then ``g``.

        ``quotes`` has shape ``(q,)`` and dtype QUOTE, ``trades`` ``(t,)`` and TRADE, each in order of ``g``,
        all of them after those of the last call.
        """
        ticks = Ticks(quotes, trades, self._clock_ns)
        if not len(ticks):
            return
        if self._has_inhibitors:
            self._assign_feeds(ticks)
        members = iter(self._members)
        while (more := self._measure(members, ticks)) is not None:
            yield []
            yield from more
        yield from self._advance(ticks.clock_ns)

    def tick(self, now_ns: int) -> list[Judged]:
        """Return the alerts that time alone causes up to ``now_ns``; see :meth:`tick_in_slices`."""
        return _all(self.tick_in_slices(now_ns))

    def tick_in_slices(self, now_ns: int) -> Iterator[list[Judged]]:
        """Yield the alerts that time alone causes up to ``now_ns``, Unix; earlier times change nothing.

        Ticks that arrive later count as at ``now_ns`` at least.
        """
        yield from self._advance(max(now_ns, self._clock_ns))

    def feeds(self, states: Mapping[int, FeedState], now_ns: int) -> list[Judged]:
        """Take the states of all feeds; see :meth:`feeds_in_slices`."""
        return _all(self.feeds_in_slices(states, now_ns))

    def feeds_in_slices(self, states: Mapping[int, FeedState], now_ns: int) -> Iterator[list[Judged]]:
        """Take the states of all feeds, by the feed's number in records; yield alerts like :meth:`tick`."""
        yield from self.tick_in_slices(now_ns)
        self._feed_names |= {number: state.name for number, state in states.items()}
        for spec, rule, episodes, _ in self._members:
            if spec.common.type == FEED_DOWN:
                patterns = Patterns(spec.common.patterns)
                episodes.add(sorted(number for number, one in states.items() if patterns.match(one.name)))
            if isinstance(rule, FeedWatching):
                rule.feeds(states, self._clock_ns)
        yield from self.tick_in_slices(now_ns)

    def reload(self) -> None:
        """Read the files of rules again; raises ConfigError, and rules with mistakes stay as they were."""
        mistakes: list[str] = []
        for spec, rule, *_ in self._members:
            if isinstance(rule, Reloading):
                try:
                    rule.reload(self._base)
                except ConfigError as error:
                    mistakes += (f"{spec.where}.{mistake}" for mistake in error.mistakes)
        if mistakes:
            raise ConfigError(*mistakes)

    def _member(self, spec: RuleSpec, max_symbols: int) -> _Member:
        common = spec.common
        of_feeds = common.type == FEED_DOWN
        episodes = Episodes(
            common.name,
            common.severity,
            FEEDS if of_feeds else max_symbols,
            cooldown_s=common.cooldown_s,
            name_of=self._feed_names.__getitem__ if of_feeds else self._names.__getitem__,
            slice_size=self._slice_size,
        )
        rule = spec.factory(spec.settings, episodes)
        if isinstance(rule, Reloading):
            rule.reload(self._base)
        return _Member(spec, rule, episodes, rule if isinstance(rule, Timed) else None)

    def _measure(self, members: Iterator[_Member], ticks: Ticks) -> Iterator[list[Judged]] | None:
        """Have the next ``members`` measure, up to one that has to go on later or found much.

        Returns the rest of its work, which may be none; None if there are no more members.
        """
        with np.errstate(all="ignore"):
            for member in members:
                if member.spec.common.name in self.failed:
                    continue
                try:
                    more = member.rule.evaluate(ticks)
                except Exception as error:  # third-party code may raise anything
                    self._fail(member.spec, error)
                    continue
                if more is not None:
                    return self._go_on(member.spec, more)
                if member.episodes.has_later:
                    return iter(())
        return None

    def _go_on(self, spec: RuleSpec, more: Iterator[None]) -> Iterator[list[Judged]]:
        """Have a rule do the rest of its work; yield where it does."""
        while True:
            try:
                with np.errstate(all="ignore"):  # not while other tasks run
                    next(more)
            except StopIteration:
                return
            except Exception as error:  # as above
                self._fail(spec, error)
                return
            yield []

    def _advance(self, now_ns: int) -> Iterator[list[Judged]]:
        """Let time pass up to ``now_ns``; yield all new alerts in order."""
        self._clock_ns = now_ns
        found: list[list[Found]] = []
        for member in self._members:
            if self._has_to_advance(member, now_ns):
                yield from self._advance_one(member, now_ns)
                if member.episodes.found:
                    found.append(member.episodes.taken())
        # Stable: what several rules found at one place stays in order of the rules.
        in_order = heapq.merge(*found, key=_PLACE) if found else iter(())
        while part := list(islice(in_order, self._slice_size)):
            yield [self._judged(one) for one in part]

    def _has_to_advance(self, member: _Member, now_ns: int) -> bool:
        episodes, timed = member.episodes, member.timed
        if episodes.has_later or episodes.found:
            return True
        next_ns = episodes.next_ns
        if next_ns is not None and next_ns <= now_ns:
            return True
        next_ns = timed.next_ns if timed is not None else None
        return next_ns is not None and next_ns <= now_ns

    def _advance_one(self, member: _Member, now_ns: int) -> Iterator[list[Judged]]:
        """Finish what a rule measured, and let time pass for it."""
        spec, _, episodes, timed = member
        for _ in episodes.slices():
            yield []
        if timed is not None and spec.common.name not in self.failed:
            more = None
            try:
                with np.errstate(all="ignore"):
                    more = timed.advance(now_ns)
            except Exception as error:  # as above
                self._fail(spec, error)
            if more is not None:
                yield from self._go_on(spec, more)
        for _ in chain(episodes.slices(), episodes.expire(now_ns)):
            yield []
        if len(episodes.found) > self._slice_size:  # they will be sorted
            yield []

    def _fail(self, spec: RuleSpec, error: Exception) -> None:
        """Evaluate a rule no more; its open episodes stay open."""
        why = " ".join(f"{type(error).__name__}: {error}".split())
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f" ({place.tb_frame.f_code.co_filename}:{place.tb_lineno})" if place is not None else ""
        self.failed[spec.common.name] = why + where

    def _judged(self, found: Found) -> Judged:
        alert = found.episodes.alert(found)
        return Judged(alert, self._judge(alert, found.number))

    def _judge(self, alert: Alert, number: int) -> bool:
        """Note the alert, and return whether another rule inhibits it."""
        raised = self._raised[alert.rule]
        if alert.state == "cleared":
            # As its raised was: what was delivered is also cleared.
            raised.discard(alert.symbol)
            inhibited = alert.key in self._inhibited
            self._inhibited.discard(alert.key)
            return inhibited
        raised.add(alert.symbol)
        for name, of_feeds in self._inhibitors[alert.rule]:
            subject = self._feed_names.get(int(self._feed_of[number])) if of_feeds else alert.symbol
            if subject in self._raised[name]:
                self._inhibited.add(alert.key)
                return True
        return False

    def _inhibitors_of(self, spec: RuleSpec) -> list[tuple[str, bool]]:
        """Return the rules that inhibit ``spec``, and whether they are about feeds while it is not."""
        own_feeds = spec.common.type == FEED_DOWN
        kinds = {member.spec.common.name: member.spec.common.type for member in self._members}
        return [(name, kinds[name] == FEED_DOWN and not own_feeds) for name in spec.common.inhibited_by]

    def _assign_feeds(self, ticks: Ticks) -> None:
        new = self._feed_of[ticks.symbols] == NO_FEED
        if new.any():
            symbols, first = np.unique(ticks.symbols[new], return_index=True)
            self._feed_of[symbols] = ticks.feeds[new][first]


def _all(slices: Iterator[list[Judged]]) -> list[Judged]:
    return [one for part in slices for one in part]
