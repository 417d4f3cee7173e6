"""Does the page at `/` paint steadily while every quote of 8,000 symbols arrives?

    engine, synthetic feed ──► tier vip, binary ──► marketfeed.js ──► columns ──► visible cells, 30 a second
                                                    └──────── one thread of headless Chromium ────────┘

Reports, per view: tasks above 50 ms (PerformanceObserver `longtask`), intervals between animation frames,
shares of a core, memory of scripts after a collection. Engine and browser run on one machine. Not covered: a
graphics card, a display of more than 60 Hz, several tabs.

A page that missed ticks painted something else, so holes in `n`, gaps and lags fail the run.
"""

from __future__ import annotations

import argparse
import functools
import sys
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from perf import bench
from perf.browser import PROBE, Figures, Meter
from tests.support.chromium import chromium

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

LONG_MS: Final = 50
SETTLE_S: Final = 4.0  # after a change of the view
SCROLL_PX: Final = 280  # ten rows


def scroll(page: Page) -> None:
    """Scroll through the grid, back and forth, with every frame."""
    page.evaluate(
        """(step) => {
        const grid = document.querySelector('.grid');
        let by = step;
        window.scrolling = setInterval(() => {
            const before = grid.scrollTop;
            grid.scrollTop += by;
            if (grid.scrollTop === before) by = -by;
        }, 16);
    }""",
        SCROLL_PX,
    )


def still(page: Page) -> None:
    """End scrolling."""
    page.evaluate("() => { clearInterval(window.scrolling); document.querySelector('.grid').scrollTop = 0; }")


def nothing(page: Page) -> None:
    """Leave the page as it is."""


# What is measured: the view, what begins, what ends.
Step = tuple[str, str, "Callable[[Page], None]", "Callable[[Page], None]"]
STEPS: Final[tuple[Step, ...]] = (
    ("watch, by activity", "watch", nothing, nothing),
    ("watch, scrolled 600 rows/s", "watch", scroll, still),
    ("watch and details", "watch/SY0001", nothing, nothing),
    ("tiers side by side", "tiers/SY0001", nothing, nothing),
    ("connection", "connection", nothing, nothing),
)


def ticks(page: Page) -> dict[str, Any]:
    """Return what the page's own stream has received."""
    found: dict[str, Any] = page.evaluate(
        """() => import('/page/session.js').then(({session}) => {
        const {ticks, gaps, lags, lost} = session.feed.statistics();
        return {ticks, gaps, lags, lost, holes: session.book.holes, symbols: session.book.count,
                state: session.feed.state.state, tier: session.feed.tier};
    })"""
    )
    return found


def line(name: str, figures: list[Figures], rates: list[float]) -> str:
    """Return the medians of the rounds; long tasks are those of all rounds."""
    long_ms = [ms for one in figures for ms in one.long_ms if ms > LONG_MS]
    longest = f", the longest {max(long_ms):.0f} ms" if long_ms else ""
    busy = {name: median(one.busy[name] for one in figures) for name in figures[0].busy}
    frames = {name: median(one.frame_ms[name] for one in figures) for name in figures[0].frame_ms}
    heap_mb = median(one.heap_bytes for one in figures) / 1e6
    return (
        f"  {name:28} {median(rates):>8,.0f} ticks/s   tasks > {LONG_MS} ms: {len(long_ms)}{longest}   "
        f"frames/s {median(one.frames_s for one in figures):.1f}, ms p50 {frames['p50']:.1f} "
        f"p99 {frames['p99']:.1f} max {frames['max']:.1f}   core {100 * busy['TaskDuration']:.0f} % "
        f"(scripts {100 * busy['ScriptDuration']:.0f} %)   heap {heap_mb:.1f} MB"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.page", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=20_000, help="quotes/s")
    parser.add_argument("--universe", type=int, default=8_000, help="symbols")
    parser.add_argument("--seconds", type=float, default=15.0, help="per view and round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    say = functools.partial(bench.console.print, highlight=False)
    say(bench.machine(), style="dim")
    found: dict[str, tuple[list[Figures], list[float]]] = {name: ([], []) for name, *_ in STEPS}
    with bench.marketfeed(options.rate, universe=options.universe) as server, chromium() as browser:
        say(f"Chromium {browser.version}, {options.universe:,} symbols, {options.rate:,.0f} quotes/s, vip")
        for _ in range(options.rounds):
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.add_init_script(PROBE)
            page.goto(f"http://localhost:{server.port}/")
            page.wait_for_function(
                f"() => document.querySelector('#foot-symbols').textContent === '{options.universe:,}'"
            )
            say(f"  start: tasks > {LONG_MS} ms: {page.evaluate('window.probe.long')}", style="dim")
            for name, view, begin, end in STEPS:
                page.goto(f"http://localhost:{server.port}/#{view}")
                page.wait_for_timeout(1000 * SETTLE_S)
                begin(page)
                before, meter = ticks(page)["ticks"], Meter(page)
                meter.start()
                page.wait_for_timeout(1000 * options.seconds)
                figures = meter.stop()
                end(page)
                found[name][0].append(figures)
                found[name][1].append((ticks(page)["ticks"] - before) / options.seconds)
            last = ticks(page)
            page.close()
            if last["holes"] or last["gaps"] or last["lags"] or last["tier"] != "vip":
                sys.exit(f"perf.page: the page did not get every tick: {last}")
    for name, measured in found.items():
        say(line(name, *measured))


if __name__ == "__main__":
    main()
