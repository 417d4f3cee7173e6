"""What does a cluster add to a tick, what does it cost, and how long are its interruptions?

    synthetic feed ──► origin ──► nats-server ──► mirror         CPU: /proc/PID/stat of the three
                         └─ rings ──► this process ◄── rings ─┘  heads of both, stamped with one clock

The heads are read every 0.1 ms or so through the taps of both engines, in one process, so that the delay of
a tick is the time between the two reads that show its ``g``. At the end of each rate the rings must be equal
up to one ``g``: the newest tick of each symbol, and its number. A second engine with the same feed and
without a cluster runs alone, for the CPU that the cluster adds to an origin.

Reports for each rate: p50 and p99 of the delay over all ticks, CPU per quote of the origin, of an engine
alone, of the mirror and of nats-server. Then, with three NATS servers of which each is killed once: the
longest time without a tick at the mirror. Then the time from SIGKILL of the origin to the first tick that a
client of the other node gets of the new epoch, and the same where the origin is started again at once.
Not covered: a network, and engines with a core each (on two cores the reader here is a fourth process).

    python -m perf.cluster                      # all, 3 minutes
    python -m perf.cluster --only rates --rates 100000
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import trio

import marketfeed
from marketfeed import logs
from marketfeed.client import Quote, connect
from marketfeed.core.records import QUOTES
from perf import bench
from perf.cluster_nodes import SYMBOLS, Nats, config, nats, node

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketfeed.core.rings import Rings

RATES: Final = (100_000, 500_000, 1_000_000)
AIMS_MS: Final = {100_000: 2, 500_000: 5, 1_000_000: 20}
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
POLL_S: Final = 0.0001
WARM_UP_S: Final = 2.0
WAIT_S: Final = 60.0
SILENCE_S: Final = 8.0  # observed after each kill of a NATS server
PARTS: Final = ("rates", "nats", "takeover")


def cpu_s(pid: int) -> float:
    """Return user and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


Heads = tuple[list[int], list[int]]  # each change of a head: ns, g


def watched(rings: Sequence[Rings], seconds: float) -> list[Heads]:
    """Return the changes of the heads of ``rings``."""
    found: list[Heads] = [([], []) for _ in rings]
    last = [-1 for _ in rings]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for number, one in enumerate(rings):
            head = one.head()
            if head != last[number]:
                last[number] = head
                found[number][0].append(time.monotonic_ns())
                found[number][1].append(head)
        time.sleep(POLL_S)
    return found


def delays_ms(origin: Heads, mirror: Heads) -> tuple[float, float, float]:
    """Return p50, p99 and maximum, over the ticks that both showed, of the time between the two."""
    first = max(origin[1][0], mirror[1][0]) + 1
    last = min(origin[1][-1], mirror[1][-1])
    g = np.linspace(first, last, 200_000).astype(np.int64)
    at = [np.array(ns)[np.searchsorted(np.array(heads), g)] for ns, heads in (origin, mirror)]
    p50, p99, most = np.percentile((at[1] - at[0]) / 1e6, (50, 99, 100))
    return float(p50), float(p99), float(most)


def check_equal(origin: Rings, mirror: Rings) -> None:
    """Fail unless the newest ticks of all symbols up to one ``g``, and their numbers, are the same."""
    symbols = np.arange(SYMBOLS, dtype=np.intp)
    head = mirror.head()
    here, there = (rings.latest(QUOTES, symbols, head)[0] for rings in (origin, mirror))
    assert len(here) == len(there) > 0, (len(here), len(there))
    for name in ("symbol", "g", "n", "bid_px", "ask_px"):
        # A benchmark whose mirror differs measured something else.
        assert (here[name] == there[name]).all(), name


def rate_alone(folder: Path, rate: float, seconds: float) -> float:
    """Return µs of CPU per quote of an engine without a cluster."""
    with node(folder, f"alone-{rate:.0f}", rate) as server, marketfeed.tap(str(server.tap)) as tap:
        time.sleep(WARM_UP_S)
        head, used_s = tap.rings.head(), cpu_s(server.process.pid)
        time.sleep(seconds)
        return (cpu_s(server.process.pid) - used_s) / (tap.rings.head() - head) * 1e6


def rate_of_pair(folder: Path, rate: float, seconds: float) -> None:
    """Print the figures of one rate."""
    alone_us = rate_alone(folder, rate, seconds / 2)
    with (
        nats(folder, 1) as servers,
        node(folder, "a", rate, servers) as a,
        node(folder, "b", rate, servers) as b,
        marketfeed.tap(str(a.tap)) as origin,
        marketfeed.tap(str(b.tap)) as mirror,
    ):
        assert origin.epoch == mirror.epoch
        assert servers[0].process is not None
        time.sleep(WARM_UP_S)
        pids = a.process.pid, b.process.pid, servers[0].process.pid
        used = [cpu_s(pid) for pid in pids]
        began = time.monotonic()
        heads = watched((origin.rings, mirror.rings), seconds)
        took_s = time.monotonic() - began
        quotes = heads[1][1][-1] - heads[1][1][0]
        us = [(cpu_s(pid) - before) / quotes * 1e6 for pid, before in zip(pids, used, strict=True)]
        check_equal(origin.rings, mirror.rings)
        adopted = bench.metric(b, "cluster_adopted_total")
        repaired = bench.metric(b, "cluster_repaired_ticks_total")
    p50, p99, most = delays_ms(*heads)
    aim = AIMS_MS.get(int(rate))
    bench.console.print(
        f"{rate:>9,.0f} q/s (done {quotes / took_s:,.0f}): delay p50 {p50:.2f}, p99 {p99:.2f} ms"
        f"{f' (aim {aim})' if aim else ''}, at most {most:.1f}; CPU per quote: origin {us[0]:.3f} µs, "
        f"alone {alone_us:.3f}, so {us[0] - alone_us:+.3f}; mirror {us[1]:.3f} (aim 0.3 each); "
        f"nats-server {us[2]:.3f}; repaired {repaired:,.0f}, "
        f"states adopted {adopted:.0f}; load {os.getloadavg()[0]:.1f}"
    )


def longest_s(heads: Heads) -> float:
    """Return the longest time between two changes."""
    return float(np.diff(heads[0]).max()) / 1e9


def nats_deaths(folder: Path, rate: float) -> None:
    """Print the silence at the mirror after the death of each of three NATS servers."""
    with (
        nats(folder, 3) as servers,
        node(folder, "a", rate, servers) as a,
        node(folder, "b", rate, servers) as b,
        marketfeed.tap(str(a.tap)) as origin,
        marketfeed.tap(str(b.tap)) as mirror,
    ):
        time.sleep(WARM_UP_S)
        routes = [server.route_port for server in servers]
        for server in servers:
            server.kill()
            at_origin, at_mirror = watched((origin.rings, mirror.rings), SILENCE_S)
            server.start(routes)
            time.sleep(5)
            bench.console.print(
                f"{server.folder.name} killed: longest time without a tick at the mirror "
                f"{longest_s(at_mirror):.2f} s (aim 1.3), at the origin {longest_s(at_origin):.2f} s"
            )
        check_equal(origin.rings, mirror.rings)
        adopted = bench.metric(b, "cluster_adopted_total")
        bench.console.print(f"rings equal afterwards, states adopted {adopted:.0f}")


async def first_tick_of_another_epoch(ports: Sequence[int], kill: Any) -> float:
    """Have the origin killed; return the time until a client has a live tick of another epoch."""
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    killed_s, before = 0.0, ""
    async with connect(urls, quotes=["SY0000"], wait=True, retry_s=(0.02, 0.1)) as feed:
        with trio.fail_after(WAIT_S):
            async for message in feed:
                epoch = (feed.cursor or "").partition(":")[0]
                if not isinstance(message, Quote) or message.snap or not epoch:
                    continue
                if not before:
                    before, killed_s = epoch, time.monotonic()
                    kill()
                elif epoch != before:
                    # The numbers of the feed are checked by the client.
                    assert feed.statistics().silently_lost == 0
                    return time.monotonic() - killed_s
    raise AssertionError("the feed ended")


def takeover(folder: Path, rate: float) -> None:
    """Print the time until another node has taken over, and where the origin is started again at once."""
    for again in (False, True):
        with (
            contextlib.ExitStack() as stack,
            nats(folder / f"takeover-{again:d}", 1) as servers,
            node(folder, "a", rate, servers) as a,
            node(folder, "b", rate, servers) as b,
        ):
            time.sleep(WARM_UP_S)

            def kill(
                a: bench.Server = a,
                servers: list[Nats] = servers,
                stack: contextlib.ExitStack = stack,
                again: bool = again,
            ) -> None:
                a.process.kill()
                a.process.wait()
                if again:
                    argv, *_ = config(folder, "a", rate, servers)
                    child = subprocess.Popen(argv, cwd=folder / "a", stdout=subprocess.DEVNULL)
                    stack.callback(child.wait)
                    stack.callback(child.terminate)

            took_s = trio.run(first_tick_of_another_epoch, [b.port], kill)
        what = "and started again at once" if again else "and not started again"
        bench.console.print(f"origin killed {what}: {took_s:.2f} s to the first tick of the new epoch")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="*", default=RATES)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--only", choices=PARTS)
    options = parser.parse_args()
    logs.configure("error")
    bench.console.print(bench.machine())
    if options.only in (None, "rates"):
        for rate in options.rates:
            with tempfile.TemporaryDirectory(prefix="marketfeed-perf-") as name:
                rate_of_pair(Path(name), rate, options.seconds)
    for part, measure in (("nats", nats_deaths), ("takeover", takeover)):
        if options.only in (None, part):
            with tempfile.TemporaryDirectory(prefix="marketfeed-perf-") as name:
                measure(Path(name), 10_000)


if __name__ == "__main__":
    main()
