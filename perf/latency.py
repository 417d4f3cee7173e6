"""What does recording of latencies cost per delivered quote?

    engine, [latency] enabled  ─┐
                                ├─► the same load, in pairs with alternating order
    engine, not enabled ────────┘

The sessions get every quote in steps of 20 ms. Without steps the process would never be idle: a higher cost
per quote would enlarge the batches and stay invisible.

Reports: server CPU per delivered quote with and without, median and quartiles of the pairs' ratios.
Not covered: the probe, which is off. The recorded counts are checked against the delivered ones.
"""

from __future__ import annotations

import argparse
import functools
import time
from statistics import median, quantiles

from perf import bench

TIER = "\n[tiers.vip]\ninterval_ms = 20\ndelivery = 'every'\nsend_buffer_bytes = 262144"
ON = "probe = false" + TIER
OFF = "enabled = false" + TIER
TOLD_S = 30.0
MOST_CPU = 0.95  # of a core; above this, a higher cost per quote is invisible


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.latency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.common(parser)
    parser.set_defaults(rounds=10, seconds=8.0, tier="")
    parser.add_argument("--rate", type=float, default=100_000, help="quotes/s offered")
    options = parser.parse_args()
    work = bench.work_of(options)
    say = functools.partial(bench.console.print, highlight=False)
    say(bench.machine(), style="dim")
    ratios, costs = [], {ON: [], OFF: []}  # type: tuple[list[float], dict[str, list[float]]]
    for number in range(options.rounds):
        pair = {}
        for latency in (ON, OFF) if number % 2 else (OFF, ON):
            start = functools.partial(bench.marketfeed, universe=work.universe, latency=latency)
            with start(options.rate) as server:
                point = bench.load(server, work, options.rate)
                point.assert_honest()
                assert point.cpu_share < MOST_CPU, f"the process was never idle: {point.line()}"
                if latency == ON:
                    # Missed quotes invalidate the cost. Counts appear after each interval.
                    delivered = bench.metric(server, "delivered_total")
                    until_s = time.monotonic() + TOLD_S
                    while (recorded := bench.metric(server, "hop_seconds_count", hop="total")) < delivered:
                        assert time.monotonic() < until_s, (recorded, delivered)
                        time.sleep(0.5)
            pair[latency] = point.cpu_us
            costs[latency].append(point.cpu_us)
        ratios.append(pair[ON] / pair[OFF])
        say(f"  {pair[ON]:.4f} µs with, {pair[OFF]:.4f} without: {100 * (ratios[-1] - 1):+.1f} %")
    low, _, high = quantiles(ratios, n=4)
    say(
        f"{options.rounds} pairs at {options.rate:,.0f} q/s: {median(costs[ON]):.4f} µs with, "
        f"{median(costs[OFF]):.4f} without; median of the ratios {100 * (median(ratios) - 1):+.1f} %, "
        f"quartiles {100 * (low - 1):+.1f} and {100 * (high - 1):+.1f} %"
    )


if __name__ == "__main__":
    main()
