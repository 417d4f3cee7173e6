"""What does a tap cost its reader and the engine?

    rings ──► follower in this process: ns per tick, by batch size
    engine process ──► eventfd ──► this process: from `ts_recv` to the read
    engine process + 500 sessions, with and without taps, alternating: server CPU per delivered quote

Reports: cost of a reader per step and per tick, its latency, and the cost of following and of sleeping taps
for the engine. Not covered: the effect of readers on caches if all cores are busy.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Final

import numpy as np

import marketfeed
from marketfeed.core.records import QUOTE, Batch
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter
from marketfeed.shm.tap import Tap
from perf import bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TAP: Final = 'tap = "tap.sock"'
READ: Final = """
import sys, marketfeed
for step in marketfeed.tap(sys.argv[1]).follow("*"):
    pass
"""


def reading(rounds: int) -> None:
    """Print the cost of a step of a follower of all symbols, without waiting."""
    rings = Rings.shared(8192, 1024)
    table = SymbolTable(8192, rings.names)
    for number in range(1000):
        table.intern(f"SY{number:04d}")
    writer, draw = RingWriter(rings), np.random.default_rng(0)
    door, other = socket.socketpair()
    tap = Tap(Rings.attach(rings.fd), door, os.eventfd(0, os.EFD_NONBLOCK))
    for size in (1, 16, 256, 4096):
        follower, took = tap.follow("*"), []
        for _ in range(200 * rounds):
            quotes = np.zeros(size, QUOTE)
            quotes["symbol"] = draw.integers(0, 1000, size)
            writer.write(Batch(quotes))
            began = time.perf_counter_ns()
            step = follower.take()
            took.append(time.perf_counter_ns() - began)
            assert len(step.quotes) == size
            assert not step.gaps
        us = median(took) / 1e3
        bench.console.print(f"a step of {size:4} quotes: {us:7.1f} µs, {us * 1e3 / size:8.1f} ns per quote")
    began = time.perf_counter_ns()
    for _ in range(100_000):
        tap.head()
    bench.console.print(f"head: {(time.perf_counter_ns() - began) / 1e5:.0f} ns")
    tap.close()
    other.close()


def latency(seconds: float, rate: float) -> None:
    """Print the time from receipt of a quote in an idle engine until a reader has it."""
    for how in ("wait", "spin"):
        with bench.marketfeed(rate, engine=TAP) as server, marketfeed.tap(server.tap) as tap:
            follower, late_us = tap.follow("*"), []
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                if how == "wait":
                    tap.wait(1, after=follower.g)
                else:
                    while tap.head() == follower.g and time.monotonic() < until:
                        pass
                step = follower.take()
                now_ns = time.time_ns()
                if len(step.quotes):
                    late_us.append((now_ns - int(step.quotes["ts_recv"][0])) / 1e3)
            p50, p99 = np.percentile(late_us, [50, 99])
            bench.console.print(
                f"{how}, {rate:,.0f} quotes/s: p50 {p50:.0f} µs, p99 {p99:.0f} µs ({len(late_us)} steps)"
            )


@contextlib.contextmanager
def readers(path: Path, count: int, asleep: bool) -> Iterator[None]:
    """Run ``count`` processes that follow the tap at ``path``, or, if ``asleep``, have been stopped."""
    running = [
        subprocess.Popen([sys.executable, "-c", READ, str(path)], cwd=bench.ROOT) for _ in range(count)
    ]
    try:
        time.sleep(1.5)
        for process in running:
            assert process.poll() is None
            if asleep:
                process.send_signal(signal.SIGSTOP)
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def effect(options: argparse.Namespace) -> None:
    """Print the engine's CPU per delivered quote without and with taps, alternating."""
    work = replace(bench.work_of(options), warm_s=1.0)
    ratios: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        plain = cost(work, options.rate, 0, False)
        for count, asleep in ((16, True), (1, False)):
            tapped = cost(work, options.rate, count, asleep)
            name = f"{count} {'asleep' if asleep else 'following everything'}"
            ratios.setdefault(name, []).append(tapped / plain)
    for name, values in ratios.items():
        shown = ", ".join(f"{value:.3f}" for value in values)
        bench.console.print(f"server CPU per quote with {name} over without: {median(values):.3f} ({shown})")


def cost(work: bench.Work, rate: float, count: int, asleep: bool) -> float:
    """Return the server's CPU per delivered quote, in µs."""
    with bench.marketfeed(rate, work.universe, TAP) as server, readers(server.tap, count, asleep):
        point = bench.load(server, work, rate)
    point.assert_honest()
    return point.cpu_us


def main() -> None:
    """Run the three benchmarks."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.tap", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    bench.common(parser)
    parser.add_argument("--rate", type=float, default=25_000, help="quotes/s of the feed with 500 sessions")
    parser.add_argument("--only", choices=["reading", "latency", "effect"], help="run only one of the three")
    options = parser.parse_args()
    bench.console.print(bench.machine(), style="dim", highlight=False)
    if options.only in (None, "reading"):
        reading(options.rounds)
    if options.only in (None, "latency"):
        latency(options.seconds, 1000)
    if options.only in (None, "effect"):
        effect(options)


if __name__ == "__main__":
    main()
