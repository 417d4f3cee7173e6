"""Does anything grow in the engine while sessions come and go for a long time?

    engine ──► steady sessions ──► load client: nothing missing unannounced or doubled
       ▲  └──► /metrics: ledgers that add up, memory every few seconds
       └── five sessions per second: connect, subscribe, read, close (every other one abruptly)

Reports: memory after the first minute (or 40 % of the run, if that is less) and at the end. Fails if the
ledger of all sessions, closed ones included, does not add up. Not covered: speed.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import threading
import time
from dataclasses import replace

from websockets.sync.client import connect

from perf import bench

DOORS = 4  # visitor threads
GROWTH = 1.05  # memory growth allowed after the first minute, plus --leeway-mb
PARTS = ("delivered_total", "conflated_total", "lost_total", "pending", "abandoned_total")


class Visitors(threading.Thread):
    """Sessions that come and go."""

    def __init__(self, port: int, per_s: float, universe: int) -> None:
        super().__init__(daemon=True)
        self._port, self._per_s, self._universe = port, per_s, universe
        self.stop = threading.Event()
        self.visits = 0
        self.start()

    def run(self) -> None:
        """Open sessions one after another; each closes once it is synced."""
        draw = random.Random(self.ident)
        url = f"ws://127.0.0.1:{self._port}/v1/stream"
        due = time.monotonic()
        while not self.stop.wait(max(0.0, due - time.monotonic())):
            due += 1 / self._per_s
            names = [f"SY{number:04d}" for number in draw.sample(range(self._universe), 10)]
            tier = draw.choice(["vip", "premium", "basic"])
            with connect(url, compression=None) as ws:
                ws.send(json.dumps({"action": "subscribe", "quotes": names, "tier": tier}))
                while '"synced"' not in ws.recv(timeout=10):
                    continue
                if self.visits % 2:
                    ws.socket.close()  # abrupt close
            self.visits += 1


def main() -> None:
    """Run the soak; fails if memory grows or a ledger does not add up."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.common(parser)
    parser.add_argument("--rate", type=float, default=50_000, help="quotes/s of the feed")
    parser.add_argument("--visitors", type=float, default=5.0, help="sessions opened and closed per second")
    parser.add_argument(
        "--leeway-mb", type=float, default=4.0, help="additional growth allowed in MB; more for short runs"
    )
    parser.set_defaults(seconds=600.0)
    options = parser.parse_args()
    work = replace(bench.work_of(options), warm_s=2.0)
    settle_s = min(60.0, 0.4 * options.seconds)
    memory: list[int] = []
    bench.console.print(bench.machine(), style="dim", highlight=False)
    # The first measurement follows the first intervals of the latency log and their memory.
    interval_s = min(10.0, settle_s / 4)
    with bench.marketfeed(options.rate, work.universe, latency=f"interval_s = {interval_s}") as server:
        probe = subprocess.Popen(
            bench.client_argv(server, work), cwd=bench.ROOT, stdout=subprocess.PIPE, text=True
        )
        doors = [Visitors(server.port, options.visitors / DOORS, work.universe) for _ in range(DOORS)]
        while probe.poll() is None and bench.established(server.port) < work.sessions:
            time.sleep(0.1)
        begun, next_s = time.monotonic(), settle_s
        while probe.poll() is None:
            time.sleep(0.2)
            now_s = time.monotonic() - begun
            if now_s >= next_s:
                memory.append(server.pss_bytes())
                next_s += options.seconds / 60
                assert all(door.is_alive() for door in doors), "a visitor was refused"
        for door in doors:
            door.stop.set()
            door.join()
        visits = sum(door.visits for door in doors)
        text, _ = probe.communicate(timeout=60)
        time.sleep(1.0)
        matched = bench.metric(server, "matched_total")
        booked = sum(bench.metric(server, part) for part in PARTS)
    point = bench.Point(options.rate, work, json.loads(text))
    point.assert_honest()
    assert not point.counts["closed"], point.counts
    steps = [f"{size / 1e6:.1f}" for size in memory[:: max(1, len(memory) // 12)]]
    bench.console.print(point.line(), highlight=False)
    bench.console.print(f"{visits} visits; memory in MB from {settle_s:.0f} s on: {' '.join(steps)}")
    bench.console.print(f"ledger: matched {matched:,.0f}, the sum of its parts {booked:,.0f}")
    # Ticks arrive between the two readings; otherwise both are of the same gauges.
    assert abs(matched - booked) <= 0.001 * matched, "the ledger does not add up"
    assert visits > 0.9 * options.visitors * options.seconds, f"only {visits} visits"
    assert memory[-1] <= GROWTH * memory[0] + 1e6 * options.leeway_mb, "memory grew"


if __name__ == "__main__":
    main()
