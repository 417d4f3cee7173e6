"""Rules that compare each quote or trade by itself: spread, crossed, locked, off_market."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta

from marketfeed.alerts.rules.rule import Problem, clear_problem
from marketfeed.core.fixed import SCALE
from marketfeed.core.units import S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from marketfeed.alerts.rules.episodes import Episodes
    from marketfeed.alerts.rules.readings import Measured
    from marketfeed.alerts.rules.ticks import Floats, Ints, Mask, Quotes, Ticks

MARGIN: Final = 1e-9  # for products that may be rounded

Percent = Annotated[float, Meta(gt=0, le=1_000_000)]
Level = Annotated[float, Meta(ge=0, le=1e9)]
Duration = Annotated[float, Meta(ge=0, le=86_400)]


class SpreadConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``type = "spread"``"""

    bps: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None
    absolute: Annotated[float, Meta(ge=1e-9, le=4e9)] | None = None
    min_duration_s: Duration = 0.0
    clear_at: Level | None = None

    def problems(self) -> Iterator[Problem]:
        """Yield the problems between keys."""
        if (self.bps is None) == (self.absolute is None):
            yield "bps", "give either bps or absolute"
        yield from clear_problem(self.clear_at, self.absolute if self.bps is None else self.bps)


class Spread:
    """Ask minus bid: in basis points of the mid, or in the currency."""

    Config = SpreadConfig

    def __init__(self, config: SpreadConfig, episodes: Episodes) -> None:
        self._episodes = episodes
        self._relative = config.bps is not None
        threshold = config.bps if config.bps is not None else config.absolute or 0.0
        clear_at = threshold if config.clear_at is None else config.clear_at
        self._threshold, self._clear_at = threshold, clear_at
        # Integers of 1e-9: exact.
        self._threshold_px, self._clear_px = round(threshold * SCALE), round(clear_at * SCALE)
        episodes.quantity, episodes.unit = "spread", " bps" if self._relative else ""
        episodes.min_duration_ns = round(config.min_duration_s * S)

    def evaluate(self, ticks: Ticks) -> None:
        """Measure every quote with both sides."""
        quotes = ticks.quotes
        if self._relative:
            self._episodes.above(quotes, quotes.spread_bps, self._threshold, self._clear_at)
            return
        spread, both = quotes.spread, quotes.both
        hot = spread > self._threshold_px
        if both is not None:
            hot &= both
        self._episodes.observe(
            quotes, hot, lambda: spread <= self._clear_px, lambda i: self._detail(quotes, i)
        )

    def _detail(self, quotes: Quotes, i: int) -> tuple[float, float]:
        whole = quotes.both is None or quotes.both[i]
        return int(quotes.spread[i]) / SCALE if whole else np.nan, self._threshold


class TouchConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``type = "crossed"`` and ``type = "locked"``"""

    min_duration_s: Duration = 0.0


class Crossed:
    """Bid above ask. A quote without both sides is not crossed."""

    Config = TouchConfig

    def __init__(self, config: TouchConfig, episodes: Episodes) -> None:
        self._episodes = episodes
        episodes.quantity = "bid above ask by"
        episodes.min_duration_ns = round(config.min_duration_s * S)

    def evaluate(self, ticks: Ticks) -> None:
        """Compare the sides of every quote; the value is bid minus ask, the threshold 0."""
        quotes = ticks.quotes
        hot = quotes.spread < 0
        _observe_touch(
            self._episodes, quotes, hot, lambda i: (-int(quotes.spread[i]) / SCALE if hot[i] else 0.0, 0.0)
        )


class Locked:
    """Bid equal to ask. A quote without both sides is not locked."""

    Config = TouchConfig

    def __init__(self, config: TouchConfig, episodes: Episodes) -> None:
        self._episodes = episodes
        episodes.quantity = "spread"
        episodes.min_duration_ns = round(config.min_duration_s * S)

    def evaluate(self, ticks: Ticks) -> None:
        """Compare the sides of every quote; the value is the spread (0 without both sides)."""
        quotes, both = ticks.quotes, ticks.quotes.both
        _observe_touch(
            self._episodes,
            quotes,
            quotes.spread == 0,
            lambda i: (int(quotes.spread[i]) / SCALE if both is None or both[i] else 0.0, 0.0),
        )


def _observe_touch(episodes: Episodes, quotes: Quotes, hot: Mask, detail: Any) -> None:
    if quotes.both is not None:
        hot &= quotes.both
    episodes.observe(quotes, hot, lambda: ~hot, detail)


class OffMarketConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``type = "off_market"``"""

    percent: Percent
    clear_at: Level | None = None

    def problems(self) -> Iterator[Problem]:
        """Yield the problems between keys."""
        yield from clear_problem(self.clear_at, self.percent)


class OffMarket:
    """A trade far from the mid of the last quote of its symbol."""

    Config = OffMarketConfig

    def __init__(self, config: OffMarketConfig, episodes: Episodes) -> None:
        self._episodes = episodes
        self._threshold = config.percent
        self._clear_at = config.percent if config.clear_at is None else config.clear_at
        self._mid = np.full(episodes.max_symbols, np.nan)  # of the last quote
        # Extremes of the mids of a batch and the one before it; inf and -inf without any.
        self._low, self._high = np.full((2, episodes.max_symbols), [[np.inf], [-np.inf]])
        episodes.quantity, episodes.unit = "distance from the mid", " %"

    def evaluate(self, ticks: Ticks) -> None:
        """Measure every trade whose symbol's last quote has a mid."""
        trades, quotes = ticks.trades, ticks.quotes
        if len(trades):
            side, mids = quotes.priced
            np.minimum.at(self._low, side.symbols, mids)
            np.maximum.at(self._high, side.symbols, mids)
            symbols, prices = trades.symbols, trades.price
            # No mid is farther from a trade than these.
            farthest = self._low[symbols], self._high[symbols]
            if self._episodes.active or any_beyond(prices, *farthest, self._threshold):
                self._evaluate(ticks)
        symbols, mids = quotes.symbols, quotes.mid
        self._mid[symbols] = mids  # of several quotes of a symbol, numpy keeps the last
        if quotes.priced[0] is not quotes:
            last = self._mid[symbols]
            gone = last != last
            self._low[symbols], self._high[symbols] = (
                np.where(gone, np.inf, last),
                np.where(gone, -np.inf, last),
            )
        else:
            self._low[symbols] = mids
            self._high[symbols] = mids

    def _evaluate(self, ticks: Ticks) -> None:
        trades, before = ticks.trades, ticks.quote_before
        mid = self._mid[trades.symbols]
        known = before >= 0
        mid[known] = ticks.quotes.mid[before[known]]
        values = np.abs(trades.price / mid - 1) * 100
        self._episodes.above(trades, values, self._threshold, self._clear_at)


def any_beyond(prices: Ints | Floats, lowest: Floats, highest: Floats, percent: float) -> bool:
    """Return whether a price may be more than ``percent`` above ``lowest`` or below ``highest``."""
    beyond = prices > lowest * (1 + percent / 100 - MARGIN)
    beyond |= prices < highest * (1 - percent / 100 + MARGIN)
    return bool(np.count_nonzero(beyond))


def observe_distance(
    episodes: Episodes,
    ticks: Measured,
    prices: Floats,
    references: Floats,
    percent: float,
    clear_at: float,
) -> None:
    """Report abs(price / reference - 1) * 100 of each tick; NaN references are not measured."""
    if episodes.active or any_beyond(prices, references, references, percent):
        episodes.above(ticks, np.abs(prices / references - 1) * 100, percent, clear_at)
