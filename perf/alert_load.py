"""How much later do quotes arrive while rules watch every tick and 100 alerts a second are delivered?

    synthetic feed ──► rings ──┬─► shard ──► 500 loopback WebSockets × 20 of 1,000 symbols ──► load client
                               └─► eight rules ──► log on disk ──► one consumer, which acknowledges
    in turns: without rules, and with

Reports: p50 and p99 of quotes and CPU per delivered quote, medians of the rounds, and the ratio of each;
alerts a second that were acknowledged, and the p99 from their cause to the consumer.
Not covered: a network. Load client, consumer and engine share the cores.
A quote missing unannounced, or an alert of the log that the consumer did not get, fails the run.

    python -m perf.alert_load
"""

from __future__ import annotations

import argparse
import functools
import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

from perf import bench

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf.servers import Server

TARGET: Final = "p99 of quotes at most 1.2 × that without rules"
# 160 symbols with 80 ticks a second: 0.6 of the intervals are longer than a second, so 48 episodes a second.
QUIET: Final = """
[[feeds]]
name = "quiet"
type = "synthetic"
activity = "uniform"
prefix = "QU"
symbols = 160
rate = 80.0
trades = 0.0
[limits]
requests_per_s = 10000
"""
RULES: Final[tuple[dict[str, Any], ...]] = (
    {"type": "stale", "symbols": "QU*", "after_s": 1.0},
    {"type": "spread", "bps": 500.0},
    {"type": "crossed"},
    {"type": "move", "percent": 90.0, "window_s": 60.0},
    {"type": "price_band", "percent": 90.0},
    {"type": "off_market", "percent": 50.0},
    {"type": "size_spike", "factor": 1000.0, "half_life_s": 60.0},
    {"type": "rate", "above": 1e6, "window_s": 10.0},
)


@dataclass
class Consumer:
    """A risk service in a thread: takes alerts by long poll and acknowledges them."""

    port: int
    acknowledged: int = 0
    late_us: list[float] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Take and acknowledge until ``done``."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self.done.is_set():
            connection.request("GET", "/v1/alerts?consumer=risk&timeout_s=1")
            status, body = _answer(connection)
            if status == 204:
                continue
            alerts = json.loads(body)["alerts"]
            now_us = time.time_ns() / 1000
            self.late_us += [now_us - one["r"] for one in alerts]
            request = json.dumps({"consumer": "risk", "alerts": [one["id"] for one in alerts]})
            connection.request("POST", "/v1/alerts/ack", request)
            self.acknowledged += len(json.loads(_answer(connection)[1])["alerts"])


def _answer(connection: http.client.HTTPConnection) -> tuple[int, bytes]:
    response = connection.getresponse()
    body = response.read()
    if response.status >= 300:
        raise RuntimeError(f"the consumer was answered {response.status}: {body.decode()}")
    return response.status, body


def tables() -> str:
    """Return the rules as ``[[alerts.rules]]`` tables."""
    return "".join(
        "[[alerts.rules]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in rule.items())
        for rule in RULES
    )


def measured(server: Server, work: bench.Work, rate: float) -> tuple[bench.Point, Consumer]:
    """Load an engine with rules; return the point, and the consumer that took the alerts meanwhile."""
    consumer = Consumer(server.port)
    thread = threading.Thread(target=consumer.run)
    thread.start()
    try:
        point = bench.load(server, work, rate)
    finally:
        consumer.done.set()
        thread.join()
    logged = bench.metric(server, "alerts_total")
    waiting = bench.metric(server, "alerts_waiting") + bench.metric(server, "alerts_unacknowledged")
    # What is raised between two scrapes is in one of them only.
    if consumer.acknowledged + waiting < 0.98 * logged:
        raise AssertionError(f"{logged:.0f} alerts, of which the consumer got {consumer.acknowledged}")
    return point, consumer


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.alert_load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.common(parser)
    parser.add_argument("--rate", type=float, default=50_000, help="quotes/s offered")
    parser.set_defaults(rounds=5, seconds=10.0, warm=3.0)
    options = parser.parse_args()
    work = bench.work_of(options)
    say = bench.console.print
    say(bench.machine(), style="dim", highlight=False)
    start = functools.partial(bench.marketfeed, options.rate, work.universe)
    points: dict[str, list[bench.Point]] = {"without": [], "with": []}
    per_s: list[float] = []
    late_us: list[float] = []
    for turn in range(options.rounds):
        for name in ("without", "with") if turn % 2 else ("with", "without"):
            with start(feed=QUIET + (tables() if name == "with" else "")) as server:
                if name == "with":
                    begun = time.monotonic()
                    point, consumer = measured(server, work, options.rate)
                    per_s.append(consumer.acknowledged / (time.monotonic() - begun))
                    late_us += consumer.late_us
                else:
                    point = bench.load(server, work, options.rate)
            point.assert_honest()
            points[name].append(point)
            say(f"  {name:8}{point.line()}  {point.fault()}", highlight=False)
    table = Table(title=TARGET)
    for title in ("", "without", "with", "ratio", "ratios of the rounds"):
        table.add_column(title, justify="right")
    values: dict[str, Callable[[bench.Point], float]] = {
        "p50 ms": lambda point: float(point.counts["p50_ms"]),
        "p99 ms": lambda point: point.p99_ms,
        "CPU µs/quote": lambda point: point.cpu_us,
    }
    for name, value in values.items():
        without, with_ = ([value(point) for point in points[key]] for key in ("without", "with"))
        ratios = sorted(two / one for one, two in zip(without, with_, strict=True))
        medians = bench.middle(without), bench.middle(with_)
        table.add_row(
            name, *(f"{one:.3g}" for one in medians), f"{bench.middle(ratios):.2f}",
            " ".join(f"{one:.2f}" for one in ratios),
        )  # fmt: skip
    say(table)
    p99_ms = sorted(late_us)[int(0.99 * len(late_us))] / 1000
    say(f"alerts: {bench.middle(per_s):.0f}/s acknowledged, p99 {p99_ms:.1f} ms from cause to consumer")


if __name__ == "__main__":
    main()
