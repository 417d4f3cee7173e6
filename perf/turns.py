"""How long do new sessions and pings wait while the engine is saturated?

    engine ──► 500 sessions × 20 of 1,000 symbols, 1,000,000 quotes/s delivered ──► load client
       ▲
       └── one new session after another: handshake, subscribe, ping ──► how long each answer takes

Reports: the time from `subscribe` to its answer, from `ping` to `pong`, and until 500 sessions are connected.
Not covered: networks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time

from rich.table import Table
from websockets.sync.client import connect

from perf import bench


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.turns",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.common(parser)
    parser.add_argument("--rate", type=float, default=100_000, help="quotes/s of the feed")
    parser.set_defaults(seconds=15.0)
    options = parser.parse_args()
    work = bench.work_of(options)
    say = bench.console.print
    say(bench.machine(), style="dim", highlight=False)
    answers: list[float] = []
    pongs: list[float] = []
    for _ in range(options.rounds):
        with bench.marketfeed(options.rate, work.universe) as server:
            probe = subprocess.Popen(
                bench.client_argv(server, work), cwd=bench.ROOT, stdout=subprocess.PIPE, text=True
            )
            begun, connected_s = time.monotonic(), 0.0
            while bench.established(server.port) < work.sessions and probe.poll() is None:
                time.sleep(0.02)
            connected_s = time.monotonic() - begun
            time.sleep(work.warm_s)
            while probe.poll() is None:
                ask(server.port, answers, pongs)
            text, _ = probe.communicate(timeout=60)
        point = bench.Point(options.rate, work, json.loads(text))
        point.assert_honest()
        say(f"  {point.line()}  connected in {connected_s:.2f} s", highlight=False)
    table = Table(title="Answers while delivering")
    for title in ("", "count", "p50 ms", "p99 ms", "max ms"):
        table.add_column(title, justify="right")
    for name, values in (("subscribe", answers), ("ping", pongs)):
        values.sort()
        figures = [values[len(values) // 2], values[int(0.99 * (len(values) - 1))], values[-1]]
        table.add_row(name, str(len(values)), *(f"{1000 * value:.1f}" for value in figures))
    say(table)


def ask(port: int, answers: list[float], pongs: list[float]) -> None:
    """Open a session, subscribe and ping; append the time of each answer."""
    with connect(f"ws://127.0.0.1:{port}/v1/stream", compression=None) as ws:
        begun = time.monotonic()
        ws.send('{"action":"subscribe","quotes":["SY0001"],"id":1}')
        while '"subscription"' not in ws.recv(timeout=10):
            continue
        answers.append(time.monotonic() - begun)
        begun = time.monotonic()
        ws.send('{"action":"ping","t":7}')
        while '"pong"' not in ws.recv(timeout=10):
            continue
        pongs.append(time.monotonic() - begun)


if __name__ == "__main__":
    main()
