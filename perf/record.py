"""What does it cost to record a value?

    1,024 latencies, weighted ──► bucket numbers ──► the histogram's own counts

Reports: ns per value for batches of several sizes, beside the package's record_value. Not covered: gathering
of values in a flush (perf.latency). Every histogram is compared with that of record_value.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from hdrh.histogram import HdrHistogram
from rich.console import Console
from rich.table import Table

from marketfeed.core.histogram import DIGITS, HIGHEST_NS, LOWEST_NS, Histogram

SIZES = (1, 16, 256, 1024, 16384)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.record",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    table = Table(title=f"ns a value, best and median of {options.rounds} rounds")
    for title in ("batch", "arrays, best", "arrays, median", "record_value, best"):
        table.add_column(title, justify="right")
    for size in SIZES:
        values = rng.lognormal(13, 1.5, size).astype(np.int64)
        times = rng.integers(1, 50, size)
        repeats = max(200_000 // size, 10)
        rounds, singles = [], []
        for _ in range(options.rounds):
            ours, theirs = Histogram(), HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
            start = time.perf_counter_ns()
            for _ in range(repeats):
                ours.record(values, times)
            rounds.append((time.perf_counter_ns() - start) / repeats / size)
            pairs = list(zip(values.tolist(), times.tolist(), strict=True))
            few = max(2000 // size, 1)
            start = time.perf_counter_ns()
            for _ in range(few):
                for value, count in pairs:
                    theirs.record_value(value, count)
            singles.append((time.perf_counter_ns() - start) / few / size)
            # A recorder with wrong counts invalidates the figures.
            assert np.array_equal(
                ours.counts * few, np.ctypeslib.as_array(theirs.counts).view(np.int64) * repeats
            )
        best, middle = min(rounds), sorted(rounds)[len(rounds) // 2]
        table.add_row(f"{size:,}", f"{best:.1f}", f"{middle:.1f}", f"{min(singles):.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
