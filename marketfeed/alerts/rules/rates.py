"""The rule rate: too many or too few ticks of a symbol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta

from marketfeed.alerts.rules.episodes import CLEAR, PENDING, RAISED
from marketfeed.alerts.rules.readings import Reading
from marketfeed.alerts.rules.rule import Problem, clear_problem
from marketfeed.alerts.rules.ticks import spans
from marketfeed.alerts.rules.windows import Window
from marketfeed.core.units import S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from marketfeed.alerts.rules.episodes import Episodes
    from marketfeed.alerts.rules.ticks import Ints, Mask, Ticks

BUCKETS: Final = 32  # of one window

Rate = Annotated[float, Meta(gt=0, le=1e9)]


class RateConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``type = "rate"``"""

    window_s: Window
    above: Rate | None = None
    below: Rate | None = None
    clear_at: Annotated[float, Meta(ge=0, le=1e9)] | None = None

    def problems(self) -> Iterator[Problem]:
        """Yield the problems between keys."""
        if (self.above is None) == (self.below is None):
            yield "above", "give either above or below"
        elif self.above is not None:
            yield from clear_problem(self.clear_at, self.above)
        else:
            yield from clear_problem(self.clear_at, self.below, below=True)


class TickRate:
    """Ticks per second, quotes and trades, over the last window; judged 32 times per window."""

    Config = RateConfig

    def __init__(self, config: RateConfig, episodes: Episodes) -> None:
        self._episodes = episodes
        self._above = config.above is not None
        self._threshold = (config.above if config.above is not None else config.below) or 0.0
        self._clear_at = self._threshold if config.clear_at is None else config.clear_at
        self._bucket_ns = max(round(config.window_s * S) // BUCKETS, 1)
        self._window_s = self._bucket_ns * BUCKETS / S
        count = episodes.max_symbols
        self._bucket: int | None = None  # the current one, since 1970
        self._idle = 0  # buckets since one that had a tick
        self._counts = np.zeros((BUCKETS, count), np.int32)  # of earlier buckets
        self._totals = np.zeros(count, np.int64)  # of these
        self._current = np.zeros(count, np.int64)
        self._first = np.full(count, np.iinfo(np.int64).max)  # bucket of a symbol's first tick
        self._known = 0  # symbols up to the highest that ticked
        episodes.quantity, episodes.unit = "rate", " ticks/s"

    @property
    def next_ns(self) -> int | None:
        """End of the current bucket; None once all windows are empty."""
        if self._bucket is None or self._idle > BUCKETS:
            return None
        return (self._bucket + 1) * self._bucket_ns

    def evaluate(self, ticks: Ticks) -> Iterator[None] | None:
        """Count ticks, and judge at each end of a bucket."""
        if len(ticks) and int(ticks.at_ns[-1]) // self._bucket_ns == self._bucket:
            self._count(ticks.symbols, self._bucket)
            return None
        return self._evaluate(ticks)

    def advance(self, now_ns: int) -> Iterator[None] | None:
        """Judge at each end of a bucket up to ``now_ns``."""
        return None if self._bucket is None else self._advance(now_ns // self._bucket_ns)

    def _evaluate(self, ticks: Ticks) -> Iterator[None]:
        for bucket, stretch in spans(ticks.at_ns, self._bucket_ns):
            yield from self._advance(bucket)
            self._count(ticks.symbols[stretch], bucket)

    def _count(self, symbols: Ints, bucket: int) -> None:
        """Count ticks of the current bucket."""
        counts = np.bincount(symbols)
        known = len(counts)
        if known > self._known:
            self._known = known
        self._current[:known] += counts
        new = self._first[symbols] > bucket
        if np.count_nonzero(new):
            self._first[symbols[new]] = bucket
        self._idle = 0

    def _advance(self, bucket: int) -> Iterator[None]:
        if self._bucket is None:
            self._bucket = bucket
        while self._bucket < bucket:
            if self._idle > BUCKETS:  # all windows are empty, and judged
                self._bucket = bucket
                return
            self._turn(self._bucket)
            self._bucket += 1
            self._idle += 1
            yield from self._judge(self._bucket)

    def _turn(self, bucket: int) -> None:
        """Add the current bucket to the window, whose oldest leaves it."""
        known, slot = self._known, bucket % BUCKETS
        self._totals[:known] += self._current[:known] - self._counts[slot, :known]
        self._counts[slot, :known] = self._current[:known]
        self._current[:known] = 0

    def _judge(self, bucket: int) -> Iterator[None]:
        known, episodes = self._known, self._episodes
        rates = self._totals[:known] / self._window_s
        hot, cool = self._compared(rates, bucket)
        state = episodes.state[:known]
        moving = (hot & (state == CLEAR)) | (cool & (state == RAISED)) | (state == PENDING)
        numbers = np.flatnonzero(moving)
        columns = [column[numbers].tolist() for column in (hot, cool, rates)]
        at_ns, threshold = bucket * self._bucket_ns, self._threshold
        episodes.take(
            (number, Reading(at_ns, is_hot, is_cool, rate, threshold))
            for number, is_hot, is_cool, rate in zip(numbers.tolist(), *columns, strict=True)
        )
        yield from episodes.slices()

    def _compared(self, rates: np.ndarray, bucket: int) -> tuple[Mask, Mask]:
        if self._above:
            return rates > self._threshold, rates <= self._clear_at
        # A symbol is judged once a whole window has passed since the bucket of its first tick.
        grown = self._first[: len(rates)] <= bucket - BUCKETS
        return (rates < self._threshold) & grown, rates >= self._clear_at
