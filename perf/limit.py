"""How close is the engine to the minimum for a server: one send of a small frame to each of 500 sockets?

    a C loop (limit.c), the same bytes repeatedly ───────┐
                                                         ├──► 500 loopback WebSockets ──► counting client
    the engine, 500 sessions on one symbol ──────────────┘

The C loop has no protocol, encoding or accounting; its frames/s are the kernel's limit on one core. It also
runs with 8, 45 and 160 quotes per frame. The engine's frames hold one quote (about 135 bytes). Its rate is
raised until two quotes share a frame, which shows that it sends without a pause. The highest frame rate until
then is compared with the C loop at one quote, whose frames are shorter. Target: engine / C loop ≥ 0.70.

Reports: the engine's overhead over a send. Not covered: quotes per second delivered (perf/fanout.py, where
quotes share frames), networks. A client CPU near 100 % means that the client was the limit.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from perf import bench

if TYPE_CHECKING:
    from collections.abc import Iterator

FRAME_TICKS = (1, 8, 45, 160)
MOST_SHARED = 2.0  # average quotes per frame at which the engine sends without a pause
STEP = 1.15
TARGET = 0.70


@contextlib.contextmanager
def c_loop(sessions: int, ticks: int) -> Iterator[bench.Server]:
    """Run limit.c with frames of ``ticks`` quotes."""
    argv = [str(bench.compiled("limit")), str(sessions), str(ticks)]
    with (
        tempfile.TemporaryDirectory(prefix="marketfeed-perf-") as name,
        bench.process(argv, Path(name)) as server,
    ):
        yield server


def frames_per_s(point: bench.Point) -> float:
    """Return frames per second read by all subscribers together."""
    return float(point.counts["frames"] / point.counts["seconds"])


def engine_frames(work: bench.Work, first: float) -> bench.Point:
    """Raise the rate from ``first``; return the point with most one-quote frames per second."""
    start = functools.partial(bench.marketfeed, universe=1)
    best: bench.Point | None = None
    rate = first
    while True:
        point = bench.measure(start, work, rate)
        point.assert_honest()
        shared = point.counts["ticks"] / max(point.counts["frames"], 1)
        fault = point.fault() or (f"{shared:.2f} quotes per frame" if shared > MOST_SHARED else "")
        found = f"{frames_per_s(point):>9,.0f} frames/s  p99 {point.p99_ms:.2f} ms"
        bench.console.print(f"  engine {rate:>6,.0f} q/s: {found}  {fault or 'served'}", highlight=False)
        if fault and best is not None:
            return best
        if fault:
            rate /= 1.5
            if rate < 1:
                raise RuntimeError("the engine shares frames even at one quote per second")
            continue
        if best is None or frames_per_s(point) > frames_per_s(best):
            best = point
        rate *= STEP


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.limit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--first", type=float, default=350.0, help="initial quotes/s of the engine")
    options = parser.parse_args()
    bench.console.print(bench.machine(), style="dim", highlight=False)
    work = bench.Work(options.sessions, 1, 1, seconds=options.seconds, client="c")
    loops: dict[int, list[bench.Point]] = {ticks: [] for ticks in FRAME_TICKS}
    engine: list[bench.Point] = []
    for number in range(1, options.rounds + 1):
        bench.console.print(f"round {number} of {options.rounds}")
        for ticks, points in loops.items():
            with c_loop(work.sessions, ticks) as server:
                point = bench.load(server, replace(work, verify=0), 0.0)
            assert point.counts["ticks"] == ticks * point.counts["frames"], point.counts
            points.append(point)
            bench.console.print(
                f"  C loop {ticks:>3} per frame: {frames_per_s(point):>9,.0f} frames/s", highlight=False
            )
        engine.append(engine_frames(work, engine[-1].rate / STEP**2 if engine else options.first))

    table = Table(title=f"Frames to {work.sessions} sockets: medians of {options.rounds} rounds")
    for title in ("who", "quotes/frame", "bytes/frame", "frames/s", "quotes/s", "client CPU"):
        table.add_column(title, justify="left" if title == "who" else "right")
    for who, points in [*((f"C loop, {t}", p) for t, p in loops.items()), ("engine", engine)]:
        counts = points[0].counts
        table.add_row(
            who.partition(",")[0],
            f"{counts['ticks'] / counts['frames']:.2f}",
            f"{counts['bytes'] / counts['frames']:,.0f}",
            f"{bench.middle([frames_per_s(p) for p in points]):,.0f}",
            bench.millions(bench.middle([p.delivered for p in points])),
            f"{bench.middle([p.counts['client_cpu_s'] / p.counts['seconds'] for p in points]):.0%}",
        )
    bench.console.print(table)
    ratio = bench.middle([frames_per_s(e) / frames_per_s(c) for e, c in zip(engine, loops[1], strict=True)])
    verdict = "met" if ratio >= TARGET else "missed"
    bench.console.print(f"one-quote frames, engine / C loop: {ratio:.2f}; target ≥ {TARGET:.2f} {verdict}")


if __name__ == "__main__":
    main()
