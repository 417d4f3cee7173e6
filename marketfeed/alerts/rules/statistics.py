"""Rules against exponentially weighted statistics of a symbol: size_spike, anomaly.

An observation's weight halves with every ``half_life_s``, in steps of a sixteenth of it: what a tick is
compared with are the observations of earlier steps. So it is constant within a step, and no tick is compared
with itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
import numpy as np
from msgspec import Meta

from marketfeed.alerts.rules.levels import Level
from marketfeed.alerts.rules.rule import Problem, clear_problem
from marketfeed.alerts.rules.ticks import cut, measured, spans
from marketfeed.alerts.rules.windows import take_first
from marketfeed.core.units import S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from marketfeed.alerts.rules.episodes import Episodes
    from marketfeed.alerts.rules.ticks import Floats, Ints, Part, Quotes, Side, Ticks

STEPS: Final = 16  # of one half-life
LEAST_WEIGHT: Final = 10.0  # sum of the weights from which on a symbol is measured
FLAT: Final = 1e-12  # variance below this part of the mean square is rounding: the values are constant
# Weight after so many steps; after 64 half-lives nothing is left.
_WEIGHTS: Final = np.array([0.5 ** (steps / STEPS) for steps in range(64 * STEPS)] + [0.0])

HalfLife = Annotated[float, Meta(ge=0.1, le=86_400)]


class Decayed:
    """Exponentially weighted sums per symbol of the first ``powers`` of 1, x and x²."""

    def __init__(self, max_symbols: int, half_life_s: float, powers: int) -> None:
        self.step_ns = max(round(half_life_s * S) // STEPS, 1)
        self.sums = np.zeros((powers, max_symbols))  # of earlier steps, weighted as of the current one
        self._current = np.zeros((powers, max_symbols))
        self._step = np.zeros(max_symbols, np.int64)

    def turn(self, symbols: Ints, step: int) -> None:
        """Begin ``step`` for those of ``symbols`` that are in an earlier one."""
        late = self._step[symbols] != step
        if np.count_nonzero(late):
            found = symbols[late]  # a symbol that is in it twice is written twice, with the same values
            weights = _WEIGHTS[np.minimum(step - self._step[found], len(_WEIGHTS) - 1)]
            self.sums[:, found] = (self.sums[:, found] + self._current[:, found]) * weights
            self._current[:, found] = 0
            self._step[found] = step

    def add(self, symbols: Ints, values: Floats) -> None:
        """Add an observation per tick to the current step."""
        # Added one after the other, so that the cut of batches does not change how sums are rounded.
        np.add.at(self._current[0], symbols, 1.0)
        np.add.at(self._current[1], symbols, values)
        if len(self._current) > 2:
            np.add.at(self._current[2], symbols, values * values)


class SizeSpikeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``type = "size_spike"``"""

    factor: Annotated[float, Meta(gt=1, le=1e9)]
    half_life_s: HalfLife
    clear_at: Level | None = None

    def problems(self) -> Iterator[Problem]:
        """Yield the problems between keys."""
        yield from clear_problem(self.clear_at, self.factor)


class SizeSpike:
    """A trade's size against the symbol's mean size."""

    Config = SizeSpikeConfig

    def __init__(self, config: SizeSpikeConfig, episodes: Episodes) -> None:
        self._episodes = episodes
        self._threshold = config.factor
        self._clear_at = config.factor if config.clear_at is None else config.clear_at
        self._statistics = Decayed(episodes.max_symbols, config.half_life_s, 2)
        episodes.quantity, episodes.unit = "size against the mean size", " times"

    def evaluate(self, ticks: Ticks) -> None:
        """Measure every trade whose symbol has had enough of them."""
        statistics, trades = self._statistics, ticks.trades
        for step, stretch in spans(trades.at_ns, statistics.step_ns):
            part, sizes = cut(trades, stretch), trades.size[stretch]
            statistics.turn(part.symbols, step)
            weight, sums = (row[part.symbols] for row in statistics.sums)
            values = sizes / (sums / weight)
            values[weight < LEAST_WEIGHT] = np.nan
            self._episodes.above(part, values, self._threshold, self._clear_at)
            statistics.add(part.symbols, sizes)


class AnomalyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``type = "anomaly"``"""

    field: Literal["size", "spread", "return"]
    z: Annotated[float, Meta(gt=0, le=1e6)]
    half_life_s: HalfLife
    clear_at: Level | None = None

    def problems(self) -> Iterator[Problem]:
        """Yield the problems between keys."""
        yield from clear_problem(self.clear_at, self.z)


class Anomaly:
    """How many standard deviations a size, spread or return is away from its mean."""

    Config = AnomalyConfig

    def __init__(self, config: AnomalyConfig, episodes: Episodes) -> None:
        self._episodes, self._field = episodes, config.field
        self._threshold = config.z
        self._clear_at = config.z if config.clear_at is None else config.clear_at
        self._statistics = Decayed(episodes.max_symbols, config.half_life_s, 3)
        # Sums are of differences from the first value: squares of the values themselves would cancel.
        self._origin = np.full(episodes.max_symbols, np.nan)
        self._mid = np.full(episodes.max_symbols, np.nan)  # the last one
        episodes.quantity = f"z-score of the {config.field}"

    def evaluate(self, ticks: Ticks) -> None:
        """Measure every tick with the field whose symbol has had enough of them."""
        side, observed = self._observed(ticks)
        statistics = self._statistics
        for step, stretch in spans(side.at_ns, statistics.step_ns):
            part = cut(side, stretch)
            symbols = part.symbols
            shifted = observed[stretch] - take_first(self._origin, symbols, observed[stretch])
            statistics.turn(symbols, step)
            weight, sums, squares = (row[symbols] for row in statistics.sums)
            mean, square = sums / weight, squares / weight
            variance = square - mean * mean
            values = np.abs(shifted - mean) / np.sqrt(variance)
            values[(weight < LEAST_WEIGHT) | (variance <= FLAT * square)] = np.nan
            self._episodes.above(part, values, self._threshold, self._clear_at)
            statistics.add(symbols, shifted)

    def _observed(self, ticks: Ticks) -> tuple[Side | Part, Floats]:
        if self._field == "size":
            return ticks.trades, ticks.trades.size
        if self._field == "spread":
            return measured(ticks.quotes, ticks.quotes.spread_bps)
        return measured(ticks.quotes, self._returns(ticks.quotes))

    def _returns(self, quotes: Quotes) -> Floats:
        """Return mid / previous mid of the symbol − 1 of each quote; NaN without either."""
        returns = np.full(len(quotes), np.nan)
        places = np.flatnonzero(~np.isnan(quotes.mid))
        places = places[quotes.records["symbol"][places].argsort(kind="stable")]  # of 16 bits: by radix
        symbols, mids = quotes.symbols[places], quotes.mid[places]
        before = np.empty(len(mids))
        before[1:] = mids[:-1]
        first = np.ones(len(mids), bool)
        first[1:] = symbols[1:] != symbols[:-1]
        before[first] = self._mid[symbols[first]]
        returns[places] = mids / before - 1
        self._mid[symbols] = mids
        return returns
