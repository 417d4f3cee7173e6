"""Shared parts of the benchmarks: load client, its counts, search for saturation, description of the machine.

    script ──► server process (port, ready line)          /proc/PID/stat, smaps_rollup ──► CPU, memory
           └─► client process (perf/client.py or client.c) ──► one line of JSON ──► Point

servers.py starts and stops the servers; its names are re-exported here.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console

from perf.servers import HERE as HERE
from perf.servers import ROOT as ROOT
from perf.servers import Server as Server
from perf.servers import compiled as compiled
from perf.servers import established as established
from perf.servers import free_port as free_port
from perf.servers import marketfeed as marketfeed
from perf.servers import metric as metric
from perf.servers import process as process

if TYPE_CHECKING:
    import argparse
    import contextlib

MOST_MISSING: Final = 0.001  # conflated + lost, of what was offered
LEAST_FEED: Final = 0.999  # share of the requested rate; below, the server's own feed fell behind
FEED_SLACK_S: Final = 0.02  # tolerance for a batch at the edges of the window
LEAST_COUNTED: Final = 0.99  # ticks counted, of those offered in the window; its edges cost some
MOST_P99_MS: Final = 1000.0  # above this a queue is growing

console = Console(soft_wrap=True) if sys.stdout.isatty() else Console(width=160, soft_wrap=True)


def machine() -> str:
    """Return CPU model, cores, kernel and Python version, which every figure depends on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown CPU")
    load = os.getloadavg()[0]
    return (
        f"{model}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, "
        f"load average at the start {load:.1f}"
    )


class ClientError(RuntimeError):
    """The load client failed, usually because the server was too busy to answer handshakes."""


@dataclass(frozen=True, slots=True)
class Work:
    """Sessions, their subscriptions, and the parameters of the measurement."""

    sessions: int = 500
    symbols: int = 20
    universe: int = 1000
    tier: str = ""
    warm_s: float = 1.0
    seconds: float = 3.0
    verify: int = 25
    client: str = "python"
    seed: int = 1
    transport: str = "websocket"

    @property
    def fan(self) -> float:
        """Deliveries per quote, on average."""
        return self.sessions * self.symbols / self.universe


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement: the client's counts and the requested rate."""

    rate: float
    work: Work
    counts: dict[str, Any]

    @property
    def delivered(self) -> float:
        """Quotes per second that reached the subscribers."""
        return float(self.counts["ticks"] / self.counts["seconds"])

    @property
    def served(self) -> float:
        """Quotes per second delivered, without those published before the measurement."""
        return min(self.delivered, self.rate * self.work.fan)

    @property
    def cpu_us(self) -> float:
        """Server CPU per delivered quote, over all its processes."""
        return float(1e6 * self.counts["server_cpu_s"] / max(self.counts["ticks"], 1))

    @property
    def cpu_share(self) -> float:
        """Server CPU as a share of one core; below 1 at saturation a single thread was disturbed."""
        return float(self.counts["server_cpu_s"] / self.counts["seconds"])

    @property
    def p99_ms(self) -> float:
        """99th percentile of the latency in milliseconds."""
        return float(self.counts["p99_ms"])

    def fault(self) -> str:
        """Return why this rate was too high, "" if it was served."""
        c = self.counts
        told, rate = c["conflated"] + c["lost"], self.work.fan * c["feed_rate"]
        if c["closed"]:
            return f"{c['closed']} sessions were closed"
        if told > MOST_MISSING * (c["ticks"] + told):
            return f"{told:,} quotes conflated or lost"
        if c["lagging"]:
            return f"{c['lagging']} sampled sessions lag"
        least_feed = self.rate * (LEAST_FEED - FEED_SLACK_S / c["seconds"])
        if self.work.verify and c["feed_rate"] < least_feed:
            return f"the feed made {c['feed_rate']:,.0f} of {self.rate:,.0f} quotes/s"
        if self.work.verify and not self.work.tier and self.delivered < LEAST_COUNTED * rate:
            return f"{self.delivered:,.0f} of {rate:,.0f} quotes/s arrived"
        if c["p99_ms"] > MOST_P99_MS:
            return f"p99 {c['p99_ms']:,.0f} ms"
        return ""

    def assert_honest(self, conflating: bool = False) -> None:
        """Fail if a sampled session missed a quote without a `gap` or `lag`, or received one twice."""
        c = self.counts
        if c["doubled"] or (c["untold"] > 0 and not conflating):
            raise AssertionError(f"{c['untold']} quotes missing unannounced, {c['doubled']} doubled: {c}")

    def line(self) -> str:
        """Return the point as one line of text."""
        c = self.counts
        return (
            f"{self.rate:>9,.0f} q/s offered  {self.delivered:>11,.0f} delivered/s  "
            f"p50 {c['p50_ms']:>7.2f}  p99 {c['p99_ms']:>8.2f} ms  {self.cpu_us:.3f} µs/quote  "
            f"{c['ticks'] / max(c['frames'], 1):.1f} per frame  "
            f"CPU server {self.cpu_share:.0%} client {c['client_cpu_s'] / c['seconds']:.0%}"
        )


def client_argv(server: Server, work: Work) -> list[str]:
    """Return the command of the load client for ``work`` on ``server``."""
    options = {
        "port": server.port, "sessions": work.sessions, "symbols": work.symbols, "universe": work.universe,
        "dialect": server.dialect, "seed": work.seed, "warm": work.warm_s, "seconds": work.seconds,
        "verify": work.verify, "watch": ",".join(map(str, server.pids())),
        "transport": work.transport,
    } | ({"tier": work.tier} if work.tier else {})  # fmt: skip
    argv = [str(compiled("client"))] if work.client == "c" else [sys.executable, "-m", "perf.client"]
    return argv + [part for name, value in options.items() for part in (f"--{name}", str(value))]


def load(server: Server, work: Work, rate: float) -> Point:
    """Run one client process against ``server``; return its counts. Raises ClientError."""
    limit_s = work.warm_s + work.seconds + 60
    done = subprocess.run(
        client_argv(server, work), capture_output=True, text=True, cwd=ROOT, timeout=limit_s
    )
    if done.returncode or not done.stdout.strip():
        raise ClientError(f"the load client failed: {done.stderr.strip()[-600:]}")
    return Point(rate, work, json.loads(done.stdout))


Start = Callable[[float], "contextlib.AbstractContextManager[Server]"]


def measure(start: Start, work: Work, rate: float) -> Point:
    """Start a server at ``rate``, measure one point, and stop it."""
    with start(rate) as server:
        return load(server, work, rate)


def saturation(
    start: Start, work: Work, guess: float, resolution: float, say: Callable[[str], None]
) -> Point:
    """Return the point of the highest served rate, with relative error ``resolution``.

    Raises the rate by half until it is too high, then bisects. A failed rate is
    retried once: on a shared machine one disturbance is not a limit.
    """
    best: Point | None = None
    low, high, rate = 0.0, 0.0, guess
    while not high or high > low * (1 + resolution):
        fault = ""
        managed = 0.0
        for _ in range(2):
            try:
                point = measure(start, work, rate)
            except ClientError as error:
                fault = str(error)
                say(f"{rate:>9,.0f} q/s offered  {fault}")
                break
            fault = point.fault()
            # The rate that it achieved is a good estimate of its limit.
            managed = 0.97 * min(point.counts["feed_rate"] or rate, point.delivered / work.fan)
            say(f"{point.line()}  {fault or 'served'}")
            if not fault:
                break
        if not fault:
            best, low = point, rate
            rate = (low * high) ** 0.5 if high else rate * 1.5
        else:
            high = rate
            rate = (low * high) ** 0.5 if best else min(max(managed, 0.4 * high), 0.9 * high)
        if high and high < 20:
            break
    if best is None:
        raise RuntimeError("not even 20 quotes a second were served")
    return best


def memory_per_session(start: Start, work: Work) -> float:
    """Return server memory per subscribed session in bytes, at 100 quotes per second."""
    with start(100.0) as server:
        time.sleep(1.0)
        before = server.pss_bytes()
        idle = replace(work, warm_s=2.0, seconds=2.0)
        probe = subprocess.Popen(client_argv(server, idle), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 30
        while established(server.port) < work.sessions and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1.5)
        after = server.pss_bytes()
        probe.communicate(timeout=60)
    return (after - before) / work.sessions


def common(parser: argparse.ArgumentParser) -> None:
    """Add the options common to all scripts."""
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--symbols", type=int, default=20, help="of each session")
    parser.add_argument("--universe", type=int, default=1000, help="number of symbols of the feed")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds; figures are medians")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--warm", type=float, default=1.0, help="seconds before each measurement")
    parser.add_argument("--resolution", type=float, default=0.08, help="of the search for saturation")
    parser.add_argument(
        "--client",
        choices=("auto", "c", "python"),
        default="auto",
        help="auto: C if there is a compiler; the Python client may be slower than the server",
    )


def work_of(options: argparse.Namespace) -> Work:
    """Return the work that the command line describes."""
    client = options.client
    if client == "auto":
        client = "c" if shutil.which("gcc") or shutil.which("cc") else "python"
    return Work(
        options.sessions, options.symbols, options.universe, getattr(options, "tier", "") or "",
        options.warm, options.seconds, client=client,
        transport=getattr(options, "transport", "websocket"),
    )  # fmt: skip


def middle(values: list[float]) -> float:
    """Return the median, NaN if empty."""
    return float(median(values)) if values else float("nan")


def millions(per_s: float) -> str:
    """Format a rate in thousands or millions."""
    return f"{per_s / 1e6:.2f} M" if per_s >= 1e6 else f"{per_s / 1e3:,.0f} k"
