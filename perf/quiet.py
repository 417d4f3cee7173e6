"""What is the latency of a quote in an idle engine?

    synthetic feed, 1 symbol, 100 quotes/s ──► rings ──► shard ──► 1 loopback WebSocket ──► client

Reports: p50 and p99 from receipt to the client's read, in an engine that wakes up for each quote; target
p99 ≤ 1 ms. Not covered: load, networks. Every quote is parsed; a missing or doubled one fails the run.
"""

from __future__ import annotations

import argparse
import functools

from rich.table import Table

from perf import bench

TARGET_MS = 1.0


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.quiet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=100.0, help="quotes a second")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--client", choices=("c", "python"), default="c")
    options = parser.parse_args()
    work = bench.Work(1, 1, 1, warm_s=1.0, seconds=options.seconds, verify=1, client=options.client)
    bench.console.print(bench.machine(), style="dim", highlight=False)
    start = functools.partial(bench.marketfeed, universe=1)
    table = Table(title=f"One session, one symbol, {options.rate:g} quotes/s")
    for title in ("round", "quotes", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"):
        table.add_column(title, justify="right")
    points = []
    for number in range(1, options.rounds + 1):
        with bench.console.status(f"round {number} of {options.rounds}"):
            point = bench.measure(start, work, options.rate)
        point.assert_honest()
        assert point.counts["missing"] == 0, point.counts
        points.append(point)
        names = ("p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms")
        table.add_row(
            str(number), f"{point.counts['ticks']:,}", *(f"{point.counts[name]:.3f}" for name in names)
        )
    bench.console.print(table)
    p50, p99 = (bench.middle([p.counts[name] for p in points]) for name in ("p50_ms", "p99_ms"))
    verdict = "met" if p99 <= TARGET_MS else "missed"
    bench.console.print(
        f"medians: p50 {p50:.3f} ms, p99 {p99:.3f} ms; target p99 ≤ {TARGET_MS:g} ms {verdict}"
    )


if __name__ == "__main__":
    main()
