"""How many quotes per second does one engine process deliver, how late, and at what cost?

    synthetic feed ──► rings ──► shard ──► 500 loopback WebSockets × 20 of 1,000 symbols ──► counting client
    └──────────── one engine process, one thread ──────────┘                               └ another process ┘

Saturation is the highest offered rate at which conflated + lost stay within 0.1 % of what was offered and the
feed keeps 99.9 % of its rate. Latency is measured at 25, 50 and 80 % of it, from the receipt time in the
quote to the read of its frame.

Reports: deliveries per second at saturation, latency below it, server CPU per delivered quote, memory per
session.
Not covered: a network, TLS, or more than one process; client and server share the cores.
Every 25th session is parsed in full: a quote missing unannounced, or doubled, fails the run.
"""

from __future__ import annotations

import argparse
import functools

from rich.table import Table

from perf import bench

SHARES = (0.25, 0.5, 0.8)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.fanout",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.common(parser)
    parser.add_argument("--tier", default="vip")
    parser.add_argument("--transport", choices=("websocket", "binary", "sse"), default="websocket")
    parser.add_argument("--rate", type=float, help="quotes/s offered: measure only this point")
    parser.add_argument("--guess", type=float, default=150_000, help="initial quotes/s of the search")
    options = parser.parse_args()
    work = bench.work_of(options)
    say = bench.console.print
    say(bench.machine(), style="dim", highlight=False)
    shape = f"{work.sessions} sessions × {work.symbols} of {work.universe} symbols"
    say(f"{shape}, tier {work.tier}, {work.transport}, client: {work.client}")
    start = functools.partial(bench.marketfeed, universe=work.universe)
    conflating = work.tier != "vip"

    def point(rate: float) -> bench.Point:
        found = bench.measure(start, work, rate)
        found.assert_honest(conflating)
        say(f"  {found.line()}", highlight=False)
        return found

    if options.rate:
        for _ in range(options.rounds):
            found = point(options.rate)
            say(f"  {found.fault() or 'served'}; {found.counts}", style="dim", highlight=False)
        return

    tops: list[bench.Point] = []
    below: dict[float, list[bench.Point]] = {share: [] for share in SHARES}
    memory: list[float] = []
    guess = options.guess
    for number in range(1, options.rounds + 1):
        say(f"round {number} of {options.rounds}: stepping to saturation")
        top = bench.saturation(
            start, work, guess, options.resolution, lambda t: say(f"  {t}", highlight=False)
        )
        top.assert_honest(conflating)
        tops.append(top)
        guess = top.rate
        for share in SHARES:
            below[share].append(point(share * top.rate))
        memory.append(bench.memory_per_session(start, work))

    table = Table(title=f"Fan-out: medians of {options.rounds} rounds")
    for title in (
        "at",
        "offered/s",
        "delivered/s",
        "p50 ms",
        "p99 ms",
        "CPU µs/quote",
        "server CPU",
        "quotes/frame",
    ):
        table.add_column(title, justify="left" if title == "at" else "right")
    for title, points in [("saturation", tops), *((f"{s:.0%} of it", p) for s, p in below.items())]:
        table.add_row(
            title,
            bench.millions(bench.middle([p.rate * work.fan for p in points])),
            bench.millions(bench.middle([p.served for p in points])),
            f"{bench.middle([p.counts['p50_ms'] for p in points]):.2f}",
            f"{bench.middle([p.p99_ms for p in points]):.2f}",
            f"{bench.middle([p.cpu_us for p in points]):.3f}",
            f"{bench.middle([p.cpu_share for p in points]):.0%}",
            f"{bench.middle([p.counts['ticks'] / max(p.counts['frames'], 1) for p in points]):.1f}",
        )
    say(table)
    checked = sum(p.counts["checked"] for ps in (tops, *below.values()) for p in ps)
    say(f"memory per session {bench.middle(memory) / 1024:.1f} kB")
    say(f"{checked:,} quotes checked: none missing unannounced, none doubled")


if __name__ == "__main__":
    main()
