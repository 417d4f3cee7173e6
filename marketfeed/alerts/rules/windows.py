"""Rules over a window of the past: move, luld.

A window is kept as buckets of equal length, the current one and those before it, so that a symbol costs the
same memory whatever its rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
import numpy as np
from msgspec import Meta

from marketfeed.alerts.rules.episodes import PENDING, RAISED
from marketfeed.alerts.rules.levels import MARGIN, Level, Percent, observe_distance
from marketfeed.alerts.rules.rule import Problem, clear_problem
from marketfeed.alerts.rules.ticks import cut, priced, spans
from marketfeed.core.units import S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from marketfeed.alerts.rules.episodes import Episodes
    from marketfeed.alerts.rules.ticks import Floats, Ints, Part, Side, Ticks

MOVE_BUCKETS: Final = 32  # of one window
LULD_BUCKETS: Final = 30
LULD_BUCKET_NS: Final = 10 * S  # 30 of them are 5 minutes
LULD_STEP: Final = 0.01  # the reference stays until the mean is 1 % away
_LOW_BITS: Final = 32

Window = Annotated[float, Meta(ge=0.1, le=86_400)]


class MoveConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``type = "move"``"""

    percent: Percent
    window_s: Window
    of: Literal["mid", "trade"] = "mid"
    clear_at: Level | None = None

    def problems(self) -> Iterator[Problem]:
        """Yield the problems between keys."""
        yield from clear_problem(self.clear_at, self.percent)


class Move:
    """The price against the lowest and the highest of its window."""

    Config = MoveConfig

    def __init__(self, config: MoveConfig, episodes: Episodes) -> None:
        self._episodes, self._of = episodes, config.of
        self._threshold = config.percent
        self._clear_at = config.percent if config.clear_at is None else config.clear_at
        # A little less than the threshold: which ticks to look at in detail.
        self._rise, self._fall = (
            (1 + config.percent / 100) * (1 - MARGIN),
            (1 - config.percent / 100) + MARGIN,
        )
        self._bucket_ns = max(round(config.window_s * S) // MOVE_BUCKETS, 1)
        count = episodes.max_symbols
        self._bucket = -1  # the current one, since 1970
        # Extremes in the current bucket, in each of those before it, and in all of these.
        self._low, self._high = np.full(count, np.inf), np.full(count, -np.inf)
        self._lows, self._highs = np.full((2, MOVE_BUCKETS, count), [[[np.inf]], [[-np.inf]]])
        self._past_low, self._past_high = self._low.copy(), self._high.copy()
        episodes.quantity, episodes.unit = "move", " %"

    def evaluate(self, ticks: Ticks) -> None:
        """Measure every tick with a positive price."""
        side, prices = priced(ticks, self._of)
        for bucket, part in spans(side.at_ns, self._bucket_ns):
            self._evaluate(cut(side, part), prices[part], bucket)

    def _evaluate(self, side: Side | Part, prices: Floats, bucket: int) -> None:
        symbols = side.symbols
        if bucket != self._bucket:
            self._turn(bucket)
        low, high = self._low[symbols], self._high[symbols]
        past_low, past_high = self._past_low[symbols], self._past_high[symbols]
        np.minimum.at(self._low, symbols, prices)
        np.maximum.at(self._high, symbols, prices)
        # Against extremes of the whole batch, also of later ticks: no move is larger.
        lowest, highest = np.minimum(past_low, self._low[symbols]), np.maximum(past_high, self._high[symbols])
        suspect = (prices >= lowest * self._rise) | (prices <= highest * self._fall)
        if self._episodes.active:
            state = self._episodes.state[symbols]
            suspect |= (state == PENDING) | (state == RAISED)
        if np.count_nonzero(suspect):
            low, high = np.minimum(low, past_low), np.maximum(high, past_high)
            values = np.full(len(prices), np.nan)
            for symbol in np.unique(symbols[suspect]).tolist():
                own = np.flatnonzero(symbols == symbol)
                lows = np.minimum(np.minimum.accumulate(prices[own]), low[own[0]])
                highs = np.maximum(np.maximum.accumulate(prices[own]), high[own[0]])
                values[own] = _move(prices[own], lows, highs)
            self._episodes.above(side, values, self._threshold, self._clear_at)

    def _turn(self, bucket: int) -> None:
        """Begin a bucket."""
        known = slice(0, self._episodes.known)
        for rows, current, past, empty, extreme in (
            (self._lows, self._low, self._past_low, np.inf, np.min),
            (self._highs, self._high, self._past_high, -np.inf, np.max),
        ):
            if self._bucket >= bucket - MOVE_BUCKETS:
                rows[self._bucket % MOVE_BUCKETS, known] = current[known]
            for skipped in range(max(self._bucket + 1, bucket - MOVE_BUCKETS), bucket):
                rows[skipped % MOVE_BUCKETS, known] = empty
            past[known] = extreme(rows[:, known], axis=0)
            current[known] = empty
        self._bucket = bucket


class LuldConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``type = "luld"``"""

    percent: Literal[5, 10, 20]
    clear_at: Level | None = None

    def problems(self) -> Iterator[Problem]:
        """Yield the problems between keys."""
        yield from clear_problem(self.clear_at, self.percent)


class Luld:
    """Trades outside of bands around the mean price of five minutes, as in the plan "Limit Up-Limit Down".

    The reference is a symbol's first price, then the mean of its trades in the last five minutes, once that
    is 1 % or more away from the reference.
    """

    Config = LuldConfig

    def __init__(self, config: LuldConfig, episodes: Episodes) -> None:
        self._episodes = episodes
        self._threshold = float(config.percent)
        self._clear_at = self._threshold if config.clear_at is None else config.clear_at
        count = episodes.max_symbols
        self._reference = np.full(count, np.nan)
        self._bucket = np.full(count, -1)
        self._numbers = np.zeros((count, LULD_BUCKETS), np.int64)
        # Sums of the two halves of prices and counts, integers: exact in any order. First the current bucket.
        self._current = np.zeros((3, count), np.int64)
        self._sums = np.zeros((3, count, LULD_BUCKETS), np.int64)
        episodes.quantity, episodes.unit = "distance from the reference", " %"

    def evaluate(self, ticks: Ticks) -> None:
        """Measure every trade with a positive price."""
        side, prices = ticks.trades.priced
        exact = ticks.trades.price
        exact = exact if len(exact) == len(prices) else exact[exact > 0]
        for bucket, part in spans(side.at_ns, LULD_BUCKET_NS):
            self._evaluate(cut(side, part), prices[part], exact[part], bucket)

    def _evaluate(self, side: Side | Part, prices: Floats, exact: Ints, bucket: int) -> None:
        symbols = side.symbols
        late = self._bucket[symbols] != bucket
        if np.count_nonzero(late):
            self._turn(symbols[late], bucket)
        references = take_first(self._reference, symbols, prices)
        observe_distance(self._episodes, side, prices, references, self._threshold, self._clear_at)
        high, low, counts = self._current
        np.add.at(high, symbols, exact >> _LOW_BITS)
        np.add.at(low, symbols, exact & ((1 << _LOW_BITS) - 1))
        np.add.at(counts, symbols, 1)

    def _turn(self, symbols: Ints, bucket: int) -> None:
        """Begin a bucket of ``symbols``; one that is in it twice is written twice, with the same values."""
        old = self._bucket[symbols]
        slots = old % LULD_BUCKETS
        self._numbers[symbols, slots] = old + 1
        self._sums[:, symbols, slots] = self._current[:, symbols]
        self._current[:, symbols] = 0
        self._bucket[symbols] = bucket
        within = self._numbers[symbols] > max(bucket - LULD_BUCKETS, 0)
        high, low, counts = np.where(within, self._sums[:, symbols], 0).sum(axis=2)
        # Both products are exact, so the sum is rounded once, as the exact sum would be.
        mean = (high.astype(np.float64) * 2.0**_LOW_BITS + low) / counts
        reference = self._reference[symbols]
        moved = np.abs(mean / reference - 1) >= LULD_STEP  # False without trades: NaN
        self._reference[symbols[moved]] = mean[moved]


def take_first(first: Floats, symbols: Ints, values: Floats) -> Floats:
    """Store the first of the ``values`` of each symbol whose entry of ``first`` is NaN; return the entries.

    ``symbols``, ``values`` and the result have shape ``(k,)``; ``first`` has an entry per symbol.
    """
    entries = first[symbols]
    new = np.isnan(entries)
    if np.count_nonzero(new):
        places = np.flatnonzero(new)
        found, at = np.unique(symbols[places], return_index=True)
        first[found] = values[places[at]]
        entries = first[symbols]
    return entries


def _move(prices: Floats, lows: Floats, highs: Floats) -> Floats:
    """Return the larger of rise and fall, in percent."""
    moved: Floats = np.maximum(prices / lows - 1, 1 - prices / highs) * 100
    return moved
