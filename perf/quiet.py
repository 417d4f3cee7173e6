"""What is the latency of a quote in an idle engine, and where does its time go?

    synthetic feed, 1 symbol, 100 quotes/s ──► rings ──► shard ──► 1 loopback WebSocket ──► client
    the same work, in turns:  `websockets` on uvloop, a bare broadcast() per quote ──────► the same client

Reports: latency from receipt to the client's read, server CPU per quote, and ratios to the bare sender,
medians of rounds in turns; targets p50 and p90 ≤ 1.5 times the bare sender's, and 250 µs of CPU. Then the
medians of marketfeed's own hops, and the CPU of a trio program that only sleeps until each quote, which the
engine's cannot fall below. Its CPU includes its probes and their sockets; the bare sender's includes its
polls for due quotes every millisecond, which keep its caches warm. Not covered: load (perf.fanout), networks.
Every quote is parsed; a missing or doubled one fails the run.

    pip install -e '.[perf]'
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import httpx
from rich.table import Table

from perf import bench
from perf.peers import python_peer

if TYPE_CHECKING:
    from collections.abc import Mapping

OURS, BARE = "marketfeed", "websockets, bare"
MOST_RATIO: Final = 1.5
MOST_CPU_US: Final = 250.0
PERCENTILES: Final = ("p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms")
INTERVAL_S: Final = 5.0  # of the engine's latency log


def hops(server: bench.Server, point: bench.Point) -> dict[str, float]:
    """Return the median of each step of a quote in µs, once the engine has published its last interval."""
    time.sleep(1.5 * INTERVAL_S)
    answer = httpx.get(f"http://127.0.0.1:{server.port}/v1/latency", timeout=10).json()
    (tier,) = [t for t in answer["tiers"].values() if "total" in t["hops"]]
    median = {hop: values["since_start"]["p50_ns"] / 1e3 for hop, values in tier["hops"].items()}
    return {
        "stamp to published": median["ring"],
        "to woken": median["wait"],
        "to encoded": median["encode"],
        "to accepted by the kernel": median["send"] - median["encode"],
        "to read by the client": 1e3 * point.counts["p50_ms"] - median["total"],
    }


def sleep_us(rate: float, seconds: float) -> float:
    """Return the CPU of one sleep of trio in µs."""
    argv = [sys.executable, "-m", "perf.engines.trio_sleep", str(rate), str(seconds)]
    return float(subprocess.run(argv, check=True, capture_output=True, text=True, cwd=bench.ROOT).stdout)


def report(
    points: Mapping[str, list[bench.Point]], steps: list[dict[str, float]], sleeps_us: list[float]
) -> None:
    """Print medians, ratios with their targets, and the steps."""

    def median(engine: str, name: str) -> float:
        return bench.middle([point.counts[name] for point in points[engine]])

    for name in PERCENTILES[:3]:
        ratio = median(OURS, name) / median(BARE, name)
        verdict = ""
        if name != "p99_ms":
            verdict = f", target {MOST_RATIO}: " + ("met" if ratio <= MOST_RATIO else "missed")
        bench.console.print(
            f"{name.partition('_')[0]}: {median(OURS, name):.3f} ms, {ratio:.2f} times the bare sender's "
            f"{median(BARE, name):.3f} ms{verdict}"
        )
    cpu = bench.middle([point.cpu_us for point in points[OURS]])
    verdict = "met" if cpu <= MOST_CPU_US else "missed"
    bench.console.print(
        f"CPU per quote: {cpu:.0f} µs, target {MOST_CPU_US:.0f}: {verdict}; one sleep of trio alone: "
        f"{bench.middle(sleeps_us):.0f} µs"
    )
    for step in steps[0]:
        bench.console.print(f"{step:>26}  {bench.middle([found[step] for found in steps]):6.1f} µs")


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
    starts: dict[str, bench.Start] = {
        OURS: functools.partial(bench.marketfeed, universe=1, latency=f"interval_s = {INTERVAL_S}"),
        BARE: functools.partial(python_peer, "websockets_broadcast", 1, "marketfeed"),
    }
    table = Table(title=f"One session, one symbol, {options.rate:g} quotes/s")
    for title in ("round", "engine", "quotes", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "CPU µs"):
        table.add_column(title, justify="left" if title == "engine" else "right")
    points: dict[str, list[bench.Point]] = {OURS: [], BARE: []}
    steps: list[dict[str, float]] = []
    sleeps_us: list[float] = []
    for number in range(1, options.rounds + 1):
        for engine, start in starts.items():
            with (
                bench.console.status(f"round {number} of {options.rounds}: {engine}"),
                start(options.rate) as server,
            ):
                point = bench.load(server, work, options.rate)
                if engine == OURS:
                    steps.append(hops(server, point))
                    sleeps_us.append(sleep_us(options.rate, options.seconds / 2))
            point.assert_honest()
            assert point.counts["missing"] == 0, point.counts
            points[engine].append(point)
            table.add_row(
                str(number), engine, f"{point.counts['ticks']:,}",
                *(f"{point.counts[name]:.3f}" for name in PERCENTILES), f"{point.cpu_us:.0f}",
            )  # fmt: skip
    bench.console.print(table)
    report(points, steps, sleeps_us)


if __name__ == "__main__":
    main()
