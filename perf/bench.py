"""What the scripts here share: servers as processes, the load client, the search for saturation, the machine.

    script ──► server process (port, ready line)          /proc/PID/stat, smaps_rollup ──► CPU, memory
           └─► client process (perf/client.py or client.c) ──► one line of JSON ──► Point

Only processes started here are ended, by their handles.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent
READY_S: Final = 20.0
STOP_S: Final = 8.0
MOST_MISSING: Final = 0.001  # conflated + lost, of what was offered
LEAST_FEED: Final = 0.999  # of the rate asked for: below, the server's own feed fell behind
FEED_SLACK_S: Final = 0.02  # a batch early or late at the window's edges is not behind
LEAST_COUNTED: Final = (
    0.99  # ticks counted, of those the feed offered meanwhile; the window's edges cost some
)
MOST_P99_MS: Final = 1000.0  # later than that is a queue that grows

console = Console(soft_wrap=True) if sys.stdout.isatty() else Console(width=160, soft_wrap=True)


def machine() -> str:
    """Return CPU model, cores, kernel and Python: no figure means anything without them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown CPU")
    load = os.getloadavg()[0]
    return (
        f"{model}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, "
        f"load average at the start {load:.1f}"
    )


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class ClientError(RuntimeError):
    """The load client gave up: mostly because the server was too busy to answer handshakes."""


@dataclass(slots=True)
class Server:
    """A server process with what it takes to reach and to weigh it."""

    process: subprocess.Popen[str]
    port: int
    dialect: str = "marketfeed"
    admin_port: int = 0  # of ours only

    def pids(self) -> list[int]:
        """Return the process and all its descendants."""
        found, at = [self.process.pid], 0
        while at < len(found):
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{found[at]}/task/{found[at]}/children").read_text()
                found += map(int, children.split())
            at += 1
        return found

    def pss_bytes(self) -> int:
        """Return proportional set size over all processes."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total


@contextlib.contextmanager
def process(argv: list[str], folder: Path, dialect: str = "marketfeed", port: int = 0) -> Iterator[Server]:
    """Run a server until the block ends. Its first line of stdout that has "ready" says it serves.

    Without ``port`` the line tells it, as the end of a URL. Raises RuntimeError
    with the end of its log if it does not come up.
    """
    log = (folder / "server.log").open("w")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder, env=env, start_new_session=True
    )
    try:
        assert child.stdout is not None
        alarm = time.monotonic() + READY_S
        for line in child.stdout:
            if "ready" in line:
                port = port or int(line.split("http://")[1].split()[0].rpartition(":")[2])
                break
            if time.monotonic() > alarm:
                break
        if child.poll() is not None or not port:
            tail = (folder / "server.log").read_text()[-600:]
            raise RuntimeError(f"{Path(argv[-1]).name} did not come up: {tail}")
        yield Server(child, port, dialect)
    finally:
        # Its own process group, made by start_new_session: nobody else is in it.
        for how, patience_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(patience_s)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        if child.stdout is not None:
            child.stdout.close()
        log.close()


@contextlib.contextmanager
def marketfeed(rate: float, universe: int = 1000) -> Iterator[Server]:
    """Run our engine with a uniform synthetic feed of ``rate`` quotes a second."""
    with tempfile.TemporaryDirectory(prefix="marketfeed-perf-") as name:
        folder = Path(name)
        config = folder / "config.toml"
        admin_port = free_port()
        config.write_text(
            "[engine]\ndrain_s = 0.5\n"
            "[gateway]\nport = 0\n"
            f"[admin]\nport = {admin_port}\n"
            '[[feeds]]\nname = "bench"\ntype = "synthetic"\nactivity = "uniform"\ntrades = 0.0\n'
            f"symbols = {universe}\nrate = {float(rate)}\n"
        )
        argv = [sys.executable, "-m", "marketfeed", "serve", "--log-level", "error", "--config", str(config)]
        with process(argv, folder) as server:
            server.admin_port = admin_port
            yield server


def metric(server: Server, name: str, **labels: str) -> float:
    """Return the sum of the samples of ``marketfeed_NAME`` that carry ``labels``."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.admin_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"marketfeed_{name}" and labels.items() <= sample.labels.items()
    )


def compiled(name: str) -> Path:
    """Compile ``perf/NAME.c`` into a temporary folder, once per version; return the program."""
    source = HERE / f"{name}.c"
    folder = Path(tempfile.gettempdir()) / f"marketfeed-perf-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    program = folder / f"{name}-{source.stat().st_mtime_ns}"
    if not program.exists():
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            raise RuntimeError(f"no C compiler: perf/{name}.c cannot be built")
        # Renamed when whole: another script may compile it at the same moment.
        unfinished = program.with_suffix(f".{os.getpid()}")
        subprocess.run(
            [compiler, "-O3", "-march=native", "-o", str(unfinished), str(source), "-lm"], check=True
        )
        unfinished.rename(program)
    return program


@dataclass(frozen=True, slots=True)
class Work:
    """Who subscribes to what, and how it is measured."""

    sessions: int = 500
    symbols: int = 20
    universe: int = 1000
    tier: str = ""
    warm_s: float = 1.0
    seconds: float = 3.0
    verify: int = 25
    client: str = "python"
    seed: int = 1

    @property
    def fan(self) -> float:
        """Deliveries per quote, on average."""
        return self.sessions * self.symbols / self.universe


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement: the client's counts, and the rate that the server was asked for."""

    rate: float
    work: Work
    counts: dict[str, Any]

    @property
    def delivered(self) -> float:
        """Quotes a second that reached the subscribers."""
        return float(self.counts["ticks"] / self.counts["seconds"])

    @property
    def cpu_us(self) -> float:
        """Server CPU per delivered quote, all its processes."""
        return float(1e6 * self.counts["server_cpu_s"] / max(self.counts["ticks"], 1))

    @property
    def cpu_share(self) -> float:
        """CPU that the server had, of one core; a single thread at saturation that has less was disturbed."""
        return float(self.counts["server_cpu_s"] / self.counts["seconds"])

    @property
    def p99_ms(self) -> float:
        """99 % of the quotes came this soon."""
        return float(self.counts["p99_ms"])

    def fault(self) -> str:
        """Say why this rate was too high, "" if it was served."""
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
        """Fail if a sampled session missed a quote that nobody told it of, or got one twice."""
        c = self.counts
        if c["doubled"] or (c["untold"] > 0 and not conflating):
            raise AssertionError(f"{c['untold']} quotes missing untold, {c['doubled']} doubled: {c}")

    def line(self) -> str:
        """Return the point in a line of text."""
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
    } | ({"tier": work.tier} if work.tier else {})  # fmt: skip
    argv = [str(compiled("client"))] if work.client == "c" else [sys.executable, "-m", "perf.client"]
    return argv + [part for name, value in options.items() for part in (f"--{name}", str(value))]


def load(server: Server, work: Work, rate: float) -> Point:
    """Run one client process against ``server``; return what it saw. Raises ClientError."""
    limit_s = work.warm_s + work.seconds + 60
    done = subprocess.run(
        client_argv(server, work), capture_output=True, text=True, cwd=ROOT, timeout=limit_s
    )
    if done.returncode or not done.stdout.strip():
        raise ClientError(f"the load client failed: {done.stderr.strip()[-600:]}")
    return Point(rate, work, json.loads(done.stdout))


Start = Callable[[float], "contextlib.AbstractContextManager[Server]"]


def measure(start: Start, work: Work, rate: float) -> Point:
    """Start a server at ``rate``, load it, end it; return the point."""
    with start(rate) as server:
        return load(server, work, rate)


def saturation(
    start: Start, work: Work, guess: float, resolution: float, say: Callable[[str], None]
) -> Point:
    """Return the point of the highest rate that is served, to within ``resolution`` of it.

    Upwards by half until a rate is too high, then between the two. A rate that
    failed is tried once more: on a shared machine one hiccup is not a limit.
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
            # What it did manage is a good guess of what it can.
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
    """Return bytes of server memory per subscribed session, at 100 quotes a second."""
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


def established(port: int) -> int:
    """Return how many connections to ``port`` of 127.0.0.1 are established, from the server's side."""
    end = f"0100007F:{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()
    return sum(f" {end} " in line[:20] and line.split()[3] == "01" for line in lines)


def common(parser: argparse.ArgumentParser) -> None:
    """Add the options that every script has."""
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--symbols", type=int, default=20, help="of each session")
    parser.add_argument("--universe", type=int, default=1000, help="symbols the feed has")
    parser.add_argument("--rounds", type=int, default=3, help="figures are medians over so many")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--warm", type=float, default=1.0, help="seconds before each measurement")
    parser.add_argument("--resolution", type=float, default=0.08, help="of the search for saturation")
    parser.add_argument(
        "--client",
        choices=("auto", "c", "python"),
        default="auto",
        help="auto: C where there is a compiler; the Python one may be slower than the server",
    )


def work_of(options: argparse.Namespace) -> Work:
    """Return the work that the command line asks for."""
    client = options.client
    if client == "auto":
        client = "c" if shutil.which("gcc") or shutil.which("cc") else "python"
    return Work(
        options.sessions, options.symbols, options.universe, getattr(options, "tier", "") or "",
        options.warm, options.seconds, client=client,
    )  # fmt: skip


def middle(values: list[float]) -> float:
    """Return the median, NaN of nothing."""
    return float(median(values)) if values else float("nan")


def millions(per_s: float) -> str:
    """Return a rate as people say it."""
    return f"{per_s / 1e6:.2f} M" if per_s >= 1e6 else f"{per_s / 1e3:,.0f} k"
