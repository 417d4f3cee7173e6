"""What does a tick cost in the rules?

    1,000 symbols, p ∝ 1/rank ──► RuleSet.evaluate, eight rules ──► alerts
    batches of 1,024, 64 and 1       (columns are shared by the rules)

Reports: CPU time per tick, in one process, as the median of the rounds with minimum and maximum: for eight
rules together, and for one rule of each type alone. Ticks are 10 µs apart; one in eleven is a trade. In these
rounds nothing fires; in those of the last row, symbols are wide in turn, 100 episodes a second. A wide spread
means that other processes use the machine: compare only alternating runs.
Not covered: reading the rings, writing the log, delivery.

    python -m perf.alerts
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from marketfeed.alerts.rules import RuleSet, rule_specs
from marketfeed.core.records import QUOTE, TRADE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketfeed.core.records import Records

SYMBOLS: Final = 1000
ROUNDS: Final = 9
BATCHES: Final = {1024: 200, 64: 1000, 1: 4000}  # batch size: batches a round
TICK_NS: Final = 10_000  # from one tick to the next: 100,000 a second
START_NS: Final = 1_790_000_000 * 10**9
EPISODE_TICKS: Final = 1000  # from one wide quote to the next, in the last row
TARGET: Final = "at most 150 ns a tick with eight rules in batches of 1,024"

EIGHT: Final[dict[str, dict[str, Any]]] = {
    "spread": {"bps": 50.0},
    "crossed": {"min_duration_s": 0.5},
    "move": {"percent": 5.0, "window_s": 60.0},
    "stale": {"after_s": 60.0},
    "price_band": {"percent": 20.0},
    "off_market": {"percent": 3.0},
    "size_spike": {"factor": 1000.0, "half_life_s": 60.0},
    "rate": {"above": 1e6, "window_s": 10.0},
}
OTHERS: Final[dict[str, dict[str, Any]]] = {
    "locked": {"min_duration_s": 0.5},
    "luld": {"percent": 10},
    "anomaly": {"field": "return", "z": 50.0, "half_life_s": 60.0},
}


class Bench:
    """A rule set that has seen every symbol, and the ticks of one round after the other."""

    def __init__(self, types: Sequence[str], size: int, wide: bool = False) -> None:
        tables = [{"type": name, **(EIGHT | OTHERS)[name]} for name in types]
        self.rules = RuleSet(rule_specs(tables), SYMBOLS)
        self.rules.learn(f"SY{number:04d}" for number in range(SYMBOLS))
        self.size, self.wide = size, wide
        self._random = np.random.default_rng(size)
        weights = 1 / np.arange(1, SYMBOLS + 1)
        self._weights = weights / weights.sum()
        self._ids = self._random.permutation(SYMBOLS)
        self._g = 0
        self.wides = 0
        self.raised: list[str] = []
        self.cleared: list[str] = []

    def batches(self) -> list[tuple[Records, Records]]:
        """Return the ticks of one round."""
        count = self.size * BATCHES[self.size]
        stamps = np.arange(self._g + 1, self._g + count + 1)
        at_ns = START_NS + stamps * TICK_NS
        symbols = self._ids[self._random.choice(SYMBOLS, count, p=self._weights)]
        mids = (symbols + 1) * 10**10 + self._random.integers(-(10**6), 10**6, count)
        quotes, trades = np.zeros(count, QUOTE), np.zeros(count, TRADE)
        for records in (quotes, trades):
            records["g"], records["ts_recv"], records["symbol"] = stamps, at_ns, symbols
            records["ts_event"] = at_ns - 1
        quotes["bid_px"], quotes["ask_px"] = mids - 10**6, mids + 10**6
        quotes["bid_sz"], quotes["ask_sz"] = self._random.integers(1, 100, (2, count))
        trades["price"], trades["size"] = mids, self._random.integers(1, 100, count)
        is_trade = stamps % 11 == 0
        if self.wide:
            wide = (stamps % EPISODE_TICKS == 0) & ~is_trade
            quotes["ask_px"][wide] += mids[wide] // 100
            self.wides += int(np.count_nonzero(wide))
        self._g += count
        edges = range(0, count, self.size)
        parts = [slice(edge, edge + self.size) for edge in edges]
        return [(quotes[part][~is_trade[part]], trades[part][is_trade[part]]) for part in parts]

    def round(self) -> float:
        """Evaluate the batches of one round; return the time per tick in ns."""
        batches = self.batches()
        found = []
        before = time.thread_time_ns()
        for quotes, trades in batches:
            found += self.rules.evaluate(quotes, trades)
        took_ns = time.thread_time_ns() - before
        for alert, _ in found:
            (self.raised if alert.state == "raised" else self.cleared).append(alert.key)
        return took_ns / (self.size * len(batches))

    def check(self) -> None:
        """Fail if an episode was missed or invented."""
        still = len(self.raised) - len(self.cleared)
        assert set(self.cleared) <= set(self.raised)
        assert 0 <= still <= SYMBOLS
        # A wide quote of a symbol whose last one was wide too continues its episode.
        assert len(set(self.raised)) == len(self.raised) <= self.wides
        assert len(self.raised) >= 0.8 * self.wides


def row(name: str, rounds: list[float]) -> str:
    """Return one line of the table."""
    return f"{name:<34}{statistics.median(rounds):9.1f} ({min(rounds):6.1f} to {max(rounds):6.1f})"


def measured(types: Sequence[str], size: int, wide: bool = False) -> list[float]:
    """Return the time per tick of each round, in ns."""
    bench = Bench(types, size, wide)
    bench.round()  # warm up pages and caches
    rounds = [bench.round() for _ in range(ROUNDS)]
    bench.check()
    return rounds


def main() -> None:
    """Measure and print."""
    print(f"{f'{ROUNDS} rounds of each':<34}{'CPU ns per tick (min to max)':>28}")
    for size in BATCHES:
        print(row(f"eight rules, batches of {size:,}", measured(list(EIGHT), size)))
    print(row("  none", measured([], 1024)))
    for name in EIGHT | OTHERS:
        print(row(f"  {name} alone", measured([name], 1024)))
    print(row("eight rules, 100 episodes/s", measured(list(EIGHT), 1024, wide=True)))
    print(f"aimed at: {TARGET}")


if __name__ == "__main__":
    main()
