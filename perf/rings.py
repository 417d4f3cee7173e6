"""What does a tick cost in the rings?

    1,000 symbols, p ∝ 1/rank ──► RingWriter.write ──► rings ──► Rings.read, Rings.latest
    batches of 1,024, 64 and 1       (one writer)                (one reader, between the writes)
                                   └──► MirrorWriter.write_given ──► the rings of a mirror

Reports: time per tick and per call, in one process, of the writer, of a reader
that reads after every batch, and of a mirror's writer, each as the median of the rounds with
minimum and maximum. Batches are filled just before, as by a feed, outside
the measured time; the slots (64 MB) are mostly out of cache. A wide spread
means that other processes use the machine: compare only alternating runs.
Not covered: encoding, sending, and contention with a reader in another
process (tests/core/test_rings_stress.py tests its correctness).

    python -m perf.rings
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from marketfeed.core.mirror import MirrorWriter
from marketfeed.core.records import NO_TRADES, QUOTE, QUOTES, Batch
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter

if TYPE_CHECKING:
    from numpy.typing import NDArray

SYMBOLS: Final = 1000
DEPTH: Final = 1024
ROUNDS: Final = 9
BATCHES: Final = {1024: 200, 64: 1000, 1: 4000}  # batch size: batches a round
TARGETS: Final = "at least 10 M quotes/s in batches of 1,024; at most 40 µs for a batch of one"


class Round(NamedTuple):
    """Mean times of one round, in µs per call."""

    write_us: float
    find_us: float
    read_us: float


class Bench:
    """Rings that have wrapped at least once for busy symbols, their writer and one reader."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.rings = Rings.private(SYMBOLS, DEPTH)
        self.writer = RingWriter(self.rings)
        weights = 1 / np.arange(1, SYMBOLS + 1)
        random = np.random.default_rng(seed)
        # Ids in random order of activity.
        ids = random.permutation(SYMBOLS)
        draws = random.choice(SYMBOLS, BATCHES[size] * size, p=weights / weights.sum())
        self.symbols: NDArray[np.uint16] = ids[draws].astype(np.uint16).reshape(-1, size)
        self.quotes = np.zeros(size, QUOTE)
        self.written = 0
        self.read = 0
        self.lost = 0
        self.seen = self.rings.published(QUOTES)

    def round(self) -> Round:
        """Write every batch once and read after each."""
        clock = time.perf_counter_ns
        write_ns = find_ns = read_ns = 0
        rings, batch = self.rings, Batch(self.quotes)
        for symbols in self.symbols:
            self.quotes["symbol"] = symbols
            self.quotes["ts_event"] = self.written
            before = clock()
            self.writer.write(batch)
            wrote = clock()
            head = rings.head()
            published = rings.published(QUOTES)
            changed = np.flatnonzero(published != self.seen)
            after, upto = self.seen[changed], published[changed]
            found = clock()
            ticks = rings.read(QUOTES, changed, after, upto, head)
            done = clock()
            write_ns += wrote - before
            find_ns += found - wrote
            read_ns += done - found
            self.seen[changed] = ticks.seen
            self.written += len(batch)
            self.read += len(ticks.records)
            self.lost += int(ticks.lost.sum())
        calls = 1e3 * len(self.symbols)
        return Round(write_ns / calls, find_ns / calls, read_ns / calls)

    def check(self) -> None:
        """Fail if the rings lost or invented a tick."""
        assert self.lost == 0
        assert self.read == self.written == self.rings.head()
        symbols = np.arange(SYMBOLS)
        records, found = self.rings.latest(QUOTES, symbols, self.rings.head())
        assert (found == self.rings.published(QUOTES)).all()
        assert found.sum() == self.written
        assert (records["symbol"] == symbols[found > 0]).all()


def given_us(size: int) -> list[float]:
    """Return the mean time of each round to write what another writer has numbered, in µs per call."""
    bench, rings = Bench(size, seed=size), Rings.private(SYMBOLS, DEPTH)
    names = SymbolTable(SYMBOLS, rings.names)
    for number in range(SYMBOLS):
        names.intern(f"S{number}")
    mirror = MirrorWriter(rings)
    rounds: list[float] = []
    for _ in range(ROUNDS + 1):
        given_ns = 0
        for symbols in bench.symbols:
            bench.quotes["symbol"] = symbols
            last_g = bench.writer.write(Batch(bench.quotes))
            before = time.perf_counter_ns()
            mirror.write_given(bench.quotes, NO_TRADES, last_g - size + 1, last_g)
            given_ns += time.perf_counter_ns() - before
        rounds.append(given_ns / 1e3 / len(bench.symbols))
    assert rings.view.slots.tobytes() == bench.rings.view.slots.tobytes()
    return rounds[1:]  # the first one warms up pages and caches


def latest_us(rings: Rings) -> float:
    """Return the time to read the newest tick of every symbol."""
    symbols = np.arange(SYMBOLS)
    before = time.perf_counter_ns()
    rings.latest(QUOTES, symbols, rings.head())
    return (time.perf_counter_ns() - before) / 1e3


def row(name: str, calls_us: list[float], ticks: int) -> str:
    """Return one line of the table."""
    median, least, most = statistics.median(calls_us), min(calls_us), max(calls_us)
    return f"{name:<34}{median:9.1f} ({least:6.1f} to {most:6.1f}) {ticks / median:12.2f}"


def main() -> None:
    """Measure and print."""
    print(f"{f'{ROUNDS} rounds of each':<34}{'µs per call (min to max)':>28}{'M ticks/s':>13}")
    for size in BATCHES:
        bench = Bench(size, seed=size)
        bench.round()  # warm up pages and caches
        rounds = [bench.round() for _ in range(ROUNDS)]
        bench.check()
        print(row(f"write a batch of {size:,}", [r.write_us for r in rounds], size))
        print(row("  find what changed", [r.find_us for r in rounds], size))
        print(row("  read it", [r.read_us for r in rounds], size))
        print(row("  write it to a mirror", given_us(size), size))
    newest = [latest_us(bench.rings) for _ in range(200)]
    print(row(f"latest of {SYMBOLS:,} symbols", newest, SYMBOLS))
    print(f"aimed at: {TARGETS}")


if __name__ == "__main__":
    main()
