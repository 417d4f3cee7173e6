"""The rule price_band: a price outside of fixed bounds, or too far from a reference price."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
import numpy as np
from msgspec import Meta

from marketfeed.alerts.rules.levels import Level, Percent, observe_distance
from marketfeed.alerts.rules.rule import Problem, clear_problem
from marketfeed.alerts.rules.ticks import cut, priced, spans
from marketfeed.alerts.rules.windows import take_first
from marketfeed.core.fixed import SCALE, price_from_text
from marketfeed.core.symbols import is_symbol
from marketfeed.core.units import DAY_NS
from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from marketfeed.alerts.rules.episodes import Episodes
    from marketfeed.alerts.rules.ticks import Floats, Ints, Part, Side, Ticks

FIRST: Final = "first"
_SHOWN: Final = 5  # mistakes of a reference file

Price = Annotated[float, Meta(ge=-4e9, le=4e9)]


class PriceBandConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``type = "price_band"``"""

    low: Price | None = None
    high: Price | None = None
    percent: Percent | None = None
    reference: Annotated[str, Meta(min_length=1)] = FIRST
    of: Literal["mid", "trade"] = "mid"
    clear_at: Level | None = None

    def problems(self) -> Iterator[Problem]:
        """Yield the problems between keys."""
        bounded = self.low is not None or self.high is not None
        if bounded == (self.percent is not None):
            yield "percent", "give either low and high (one of them or both), or percent"
        if bounded and self.reference != FIRST:
            yield "reference", "belongs to percent, and this rule has low or high"
        if self.low is not None and self.high is not None:
            if self.low > self.high:
                yield "high", f"must be at least low ({self.low:g}), not {self.high:g}"
            elif self.clear_at is not None and 2 * self.clear_at > self.high - self.low:
                yield "clear_at", f"must be at most half of high - low, not {self.clear_at:g}"
        if not bounded:
            yield from clear_problem(self.clear_at, self.percent)


class PriceBand:
    """A mid or trade price outside of [low, high], or ``percent`` away from a reference."""

    Config = PriceBandConfig

    def __init__(self, config: PriceBandConfig, episodes: Episodes) -> None:
        self._config, self._episodes = config, episodes
        self._reference = np.full(episodes.max_symbols, np.nan)  # in 1e-9
        self._day = -1  # since 1970, of the references
        self._listed: dict[str, int] = {}  # from the file, in 1e-9
        self._names: list[str] = []
        if config.percent is None:
            episodes.quantity = "price"
        else:
            episodes.quantity, episodes.unit = "distance from the reference", " %"

    def learn(self, first: int, names: list[str]) -> None:
        """Take the names of the symbols ``first``, ``first + 1`` …"""
        self._names += names
        for number, name in enumerate(names, first):
            if name in self._listed:
                self._reference[number] = self._listed[name]

    def reload(self, base: Path) -> None:
        """Read the reference file again; raises ConfigError, and the prices stay as they were."""
        if self._config.reference == FIRST:
            return
        self._listed = read_prices(base / self._config.reference)
        self._reference[:] = np.nan
        names, self._names = self._names, []
        self.learn(0, names)

    def evaluate(self, ticks: Ticks) -> None:
        """Measure every tick with a price; percent needs positive ones."""
        config = self._config
        if config.percent is None:
            self._bounded(ticks)
            return
        side, prices = priced(ticks, config.of)
        if config.reference != FIRST:
            self._relative(side, prices, self._reference[side.symbols])
            return
        for day, stretch in spans(side.at_ns, DAY_NS):
            part, of_day = cut(side, stretch), prices[stretch]
            if day != self._day:
                self._reference[:], self._day = np.nan, day
            self._relative(part, of_day, take_first(self._reference, part.symbols, of_day))

    def _relative(self, side: Side | Part, prices: Floats, references: Floats) -> None:
        percent = self._config.percent or 0.0
        clear_at = percent if self._config.clear_at is None else self._config.clear_at
        observe_distance(self._episodes, side, prices, references, percent, clear_at)

    def _bounded(self, ticks: Ticks) -> None:
        # Integers, exact: prices of trades in 1e-9, mids in half of that.
        config, inside = self._config, self._config.clear_at or 0.0
        prices, valid, scale = _exact(ticks, config.of)
        hot = np.zeros(len(prices), bool)
        over = np.ones(len(prices), bool)
        if config.low is not None:
            hot |= prices < round(config.low * SCALE) * scale
            over &= prices >= (round(config.low * SCALE) + round(inside * SCALE)) * scale
        if config.high is not None:
            hot |= prices > round(config.high * SCALE) * scale
            over &= prices <= (round(config.high * SCALE) - round(inside * SCALE)) * scale
        if valid is not None:
            hot &= valid
        self._episodes.observe(
            ticks.quotes if config.of == "mid" else ticks.trades,
            hot,
            lambda: over,
            lambda i: self._detail(int(prices[i]), valid is None or bool(valid[i]), scale),
        )

    def _detail(self, price: int, valid: bool, scale: int) -> tuple[float, float]:
        """Return the price and the bound that it violates, else the nearer one."""
        low, high = self._config.low, self._config.high
        value = price / (scale * SCALE)
        if low is None or high is None:
            bound = low if high is None else high
        else:
            bound = low if 2 * value < low + high else high
        return value if valid else np.nan, bound or 0.0


def _exact(ticks: Ticks, of: str) -> tuple[Ints, np.ndarray | None, int]:
    """Return prices as integers, a mask of those that exist (None: all), and how many units are 1e-9."""
    if of == "mid":
        return ticks.quotes.bid + ticks.quotes.ask, ticks.quotes.both, 2
    return ticks.trades.price, None, 1


def read_prices(path: Path) -> dict[str, int]:
    """Return the prices in 1e-9 by symbol from a CSV file of two columns, symbol and price.

    A first line whose price is no number is a header. Raises ConfigError (``reference: …``).
    """
    try:
        rows = list(csv.reader(path.read_text("utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"reference: {path}: {reason}") from None
    prices: dict[str, int] = {}
    wrong: list[str] = []
    for line, row in enumerate(rows, 1):
        if not row:
            continue
        try:
            name, text = (cell.strip() for cell in row)
            price, _ = price_from_text(text)
            if not is_symbol(name) or price <= 0 or name in prices:
                raise ValueError(name)
            prices[name] = price
        except ValueError:
            if line > 1:
                wrong.append(
                    f"reference: {path}:{line}: must be a symbol and a price above 0, each symbol once"
                )
    if wrong or not prices:
        raise ConfigError(*(wrong[:_SHOWN] or [f"reference: {path}: no line with a symbol and a price"]))
    return prices
