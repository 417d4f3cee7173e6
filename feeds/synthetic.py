"""Feed type ``synthetic``: random walks with realistic spreads, deterministic for a seed.

Ticks are generated in blocks of fixed size, so that their sequence depends only on
the configuration; the clock decides how blocks are cut into batches.
Cost: about 0.05 µs per tick, without the ring write that perf/rings.py measures.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
import numpy as np
import trio
from msgspec import Meta
from numpy.typing import NDArray

from marketfeed.core.records import BUY, QUOTE, QUOTES, SELL, TRADE, TRADES, Batch
from marketfeed.core.symbols import SYMBOL_WORDS, is_symbol
from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from marketfeed.ingest.feed import Intake, Publish

CENT: Final = 10_000_000  # 0.01 in units of 1e-9
BLOCK: Final = 8192  # ticks generated at a time, about 0.4 ms
STEP_TICKS: Final = 16384  # ticks between two checkpoints, 5 ms; reached only when behind
MAX_BEHIND_S: Final = 0.25  # ticks further behind are dropped
MIN_SLEEP_S: Final = 0.001
MIN_BID_CENTS: Final = 100
MAX_REPORTED: Final = 10  # invalid names reported, one line each


Cents = NDArray[np.int64]


class SyntheticConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keys of a ``[[feeds]]`` table of type ``synthetic``."""

    symbols: Annotated[int, Meta(ge=1, le=65536)] | list[str] = 1000
    prefix: Annotated[str, Meta(max_length=16)] = "SY"
    rate: Annotated[float, Meta(gt=0, le=5_000_000)] = 10_000.0  # quotes a second
    activity: Literal["zipf", "uniform"] = "zipf"
    trades: Annotated[float, Meta(ge=0, le=10)] = 0.1  # trades per quote
    seed: Annotated[int, Meta(ge=0)] = 0
    start_sessions: Annotated[int, Meta(ge=0)] = 0  # start once this many sessions are synced


class SyntheticFeed:
    """Publishes ticks at the configured rate, without drift and without end."""

    Config = SyntheticConfig

    def __init__(
        self, config: SyntheticConfig, intake: Intake, wall_ns: Callable[[], int] = time.time_ns
    ) -> None:
        names = _names(config)
        known = [number for number in map(intake.symbol, names) if number is not None]
        if len(known) < len(names):
            raise ConfigError(
                f"symbols: {len(names)} are too many: engine.max_symbols leaves room for {len(known)}"
            )
        self.start_sessions = config.start_sessions
        self._symbols = np.array(known, np.uint16)
        self._config = config
        self._intake = intake
        self._wall_ns = wall_ns
        # Ticks per second over both channels.
        self._rate = config.rate * (1 + config.trades)

    async def run(self, publish: Publish) -> None:
        """Publish due ticks about every millisecond, or one by one at rates below that."""
        blocks = self.blocks()
        batch, at = next(blocks), 0
        start_s, published = trio.current_time(), 0
        while True:
            now_s = trio.current_time()
            behind_s = now_s - start_s - published / self._rate
            if behind_s > MAX_BEHIND_S:
                dropped = int((behind_s - MAX_BEHIND_S) * self._rate)
                self._intake.count("behind", dropped)
                start_s += dropped / self._rate
            due = int((now_s - start_s) * self._rate) + 1 - published
            step = 0
            while due > 0:
                if at == len(batch):
                    batch, at = next(blocks), 0
                size = min(due, len(batch) - at)
                self._publish(batch.cut(at, at + size), publish)
                at, due, published, step = at + size, due - size, published + size, step + size
                if step >= STEP_TICKS:
                    step = 0
                    await trio.lowlevel.checkpoint()
            next_s = start_s + published / self._rate
            await trio.sleep_until(max(next_s, trio.current_time() + MIN_SLEEP_S))

    def _publish(self, batch: Batch, publish: Publish) -> None:
        now_ns = self._wall_ns()
        for records in (batch.quotes, batch.trades):
            if len(records):
                records["ts_event"] = now_ns
                records["ts_recv"] = now_ns
        publish(batch)

    def blocks(self) -> Iterator[Batch]:
        """Yield the ticks in order, in blocks of BLOCK, without times; deterministic for a configuration."""
        config, symbols = self._config, self._symbols
        rng = np.random.default_rng(config.seed)
        draw = _zipf if config.activity == "zipf" else _uniform
        bids = rng.integers(10_00, 500_00, len(symbols))  # cents
        trade_id = 0
        while True:
            which = draw(rng, len(symbols))
            channels = (rng.random(BLOCK, np.float32) < config.trades / (1 + config.trades)).view(np.uint8)
            moves = rng.integers(-1, 2, BLOCK, np.int8) * (channels == QUOTES)
            bid = self._walk(bids, which, moves)
            ask = bid + 1 + (which % 3)
            lots = rng.integers(1, 50, (2, BLOCK), np.uint8) * 100.0
            quoted, traded = np.flatnonzero(channels == QUOTES), np.flatnonzero(channels == TRADES)
            quotes = np.zeros(len(quoted), QUOTE)
            quotes["symbol"] = symbols[which[quoted]]
            quotes["bid_px"], quotes["ask_px"] = bid[quoted] * CENT, ask[quoted] * CENT
            quotes["bid_sz"], quotes["ask_sz"] = lots[0][quoted], lots[1][quoted]
            trades = np.zeros(len(traded), TRADE)
            buys = rng.random(len(trades)) < 0.5
            trades["symbol"] = symbols[which[traded]]
            trades["price"] = np.where(buys, ask[traded], bid[traded]) * CENT
            trades["size"] = lots[0][traded]
            trades["side"] = np.where(buys, BUY, SELL)
            trades["trade_id"] = np.arange(trade_id + 1, trade_id + 1 + len(trades))
            trade_id += len(trades)
            yield Batch(quotes, trades, channels)

    @staticmethod
    def _walk(bids: Cents, which: NDArray[np.uint16], moves: NDArray[np.int8]) -> Cents:
        """Return the bid at each tick of the symbols' random walks, never below MIN_BID_CENTS.

        ``bids``, int64 in cents, has one entry per symbol and is updated to the
        last bids. Computes cumulative sums per symbol without a loop.
        """
        order = np.argsort(which, kind="stable")  # a radix sort, because symbols are u2
        by_symbol, moved = which[order], moves[order].astype(np.int64)
        sums = np.cumsum(moved)
        starts = np.flatnonzero(np.concatenate(([True], by_symbol[1:] != by_symbol[:-1])))
        counts = np.diff(np.append(starts, len(which)))
        before = sums[starts] - moved[starts]
        walked = np.repeat(bids[by_symbol[starts]] - before, counts) + sums
        walked = MIN_BID_CENTS + np.abs(walked - MIN_BID_CENTS)
        bids[by_symbol[starts]] = walked[starts + counts - 1]
        path = np.empty_like(walked)
        path[order] = walked
        return path


def _names(config: SyntheticConfig) -> list[str]:
    """Return the names of the symbols; raises ConfigError that lists invalid names."""
    if isinstance(config.symbols, int):
        names = [f"{config.prefix}{i:04d}" for i in range(config.symbols)]
        if not is_symbol(names[-1]):
            raise ConfigError(
                f"prefix: {json.dumps(config.prefix)} is no valid start of a symbol: {SYMBOL_WORDS}"
            )
        return names
    first: dict[str, int] = {}
    found = [] if config.symbols else ["symbols: at least one name, or a number"]
    for index, name in enumerate(config.symbols):
        if not is_symbol(name):
            found.append(f"symbols.{index}: {json.dumps(name[:60])} is no symbol: {SYMBOL_WORDS}")
        elif first.setdefault(name, index) != index:
            found.append(f"symbols.{index}: {name} is symbols.{first[name]} too")
    if found:
        rest = [f"symbols: and {len(found) - MAX_REPORTED} further mistakes like these"]
        raise ConfigError(*found[:MAX_REPORTED], *(rest if len(found) > MAX_REPORTED else []))
    return list(first)


def _uniform(rng: np.random.Generator, symbols: int) -> NDArray[np.uint16]:
    """Draw BLOCK indices below ``symbols``, uniformly."""
    return rng.integers(0, symbols, BLOCK, np.uint16, endpoint=False)


def _zipf(rng: np.random.Generator, symbols: int) -> NDArray[np.uint16]:
    """Draw BLOCK indices below ``symbols``; index k has weight 1 / (k + 1)."""
    edges = np.cumsum(1 / np.arange(1, symbols + 1))
    # Searching sorted draws is several times faster; a permutation restores a random order.
    drawn = np.searchsorted(edges, np.sort(rng.random(BLOCK)) * edges[-1])
    return rng.permutation(np.minimum(drawn, symbols - 1).astype(np.uint16))
