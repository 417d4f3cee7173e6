"""What do N worker processes cost over one process, and is the load split evenly?

    synthetic feed ──► rings (memfd) ──► worker 1 ──► half of the sessions ──┐
    └─── engine process ───┘        └──► worker 2 ──► the other half ────────┴──► one counting client
    ─────────────── against the same feed and sessions in one process ───────────────

Runs pairs, one process and then N workers, at the same offered rate. The ratio is that of server CPU per
delivered quote over all processes. The split is the CPU of the busiest worker over the mean.

Reports: the cost of a second encoder, of doorbells and of smaller batches. Not covered: the gain from more
cores; server and client share the cores.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from perf import bench

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perf.servers import Server

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


@contextlib.contextmanager
def watched(start: bench.Start, rate: float, split: list[float]) -> Iterator[Server]:
    """Run a server; append to ``split`` the busiest worker's CPU over the mean, excluding its start."""
    with start(rate) as server:
        workers = server.pids()[1:]
        before = [cpu_s(pid) for pid in workers]
        yield server
        took = [cpu_s(pid) - was for pid, was in zip(workers, before, strict=True)]
        split.append(max(took) / (sum(took) / len(took)) if took else 1.0)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.workers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.common(parser)
    parser.add_argument("--tier", default="vip")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=60_000, help="quotes/s offered")
    options = parser.parse_args()
    work = bench.work_of(options)
    say = bench.console.print
    say(bench.machine(), style="dim", highlight=False)
    shape = f"{work.sessions} sessions × {work.symbols} of {work.universe} symbols"
    say(f"{shape}, tier {work.tier}, {options.rate:,.0f} quotes/s, client: {work.client}")
    ratios: list[float] = []
    splits: list[float] = []
    for number in range(1, options.rounds + 1):
        costs: list[float] = []
        for count in (0, options.workers):
            start = functools.partial(bench.marketfeed, universe=work.universe, engine=f"workers = {count}")
            split: list[float] = []
            with watched(start, options.rate, split) as server:
                found = bench.load(server, work, options.rate)
            found.assert_honest(work.tier != "vip")
            costs.append(found.cpu_us)
            if count:
                splits += split
            name = f"{count} workers" if count else "one process"
            say(f"  {number}. {name:12} {found.line()} {found.fault()}", highlight=False)
        ratios.append(costs[1] / costs[0])
        say(f"  {number}. {ratios[-1]:.2f} × the CPU per quote; busiest worker {splits[-1]:.2f} × the mean")
    say(
        f"{options.workers} workers cost {median(ratios):.2f} × one process per delivered quote "
        f"({min(ratios):.2f} to {max(ratios):.2f}); busiest worker {median(splits):.2f} × the mean"
    )


if __name__ == "__main__":
    main()
