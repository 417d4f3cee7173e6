"""What rules measure, for tests: the formulas of docs/alerts.md in plain Python, one tick after the other.

A measure returns a Reading of its tick, or None for no measurement.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

S = 10**9
NAN = math.nan


class Tick(NamedTuple):
    """A quote (``price`` None) or a trade, with its symbol's name and arrival time ``at``."""

    symbol: str
    at: int
    t: int
    r: int
    g: int
    feed: int
    bid: int = 0
    ask: int = 0
    bid_sz: float = 0.0
    ask_sz: float = 0.0
    price: int | None = None
    size: float = 0.0
    trade_id: int = 0

    @property
    def is_quote(self):
        return self.price is None

    @property
    def whole(self):
        return self.bid_sz > 0 and self.ask_sz > 0

    @property
    def mid(self):
        return (
            (self.bid + self.ask) * 0.5 if self.is_quote and self.whole and self.bid + self.ask > 0 else NAN
        )

    @property
    def positive(self):
        return float(self.price) if self.price is not None and self.price > 0 else NAN

    def price_of(self, of):
        return self.mid if of == "mid" else self.positive


class Reading(NamedTuple):
    hot: bool
    cool: bool
    value: float
    threshold: float


def above(value, threshold, clear_at):
    """Return a reading: hot above the threshold, cool at clear_at or below; None without a value."""
    if math.isnan(value):
        return None
    return Reading(
        value > threshold, value <= (threshold if clear_at is None else clear_at), value, threshold
    )


class Spread:
    def __init__(self, bps=None, absolute=None, clear_at=None, min_duration_s=0.0):
        self.bps, self.absolute, self.clear_at, self.min_duration_s = bps, absolute, clear_at, min_duration_s

    def measure(self, tick):
        if not tick.is_quote or not tick.whole:
            return None
        spread = tick.ask - tick.bid
        if self.bps is not None:
            return above(spread / tick.mid * 1e4, self.bps, self.clear_at)
        clear_at = self.absolute if self.clear_at is None else self.clear_at
        return Reading(
            spread > round(self.absolute * S), spread <= round(clear_at * S), spread / S, self.absolute
        )


class Crossed:
    def __init__(self, min_duration_s=0.0):
        self.min_duration_s = min_duration_s

    def measure(self, tick):
        if not tick.is_quote:
            return None
        crossed = tick.whole and tick.bid > tick.ask
        return Reading(crossed, not crossed, (tick.bid - tick.ask) / S if crossed else 0.0, 0.0)


class Locked(Crossed):
    def measure(self, tick):
        if not tick.is_quote:
            return None
        locked = tick.whole and tick.bid == tick.ask
        return Reading(locked, not locked, (tick.ask - tick.bid) / S if tick.whole else 0.0, 0.0)


class PriceBand:
    def __init__(
        self, low=None, high=None, percent=None, reference="first", of="mid", clear_at=None, prices=None
    ):
        self.low, self.high, self.percent, self.of, self.clear_at = low, high, percent, of, clear_at
        self.listed = prices if reference != "first" else None
        self.references: dict[tuple[str, int], float] = {}

    def measure(self, tick):
        if self.percent is not None:
            price = tick.price_of(self.of)
            if math.isnan(price):
                return None
            if self.listed is not None:
                reference = self.listed.get(tick.symbol, NAN)
            else:
                reference = self.references.setdefault((tick.symbol, tick.at // (86_400 * S)), price)
            return above(abs(price / reference - 1) * 100, self.percent, self.clear_at)
        if self.of == "mid":
            if not tick.is_quote or not tick.whole:
                return None
            twice = tick.bid + tick.ask
        elif tick.is_quote:
            return None
        else:
            twice = 2 * tick.price
        inside = round((self.clear_at or 0.0) * S)
        low = None if self.low is None else round(self.low * S)
        high = None if self.high is None else round(self.high * S)
        hot = (low is not None and twice < 2 * low) or (high is not None and twice > 2 * high)
        cool = (low is None or twice >= 2 * (low + inside)) and (high is None or twice <= 2 * (high - inside))
        value = twice / (2 * S)
        if self.low is None or self.high is None:
            bound = self.high if self.low is None else self.low
        else:
            bound = self.low if 2 * value < self.low + self.high else self.high
        return Reading(hot, cool, value, bound)


class OffMarket:
    def __init__(self, percent, clear_at=None):
        self.percent, self.clear_at = percent, clear_at
        self.mids: dict[str, float] = {}

    def measure(self, tick):
        if tick.is_quote:
            self.mids[tick.symbol] = tick.mid
            return None
        value = abs(tick.price / self.mids.get(tick.symbol, NAN) - 1) * 100
        return above(value, self.percent, self.clear_at)


class Move:
    def __init__(self, percent, window_s, of="mid", clear_at=None):
        self.percent, self.of, self.clear_at = percent, of, clear_at
        self.bucket_ns = max(round(window_s * S) // 32, 1)
        self.prices: dict[str, list[tuple[int, float]]] = defaultdict(list)

    def measure(self, tick):
        price = tick.price_of(self.of)
        if math.isnan(price):
            return None
        bucket = tick.at // self.bucket_ns
        window = [(b, p) for b, p in self.prices[tick.symbol] if b >= bucket - 32] + [(bucket, price)]
        # Of one bucket only the extremes matter: keeps the list short.
        self.prices[tick.symbol] = sorted(
            {(b, f(p for c, p in window if c == b)) for b in {b for b, _ in window} for f in (min, max)}
        )
        lowest, highest = min(p for _, p in window), max(p for _, p in window)
        return above(max(price / lowest - 1, 1 - price / highest) * 100, self.percent, self.clear_at)


class Luld:
    def __init__(self, percent, clear_at=None):
        self.percent, self.clear_at = float(percent), clear_at
        self.reference: dict[str, float] = {}
        self.trades: dict[str, list[tuple[int, int]]] = defaultdict(list)

    def measure(self, tick):
        price = tick.positive
        if math.isnan(price):
            return None
        bucket, trades = tick.at // (10 * S), self.trades[tick.symbol]
        reference = self.reference.setdefault(tick.symbol, price)
        if trades and trades[-1][0] != bucket:
            recent = [p for b, p in trades if b >= bucket - 30]
            self.trades[tick.symbol] = trades = [(b, p) for b, p in trades if b >= bucket - 30]
            if recent and abs(sum(recent) / len(recent) / reference - 1) >= 0.01:
                # The sum is an exact integer, rounded once.
                reference = self.reference[tick.symbol] = float(sum(recent)) / len(recent)
        trades.append((bucket, tick.price))
        return above(abs(price / reference - 1) * 100, self.percent, self.clear_at)


@dataclass
class Sums:
    step: int = 0
    past: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    now: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])

    def turn(self, step):
        if step != self.step:
            steps = step - self.step
            weight = 0.5 ** (steps / 16) if steps < 64 * 16 else 0.0
            self.past = [(past + now) * weight for past, now in zip(self.past, self.now, strict=True)]
            self.now = [0.0, 0.0, 0.0]
            self.step = step

    def add(self, value):
        self.now = [self.now[0] + 1.0, self.now[1] + value, self.now[2] + value * value]


class SizeSpike:
    def __init__(self, factor, half_life_s, clear_at=None):
        self.factor, self.clear_at = factor, clear_at
        self.step_ns = max(round(half_life_s * S) // 16, 1)
        self.sums: dict[str, Sums] = defaultdict(Sums)

    def measure(self, tick):
        if tick.is_quote:
            return None
        sums = self.sums[tick.symbol]
        sums.turn(tick.at // self.step_ns)
        weight, total, _ = sums.past
        mean = total / weight if weight >= 10 else NAN
        sums.add(tick.size)
        return above(tick.size / mean if mean else NAN, self.factor, self.clear_at)


class Anomaly:
    def __init__(self, z, half_life_s, clear_at=None, **settings):
        self.field, self.z, self.clear_at = settings["field"], z, clear_at
        self.step_ns = max(round(half_life_s * S) // 16, 1)
        self.sums: dict[str, Sums] = defaultdict(Sums)
        self.origin: dict[str, float] = {}
        self.mids: dict[str, float] = {}

    def observed(self, tick):
        if self.field == "size":
            return NAN if tick.is_quote else tick.size
        if math.isnan(tick.mid):
            return NAN
        if self.field == "spread":
            return (tick.ask - tick.bid) / tick.mid * 1e4
        before = self.mids.get(tick.symbol, NAN)
        self.mids[tick.symbol] = tick.mid
        return tick.mid / before - 1

    def measure(self, tick):
        value = self.observed(tick)
        if math.isnan(value):
            return None
        value -= self.origin.setdefault(tick.symbol, value)
        sums = self.sums[tick.symbol]
        sums.turn(tick.at // self.step_ns)
        weight, total, squares = sums.past
        z = NAN
        if weight >= 10:
            mean, square = total / weight, squares / weight
            variance = square - mean * mean
            if variance > 1e-12 * square:
                z = abs(value - mean) / math.sqrt(variance)
        sums.add(value)
        return above(z, self.z, self.clear_at)
