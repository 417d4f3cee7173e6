"""How many alerts a second can be kept, and how long does one wait for the disk?

    publishers, tasks of one event loop ── append, await ──► queue ──► writer thread ──► SQLite, fsync

Reports, for several numbers of publishers that each wait for their alert before the next: alerts per second,
commits per second, alerts per commit, and p50 and p99 of the wait. Beside them the disk's own rate of fsync
(4 KiB appended and synced, in the same folder): with one publisher, alerts per second cannot exceed it.
Not covered: rules, delivery, acknowledgements. Every run is read back and compared.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import trio
from rich.table import Table

from marketfeed.alerts.alert import Alert, alert_id
from marketfeed.alerts.sqlite_log import open_log
from perf.bench import console, machine

if TYPE_CHECKING:
    from marketfeed.alerts.log import AlertLog

PUBLISHERS: Final = (1, 10, 100, 1000)


def alert(number: int) -> Alert:
    """Return the alert with this number."""
    symbol, at_ns = f"SY{number % 1000:04}", time.time_ns()
    identity = alert_id("wide", symbol, "raised", at_ns, at_ns, number)
    return Alert(
        id=identity, key=identity, rule="wide", symbol=symbol, value=0.021, threshold=0.02,
        t_ns=at_ns, r_ns=at_ns, message=f"spread of {symbol} is 2.1 bps, above 2.0 bps",
    )  # fmt: skip


def fsyncs(folder: Path, seconds: float) -> tuple[float, float]:
    """Return the disk's fsync rate, and the p99 of one in ms."""
    took_ns = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        end_ns = time.perf_counter_ns() + round(seconds * 1e9)
        while (start_ns := time.perf_counter_ns()) < end_ns:
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            took_ns.append(time.perf_counter_ns() - start_ns)
    return 1e9 * len(took_ns) / sum(took_ns), float(np.percentile(took_ns, 99)) / 1e6


async def publish(log: AlertLog, alerts: list[Alert], waits_ns: list[int], until_s: float) -> None:
    """Append one alert after the other until the time is over."""
    while trio.current_time() < until_s:
        mine = alert(len(alerts))
        alerts.append(mine)
        start_ns = time.perf_counter_ns()
        (appended,) = await log.append([mine], time.time_ns())
        waits_ns.append(time.perf_counter_ns() - start_ns)
        assert appended.new


async def run(path: Path, publishers: int, seconds: float) -> tuple[str, ...]:
    """Measure with this many publishers; return a row of the table."""
    alerts: list[Alert] = []
    waits_ns: list[int] = []
    async with open_log(path) as log:
        before, start_s = log.statistics(), trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(publishers):
                nursery.start_soon(publish, log, alerts, waits_ns, start_s + seconds)
        took_s, after = trio.current_time() - start_s, log.statistics()
        # A log that lost an alert measured something else.
        kept = {entry.alert.id: entry.alert for entry in await log.read(0, len(alerts) + 1)}
        assert kept == {one.id: one for one in alerts}
    commits = after.commits - before.commits
    p50, p99 = np.percentile(waits_ns, (50, 99)) / 1e6
    mean_ms = (after.commit_ns - before.commit_ns) / commits / 1e6
    return (
        f"{publishers:,}", f"{len(alerts) / took_s:,.0f}", f"{commits / took_s:,.0f}",
        f"{len(alerts) / commits:,.1f}", f"{mean_ms:.2f}", f"{p50:.2f}", f"{p99:.2f}",
    )  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.alert_log",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to measure")
    options = parser.parse_args()
    console.print(machine())
    table = Table(title="durable alerts")
    for title in ("publishers", "alerts/s", "commits/s", "alerts a commit", "commit ms", "p50 ms", "p99 ms"):
        table.add_column(title, justify="right")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rate, p99_ms = fsyncs(Path(folder), options.seconds)
        for publishers in PUBLISHERS:
            path = Path(folder) / f"{publishers}.db"
            table.add_row(*trio.run(run, path, publishers, options.seconds))
    console.print(f"the disk: {rate:,.0f} fsync/s, p99 {p99_ms:.2f} ms")
    console.print(table)


if __name__ == "__main__":
    main()
