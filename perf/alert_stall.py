"""How long does the event loop stall while 8,192 symbols are raised at once?

    8,192 quotes ──► rings ──► watcher, one rule ──► dispatch ──► log ─┬─► a consumer, which acknowledges
                                                                       └─► pages of a live view, encoded

Nothing else runs in the loop, so a pass of it, from one wait for I/O to the next, is the stall that a flush
could meet. Reports the longest pass per scenario: CPU time of the loop's thread, and elapsed time, which
includes waits for the log's writer (the GIL) and for other processes. The garbage collector is set as in the
engine. With ``spread``, a feed that is down inhibits half of the alerts, and a silence covers a tenth.
Every run checks that each symbol has one alert with the right id and mark, and that the rest was delivered.
Not covered: encoding of frames, sockets.

    python -m perf.alert_stall
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import trio
from rich.table import Table

from marketfeed.access.entitlement import UNBOUNDED
from marketfeed.alerts.alert import alert_id
from marketfeed.alerts.delivery import DeliveryLimits
from marketfeed.alerts.dispatch import Dispatch
from marketfeed.alerts.log import Silence
from marketfeed.alerts.messages import alert_message, arrays
from marketfeed.alerts.rules import FeedState, RuleSet, rule_specs
from marketfeed.alerts.sqlite_log import open_log
from marketfeed.alerts.watcher import STEP_TICKS, Watcher
from marketfeed.core.reader import RingReader
from marketfeed.core.records import QUOTE, Batch, Records
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.units import S
from marketfeed.core.writer import RingWriter
from marketfeed.gateway.live_alerts import READ
from marketfeed.gateway.session_alerts import TAKEN, messages_of
from marketfeed.server.gc_control import Collector
from perf.bench import console, machine

if TYPE_CHECKING:
    from marketfeed.alerts.log import Entry

SYMBOLS: Final = 8192
AFTER_S: Final = 1.0  # of silence, and of crossed quotes
RATE_S: Final = 3.2  # window: after it, one quote is 0.3 a second
NAMES: Final = [f"SY{number:04d}" for number in range(SYMBOLS)]
SILENCED: Final = "SY1"  # prefix of the symbols that the silence covers
SCENARIOS: Final[dict[str, dict[str, Any]]] = {
    "stale": {"type": "stale", "after_s": AFTER_S},
    "crossed": {"type": "crossed", "min_duration_s": AFTER_S},
    "rate": {"type": "rate", "below": 1.0, "window_s": RATE_S},
    "spread": {"type": "spread", "bps": 50.0, "inhibited_by": ["feed_down"]},
}
PRICES: Final = {"crossed": 10**11 - 10**9, "spread": 10**11 + 10**9}  # asked
FEED_DOWN: Final[dict[str, Any]] = {"type": "feed_down", "after_s": 0.0}
TARGET: Final = "at most 5 ms of CPU per pass"


class Passes(trio.abc.Instrument):
    """The longest pass of the event loop while ``recording``, in ns."""

    def __init__(self) -> None:
        self.recording = False
        self.count = self.cpu_ns = self.elapsed_ns = 0
        self._start = (time.thread_time_ns(), time.perf_counter_ns())

    def after_io_wait(self, timeout: float) -> None:
        self._start = (time.thread_time_ns(), time.perf_counter_ns())

    def before_io_wait(self, timeout: float) -> None:
        if self.recording:
            self.count += 1
            self.cpu_ns = max(self.cpu_ns, time.thread_time_ns() - self._start[0])
            self.elapsed_ns = max(self.elapsed_ns, time.perf_counter_ns() - self._start[1])


class Bench:
    """The parts of one engine, without sessions."""

    def __init__(self, scenario: str) -> None:
        self.scenario = scenario
        rings = Rings.private(SYMBOLS, 8)
        self.symbols = SymbolTable(SYMBOLS, rings.names)
        self.writer = RingWriter(rings)
        reader = RingReader(rings, lambda: self.symbols, held=True, step_ticks=STEP_TICKS)
        rules = RuleSet(rule_specs([SCENARIOS[scenario], FEED_DOWN]), SYMBOLS)
        states = {0: FeedState("up", live=True), 1: FeedState("down", live=scenario != "spread")}
        self.watcher = Watcher(reader, self.symbols, rules, lambda: states, time.time_ns)
        for name in NAMES:
            self.symbols.intern(name)

    def publish(self, bid: int, ask: int) -> Records:
        """Publish a quote of every symbol, at one time."""
        quotes = np.zeros(SYMBOLS, QUOTE)
        quotes["symbol"], quotes["feed"] = np.arange(SYMBOLS), np.arange(SYMBOLS) % 2
        quotes["bid_px"], quotes["ask_px"], quotes["bid_sz"], quotes["ask_sz"] = bid, ask, 1, 1
        quotes["ts_recv"] = time.time_ns()
        self.writer.write(Batch(quotes))
        self.watcher.ring()
        return quotes

    def check(self, entries: list[Entry], published: Records, delivered: list[str]) -> None:
        """Fail if an alert, an id or a mark is not right."""
        raised = [entry for entry in entries if entry.alert.rule == self.scenario]
        assert sorted(entry.alert.symbol for entry in raised) == NAMES
        at_ns = int(published["ts_recv"][0]) + (0 if self.scenario == "spread" else round(AFTER_S * S))
        for entry in raised:
            alert = entry.alert
            if self.scenario == "rate":  # raised at the end of a bucket
                at_ns = alert.r_ns
            assert alert.state == "raised"
            assert alert.id == alert.key == alert_id(alert.rule, alert.symbol, "raised", 0, at_ns)
            mark = "silenced" if alert.symbol.startswith(SILENCED) else None
            if self.scenario == "spread" and int(alert.symbol[2:]) % 2:
                mark = "inhibited"
            assert entry.mark == (mark if self.scenario == "spread" else None)
        assert sorted(delivered) == sorted(entry.alert.id for entry in entries if entry.mark is None)


async def consume(dispatch: Dispatch, delivered: list[str]) -> None:
    """Take and acknowledge as a session does."""
    while True:
        due = await dispatch.take("session", TAKEN)
        list(arrays(messages_of(due, UNBOUNDED)))
        delivered += [one.entry.alert.id for one in due]
        await dispatch.acknowledge("bench", [one.entry.alert.id for one in due])


async def view(dispatch: Dispatch, entries: list[Entry]) -> None:
    """Read and encode pages as live views do."""
    while True:
        page = await dispatch.entries(entries[-1].position if entries else 0, READ)
        list(arrays([alert_message(entry.alert) for entry in page]))
        entries += page


def silence(now_ns: int) -> Silence:
    """Return the silence that covers a tenth of the symbols."""
    return Silence(
        id="one", symbols=(f"{SILENCED}*",), starts_ns=now_ns, ends_ns=now_ns + 3600 * S,
        created_by="perf", comment="part of the scenario",
    )  # fmt: skip


async def measured(scenario: str, folder: Path) -> Passes:
    """Return the passes of one run."""
    passes, bench = Passes(), Bench(scenario)
    entries: list[Entry] = []
    delivered: list[str] = []
    async with open_log(folder / "alerts.db") as log, trio.open_nursery() as nursery:
        dispatch = await Dispatch.started(log, DeliveryLimits(8, 1000), time.time_ns)
        for task in (Collector().run, dispatch.run):
            nursery.start_soon(task)
        if scenario == "spread":
            await dispatch.add_silence(silence(time.time_ns()))
        await dispatch.join("session", "bench", "all", ["*"])
        nursery.start_soon(consume, dispatch, delivered)
        nursery.start_soon(view, dispatch, entries)
        nursery.start_soon(bench.watcher.run, dispatch)
        bench.publish(10**11, 10**11)  # the first ticks find new names and untouched memory
        while bench.watcher.ticks < SYMBOLS or len(entries) < (scenario == "spread"):  # noqa: ASYNC110
            await trio.sleep(0.05)
        trio.lowlevel.add_instrument(passes)
        published = bench.publish(10**11, PRICES.get(scenario, 10**11))
        await trio.lowlevel.checkpoint()  # its own pass
        passes.recording = True
        with trio.fail_after(60):
            while not ended(entries, delivered, scenario):  # noqa: ASYNC110
                await trio.sleep(0.05)
        passes.recording = False
        nursery.cancel_scope.cancel()
    bench.check(entries, published, delivered)
    return passes


def ended(entries: list[Entry], delivered: list[str], scenario: str) -> bool:
    """Return whether everything has been raised and delivered."""
    if len(entries) < SYMBOLS + (scenario == "spread"):
        return False
    return len(delivered) == sum(entry.mark is None for entry in entries)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    console.print(machine())
    table = Table("8,192 symbols at once", "longest pass, CPU ms", "elapsed ms", "passes")
    for scenario in SCENARIOS:
        runs = []
        for _ in range(args.runs):
            with tempfile.TemporaryDirectory() as folder:
                runs.append(trio.run(measured, scenario, Path(folder)))
        columns = [
            [one.cpu_ns / 1e6 for one in runs], [one.elapsed_ns / 1e6 for one in runs]
        ]  # fmt: skip
        shown = [f"{statistics.median(ms):.1f} ({min(ms):.1f} to {max(ms):.1f})" for ms in columns]
        table.add_row(scenario, *shown, str(round(statistics.median(one.count for one in runs))))
    console.print(table, f"aimed at: {TARGET}")


if __name__ == "__main__":
    main()
