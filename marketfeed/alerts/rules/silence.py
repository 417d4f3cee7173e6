"""Rules about what does not arrive: stale symbols, and feeds that are down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta

from marketfeed.alerts.rules.episodes import CLEAR, PENDING, RAISED
from marketfeed.alerts.rules.readings import Reading
from marketfeed.core.units import S

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from marketfeed.alerts.rules.episodes import Episodes
    from marketfeed.alerts.rules.rule import FeedState
    from marketfeed.alerts.rules.ticks import Cause, Ints, Ticks

FEEDS: Final = 256  # numbers of feeds in records
NO_FEED: Final = 255  # the engine numbers feeds from 0 to 254
NEVER: Final = np.iinfo(np.int64).max  # due of a symbol whose feed is not live
UNSEEN: Final = np.iinfo(np.int64).min  # due of a symbol that has not ticked

Silence = Annotated[float, Meta(ge=0.001, le=86_400)]


class StaleConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``type = "stale"``"""

    after_s: Silence


class Stale:
    """No tick of a symbol for so long, while its feed is live. A symbol is stale from its first tick on."""

    Config = StaleConfig

    def __init__(self, config: StaleConfig, episodes: Episodes) -> None:
        self._episodes = episodes
        self._after_ns = round(config.after_s * S)
        count = episodes.max_symbols
        self._last = np.zeros(count, np.int64)  # time of the last tick
        self._due = np.full(count, UNSEEN, np.int64)  # when the symbol becomes stale
        self._known = 0  # symbols up to the highest that ticked
        self._feed = np.full(count, NO_FEED, np.uint8)  # that sent the first tick
        self._live = np.ones(FEEDS, bool)
        self._next_ns: int | None = None  # no symbol becomes stale before
        episodes.quantity, episodes.unit = "no tick for", " s"

    @property
    def next_ns(self) -> int | None:
        """Time before which no symbol becomes stale; None without symbols."""
        return self._next_ns

    def evaluate(self, ticks: Ticks) -> None:
        """Clear what ticks again; raise what was silent for too long before its tick."""
        start, at_ns = 0, ticks.at_ns
        while start < len(at_ns):
            # Within less than `after`, only a symbol's first tick can end a silence.
            end = int(at_ns.searchsorted(int(at_ns[start]) + self._after_ns))
            self._evaluate(ticks, slice(start, end))
            start = end

    def feeds(self, states: Mapping[int, FeedState], now_ns: int) -> None:
        """Take the states of feeds: silence counts from when a feed became live."""
        for number, state in states.items():
            if state.live != self._live[number]:
                self._live[number] = state.live
                symbols = np.flatnonzero(self._feed[: self._known] == number)
                self._due[symbols] = now_ns + self._after_ns if state.live else NEVER
                self._expect(now_ns)

    def advance(self, now_ns: int) -> None:
        """Raise symbols that have been silent for too long at ``now_ns``."""
        if self._next_ns is None or now_ns < self._next_ns:
            return
        due = self._due[: self._known]
        waiting = (self._episodes.state[: self._known] == CLEAR) & (due != UNSEEN) & (due != NEVER)
        later = due[waiting & (due > now_ns)]
        self._next_ns = int(later.min()) if len(later) else None
        silent = np.flatnonzero(waiting & (due <= now_ns))
        silent = silent[due[silent].argsort(kind="stable")]  # in order, alerts are sorted in linear time
        readings = map(self._silence, due[silent].tolist())
        self._episodes.take(zip(silent.tolist(), readings, strict=True))

    def _evaluate(self, ticks: Ticks, stretch: slice) -> None:
        symbols, at_ns = ticks.symbols[stretch], ticks.at_ns[stretch]
        due = self._due[symbols]
        marked = due <= at_ns  # also where the symbol is new
        if self._episodes.active:
            state = self._episodes.state[symbols]
            marked |= (state == PENDING) | (state == RAISED)
        if np.count_nonzero(marked):
            # Only the first tick of a symbol comes after the silence that `due` is about.
            _, first = np.unique(symbols, return_index=True)
            first = first[marked[first]]
            new = due[first] == UNSEEN
            unseen, heard = first[new], first[~new]
            causes = ticks.causes(stretch.start + heard)
            if len(unseen):
                self._feed[symbols[unseen]] = ticks.feeds[stretch][unseen]
                self._known = max(self._known, int(symbols[unseen].max()) + 1)
            self._episodes.take(self._heard(symbols[heard], at_ns[heard], due[heard], causes))
        self._last[symbols] = at_ns  # of several ticks of a symbol, numpy keeps the last
        self._due[symbols] = at_ns + self._after_ns
        if np.count_nonzero(self._live) < FEEDS:
            self._due[symbols[~self._live[self._feed[symbols]]]] = NEVER
        self._expect(int(at_ns[0]))

    def _heard(
        self, symbols: Ints, at_ns: Ints, due: Ints, causes: list[Cause]
    ) -> Iterator[tuple[int, Reading]]:
        """Return what ends the silences of ``symbols``, one tick of each: it may have been too long."""
        quiet = (due <= at_ns) & (self._episodes.state[symbols] == CLEAR)
        silence_s = (at_ns - self._last[symbols]) / S
        return self._readings(
            *(column.tolist() for column in (symbols, at_ns, due, quiet, silence_s)), causes
        )

    def _readings(self, *columns: list[Any]) -> Iterator[tuple[int, Reading]]:
        for number, at_ns, due_ns, is_quiet, silence_s, cause in zip(*columns, strict=True):
            if is_quiet:
                yield number, self._silence(due_ns)
            yield number, Reading(at_ns, False, True, silence_s, self._after_ns / S, cause)

    def _silence(self, due_ns: int) -> Reading:
        after_s = self._after_ns / S
        return Reading(due_ns, True, False, after_s, after_s)

    def _expect(self, from_ns: int) -> None:
        soonest_ns = from_ns + self._after_ns
        self._next_ns = soonest_ns if self._next_ns is None else min(self._next_ns, soonest_ns)


class FeedDownConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``type = "feed_down"``"""

    after_s: Annotated[float, Meta(ge=0, le=86_400)]


class FeedDown:
    """A feed has not been live for so long. The ``symbol`` of its alerts is the feed's name."""

    Config = FeedDownConfig

    def __init__(self, config: FeedDownConfig, episodes: Episodes) -> None:
        self._episodes = episodes
        self._after_s = config.after_s
        self._down_ns: dict[int, int] = {}
        episodes.quantity, episodes.unit = "not live for", " s"
        episodes.min_duration_ns = round(config.after_s * S)

    def evaluate(self, ticks: Ticks) -> None:
        """Do nothing: ticks do not matter."""

    def feeds(self, states: Mapping[int, FeedState], now_ns: int) -> None:
        """Take the states of feeds; one that is not in ``states`` any more is no longer down."""
        raised = np.flatnonzero(self._episodes.state[:FEEDS] == RAISED).tolist()
        for number in sorted({*states, *self._down_ns, *raised}):
            live = number not in states or states[number].live
            if not live:
                self._down_ns.setdefault(number, now_ns)
            down_ns = self._down_ns.get(number, now_ns)
            value = (now_ns - down_ns) / S if live else self._after_s
            self._episodes.step(number, Reading(now_ns, not live, live, value, self._after_s))
            if live:
                self._down_ns.pop(number, None)
