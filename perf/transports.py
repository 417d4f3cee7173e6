"""What does one process deliver over each transport?

    engine ──► 500 sessions × 20 of 1,000 symbols ──► WebSocket (JSON), Server-Sent Events, WebSocket (binary)

Reports: delivered quotes per second at saturation of each, as medians over alternating rounds, their ratios
to JSON over a WebSocket, and bytes per quote. Not covered: polls, which are answered one by one.
"""

from __future__ import annotations

import argparse
import functools
from dataclasses import replace

from perf import bench

GUESSES = {"websocket": 550_000.0, "sse": 550_000.0, "binary": 750_000.0}  # initial quotes/s


def tell(transport: str, text: str) -> None:
    """Print one step of the search for a transport's saturation."""
    bench.console.print(f"{transport:10}{text}", style="dim", highlight=False)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.transports",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.common(parser)
    options = parser.parse_args()
    work = bench.work_of(options)
    say = functools.partial(bench.console.print, highlight=False)
    say(bench.machine(), style="dim")
    start = functools.partial(bench.marketfeed, universe=work.universe)
    tops: dict[str, list[bench.Point]] = {transport: [] for transport in GUESSES}
    for _ in range(options.rounds):
        for transport, found in tops.items():
            guess = found[-1].rate if found else GUESSES[transport]
            top = bench.saturation(
                start,
                replace(work, transport=transport),
                guess,
                options.resolution,
                functools.partial(tell, transport),
            )
            top.assert_honest()
            found.append(top)
    base = bench.middle([point.served for point in tops["websocket"]])
    for transport, found in tops.items():
        served = sorted(point.served for point in found)
        sizes = [point.counts["bytes"] / point.counts["ticks"] for point in found]
        say(
            f"{transport:10} {bench.millions(bench.middle(served))}/s at saturation "
            f"({bench.millions(served[0])} to {bench.millions(served[-1])}), "
            f"{bench.middle(sizes):.0f} bytes per quote, "
            f"{bench.middle(served) / base:.2f} × the WebSocket in JSON"
        )


if __name__ == "__main__":
    main()
