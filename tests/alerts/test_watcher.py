"""The watcher over real rings: what is published is evaluated, logged and, if it was lost, reported."""

from __future__ import annotations

import numpy as np
import pytest
import trio
import trio.testing

from marketfeed.alerts.log import Appended
from marketfeed.alerts.rules import FeedState, RuleSet, rule_specs
from marketfeed.alerts.sqlite_log import open_log
from marketfeed.alerts.watcher import APPENDED, MOST_HELD, Watcher
from marketfeed.core.reader import RingReader
from marketfeed.core.records import QUOTE, Batch
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.units import S
from marketfeed.core.writer import RingWriter
from marketfeed.errors import AlertLogError

SPREAD = {"name": "wide", "type": "spread", "bps": 50.0}
DEPTH = 64
START_NS = 1_700_000_000 * S


class MemoryLog:
    """What was appended; fails with ``problem`` while there is one."""

    def __init__(self):
        self.alerts, self.marks = [], {}
        self.problem = None
        self.calls = 0

    async def episodes(self, open_only=False):
        await trio.lowlevel.checkpoint()
        return []

    async def append(self, alerts, now_ns, marks=None):
        await trio.lowlevel.checkpoint()
        self.calls += 1
        if self.problem is not None:
            raise AlertLogError(self.problem)
        known = {alert.id for alert in self.alerts}
        self.alerts += [alert for alert in alerts if alert.id not in known]
        self.marks |= marks or {}
        return [Appended(alert.id, i, alert.id not in known) for i, alert in enumerate(alerts)]


class Bench:
    """A watcher, the rings that it reads, and a clock."""

    def __init__(self, *rules, step_ticks=1024, max_symbols=16):
        self.rings = Rings.private(max_symbols, DEPTH)
        self.symbols = SymbolTable(max_symbols, self.rings.names)
        self.writer = RingWriter(self.rings)
        self.states = {0: FeedState("demo", live=True)}
        self.log = MemoryLog()
        self.step_ns = 0  # by which the Unix clock was set
        reader = RingReader(self.rings, lambda: self.symbols, held=True, step_ticks=step_ticks)
        rule_set = RuleSet(rule_specs(rules), max_symbols)
        self.watcher = Watcher(reader, self.symbols, rule_set, lambda: self.states, self.now_ns)

    def now_ns(self):
        return START_NS + self.step_ns + int(trio.current_time() * S)

    def publish(self, *quotes):
        """Publish pairs of a symbol and the spread in bps, and ring."""
        batch = Batch(np.zeros(len(quotes), QUOTE))
        for record, (name, bps) in zip(batch.quotes, quotes, strict=True):
            record["symbol"] = self.symbols.intern(name)
            record["bid_px"], record["ask_px"] = 100 * 10**9, 100 * 10**9 + bps * 10**7
            record["bid_sz"] = record["ask_sz"] = 1
            record["ts_recv"] = self.now_ns()
        self.writer.write(batch)
        self.watcher.ring()

    def states_of(self):
        return [(alert.rule, alert.symbol, alert.state) for alert in self.log.alerts]


async def test_an_episode_is_logged_with_its_beginning_and_its_end(autojump_clock):
    bench = Bench(SPREAD)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.watcher.run, bench.log)
        bench.publish(("A", 10), ("B", 80), ("A", 10))
        await trio.sleep(0.1)
        assert bench.states_of() == [("wide", "B", "raised")]
        bench.publish(("B", 10))
        await trio.sleep(0.1)
        raised, cleared = bench.log.alerts
        assert (cleared.state, cleared.key) == ("cleared", raised.id)
        assert bench.watcher.ticks == 4
        assert bench.watcher.raised == {("wide", "raised"): 1, ("wide", "cleared"): 1}
        assert bench.watcher.position == bench.rings.head()
        nursery.cancel_scope.cancel()


async def test_what_was_published_before_the_end_is_logged(autojump_clock):
    bench = Bench(SPREAD)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.watcher.run, bench.log)
        await trio.testing.wait_all_tasks_blocked()
        bench.publish(("A", 80))
        nursery.cancel_scope.cancel()
    assert bench.states_of() == [("wide", "A", "raised")]


async def test_ticks_that_were_overwritten_are_an_alert_of_their_own(autojump_clock):
    bench = Bench(SPREAD)
    for _ in range(DEPTH + 10):
        bench.publish(("A", 10))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.watcher.run, bench.log)
        await trio.sleep(0.1)
        raised, cleared = bench.log.alerts
        assert (raised.rule, raised.severity) == ("watcher", "critical")
        assert (raised.state, raised.value) == ("raised", 10)
        assert (cleared.state, cleared.key, cleared.value) == ("cleared", raised.id, 10)
        assert "did not see 10 ticks" in cleared.message
        assert (bench.watcher.lost_ticks, bench.watcher.ticks) == (10, DEPTH)
        nursery.cancel_scope.cancel()


async def test_time_alone_raises_and_feeds_are_looked_at(autojump_clock):
    bench = Bench(
        {"type": "stale", "after_s": 3.0, "inhibited_by": ["feed_down"]},
        {"type": "feed_down", "after_s": 1.0},
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.watcher.run, bench.log)
        bench.publish(("A", 10))
        await trio.sleep(2.5)
        assert bench.states_of() == []
        await trio.sleep(1)
        assert bench.states_of() == [("stale", "A", "raised")]
        bench.states[0] = FeedState("demo", live=False)
        await trio.sleep(3)
        assert bench.states_of()[1:] == [("feed_down", "demo", "raised")]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("back_s", [7200, 0.5])
async def test_time_goes_on_for_the_rules_when_the_clock_is_set_back(autojump_clock, back_s):
    bench = Bench(
        {"type": "stale", "symbols": "A", "after_s": 3.0},
        {"type": "feed_down", "after_s": 1.0},
        {"type": "spread", "symbols": "B", "bps": 50.0, "min_duration_s": 3.0},
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.watcher.run, bench.log)
        bench.publish(("A", 10))
        await trio.sleep(1)
        bench.step_ns = -round(back_s * S)
        bench.publish(("B", 80))
        await trio.sleep(1.9)
        assert bench.states_of() == []
        await trio.sleep(0.2)
        assert bench.states_of() == [("stale", "A", "raised")]
        bench.publish(("A", 10))
        await trio.sleep(1)
        assert bench.states_of()[1:] == [("stale", "A", "cleared"), ("spread", "B", "raised")]
        bench.states[0] = FeedState("demo", live=False)
        await trio.sleep(2.9)
        assert bench.states_of()[3:] == [("feed_down", "demo", "raised")]
        nursery.cancel_scope.cancel()


async def test_what_another_rule_inhibits_is_marked(autojump_clock):
    bench = Bench(SPREAD | {"inhibited_by": ["crossed"]}, {"type": "spread", "name": "crossed", "bps": 40.0})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.watcher.run, bench.log)
        bench.publish(("A", 45))
        await trio.sleep(0.1)
        bench.publish(("A", 80))
        await trio.sleep(0.1)
        inhibited = next(alert for alert in bench.log.alerts if alert.rule == "wide")
        assert bench.log.marks == {inhibited.id: "inhibited"}
        nursery.cancel_scope.cancel()


async def test_a_rule_that_raises_is_switched_off_and_the_others_go_on(autojump_clock, monkeypatch):
    bench = Bench(SPREAD, {"type": "crossed"}, {"type": "stale", "after_s": 1.0})

    def broken(*_):
        raise KeyError("mine")

    monkeypatch.setattr("marketfeed.alerts.rules.levels.Crossed.evaluate", broken)
    monkeypatch.setattr("marketfeed.alerts.rules.silence.Stale.advance", broken)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.watcher.run, bench.log)
        bench.publish(("A", 80))
        await trio.sleep(3)
        bench.publish(("A", 10))
        await trio.sleep(1)
        assert bench.states_of() == [("wide", "A", "raised"), ("wide", "A", "cleared")]
        assert list(bench.watcher.failed) == ["crossed", "stale"]
        assert bench.watcher.failed["crossed"].startswith("KeyError: 'mine' (")
        nursery.cancel_scope.cancel()


async def test_while_the_log_fails_alerts_are_held_and_then_written_once(autojump_clock):
    bench = Bench(SPREAD)
    bench.log.problem = "the disk is full"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.watcher.run, bench.log)
        bench.publish(("A", 80), ("B", 80))
        await trio.sleep(5)
        assert bench.watcher.problem == "the disk is full"
        assert (bench.watcher.held, bench.log.alerts) == (2, [])
        assert bench.log.calls < 10
        bench.log.problem = None
        await trio.sleep(2)
        assert bench.watcher.problem is None
        assert bench.states_of() == [("wide", "A", "raised"), ("wide", "B", "raised")]
        assert bench.watcher.held == 0
        nursery.cancel_scope.cancel()


async def test_alerts_that_cannot_be_written_until_the_end_are_reported_as_lost(autojump_clock, capsys):
    bench = Bench(SPREAD)
    bench.log.problem = "the disk is full"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.watcher.run, bench.log)
        bench.publish(("A", 80), ("B", 80))
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert "alerts are lost: the log could not be written" in capsys.readouterr().out
    assert bench.watcher.held == 2


async def test_held_alerts_are_bounded_and_what_is_not_read_meanwhile_is_reported(autojump_clock):
    bench = Bench(SPREAD)
    bench.log.problem = "the disk is full"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.watcher.run, bench.log)
        while bench.watcher.held < MOST_HELD:
            bench.publish(*[("A", 80), ("A", 10)] * (DEPTH // 4))
            await trio.sleep(0.01)
        held = bench.watcher.held
        assert held < MOST_HELD + DEPTH
        for _ in range(4):
            bench.publish(*[("A", 80), ("A", 10)] * (DEPTH // 2))
            await trio.sleep(0.01)
        assert bench.watcher.held == held
        bench.log.problem = None
        await trio.sleep(5)
        assert bench.watcher.held == 0
        assert bench.log.calls > MOST_HELD // APPENDED
        assert bench.watcher.lost_ticks == 3 * DEPTH
        assert [alert.value for alert in bench.log.alerts if alert.rule == "watcher"] == [3 * DEPTH] * 2
        nursery.cancel_scope.cancel()


async def test_the_real_log_keeps_what_the_watcher_found(tmp_path):
    bench = Bench(SPREAD)
    async with open_log(tmp_path / "alerts.db") as log, trio.open_nursery() as nursery:
        nursery.start_soon(bench.watcher.run, log)
        bench.publish(("A", 80))
        while await log.head() < 1:
            await trio.sleep(0.01)
        (entry,) = await log.read(0, 10)
        assert (entry.alert.rule, entry.alert.symbol, entry.mark) == ("wide", "A", None)
        nursery.cancel_scope.cancel()


async def test_episodes_that_were_left_open_are_cleared_at_the_next_start(tmp_path):
    async with open_log(tmp_path / "alerts.db") as log:
        for expected in (1, 3, 5):
            bench = Bench(SPREAD)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench.watcher.run, log)
                bench.publish(("A", 80))
                while await log.head() < expected:
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        entries = await log.read(0, 10)
        assert [entry.alert.state for entry in entries] == [
            "raised",
            "cleared",
            "raised",
            "cleared",
            "raised",
        ]
        assert [entry.alert.key for entry in entries[1::2]] == [entry.alert.id for entry in entries[:4:2]]
        (still,) = await log.episodes(open_only=True)
        assert still.key == entries[4].alert.id


@pytest.mark.parametrize("step_ticks", [1, 7, 1024])
async def test_alerts_are_the_same_whatever_the_size_of_the_steps(autojump_clock, step_ticks):
    bench = Bench(SPREAD, step_ticks=step_ticks)
    bench.publish(*[(name, bps) for bps in (10, 80, 10, 90) for name in "ABC"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.watcher.run, bench.log)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert bench.states_of() == [
        ("wide", name, state) for state in ("raised", "cleared", "raised") for name in "ABC"
    ]
