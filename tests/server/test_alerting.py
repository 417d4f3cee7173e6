"""The alerts of an engine in process: from the configuration to the log."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trio

from marketfeed.alerts.log import Pruned
from marketfeed.config.schema import AlertsConfig, Config, Loaded
from marketfeed.core.records import QUOTE, Batch
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter
from marketfeed.errors import AlertLogError, ConfigError, StartError
from marketfeed.ingest.pump import Pump
from marketfeed.ingest.roster import Roster
from marketfeed.server import alerting
from marketfeed.server.alerting import Alerting, rules_of, unmatched_patterns

SPREAD = {"name": "wide", "type": "spread", "bps": 50.0}
BAND = {"type": "price_band", "percent": 5.0, "reference": "prices.csv"}


class Bench:
    """Alerting over rings of the test."""

    def __init__(self, folder, *rules, **settings):
        self.folder = folder
        self.loaded = Loaded(
            Config(alerts=AlertsConfig(rules=list(rules), **settings)), "config.toml", folder
        )
        rings = Rings.private(8, 16)
        self.symbols = SymbolTable(8, rings.names)
        self.writer = RingWriter(rings)
        pump = Pump(self.writer, self.symbols, lambda: None)
        self.roster = Roster(pump, folder, trio.sleep)
        self.alerting = Alerting(self.loaded, rings, self.symbols, self.roster)

    def publish(self, name):
        """Publish a quote with a spread of 100 bps."""
        quotes = np.zeros(1, QUOTE)
        quotes["symbol"] = self.symbols.intern(name)
        quotes["bid_px"], quotes["ask_px"] = 100 * 10**9, 101 * 10**9
        quotes["bid_sz"] = quotes["ask_sz"] = 1
        self.writer.write(Batch(quotes))
        self.alerting.ring()


async def test_what_rules_find_is_in_the_log_of_the_configuration(tmp_path):
    bench = Bench(tmp_path, SPREAD, path="own/alerts.db")
    async with bench.alerting.open(), trio.open_nursery() as nursery:
        nursery.start_soon(bench.alerting.run)
        bench.publish("A")
        log = bench.alerting.log
        assert log is not None
        while await log.head() < 1:
            await trio.sleep(0.01)
        (entry,) = await log.read(0, 10)
        assert (entry.alert.rule, entry.alert.symbol) == ("wide", "A")
        assert bench.alerting.problem() is None
        assert bench.alerting.failed_rules() == {}
        nursery.cancel_scope.cancel()
    assert (tmp_path / "own" / "alerts.db").exists()


async def test_without_rules_there_is_nothing(tmp_path):
    bench = Bench(tmp_path)
    async with bench.alerting.open():
        await bench.alerting.run()
    bench.publish("A")
    bench.alerting.reload([])
    assert (bench.alerting.watcher, bench.alerting.problem(), bench.alerting.failed_rules()) == (
        None,
        None,
        {},
    )
    assert list(tmp_path.iterdir()) == []


async def test_a_log_that_cannot_be_opened_stops_the_start(tmp_path):
    bench = Bench(tmp_path, SPREAD)
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "alerts.db").write_text("no database " * 1000)
    with pytest.raises(StartError, match=r"alerts\.db"):
        async with bench.alerting.open():
            raise AssertionError("it was opened")


async def test_pruning_that_fails_is_tried_again(tmp_path, monkeypatch, autojump_clock):
    bench = Bench(tmp_path, SPREAD)
    calls = []

    class Pruning:
        async def prune(self, now_ns, keep):
            await trio.lowlevel.checkpoint()
            calls.append(trio.current_time())
            if len(calls) == 2:
                raise AlertLogError("the disk is full")
            return Pruned(removed=1, more=len(calls) == 1)

    log: Any = Pruning()
    with trio.move_on_after(3.5 * alerting.PRUNE_S):
        await bench.alerting._prune(log)
    assert np.diff(calls).round(3).tolist() == [
        alerting.PRUNE_STEP_S,
        alerting.PRUNE_S,
        alerting.PRUNE_S,
        alerting.PRUNE_S,
    ]


async def test_a_mistake_in_a_file_of_a_rule_leaves_the_rule_as_it_is(tmp_path, capsys):
    (tmp_path / "prices.csv").write_text("symbol,price\nA,100\n")
    bench = Bench(tmp_path, BAND)
    bench.alerting.reload([])
    (tmp_path / "prices.csv").write_text("symbol,price\nA,cheap\n")
    bench.alerting.reload([])
    assert "prices.csv" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"alerts\.rules\.0\.reference"):
        Bench(tmp_path, BAND)


def test_all_mistakes_are_found_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        Bench(tmp_path, {"type": "spread", "bsp": 1.0}, path=".")
    assert [mistake.partition(":")[0] for mistake in caught.value.mistakes] == [
        "alerts.rules.0.bsp",
        "alerts.path",
    ]


def test_patterns_without_a_symbol_are_warnings(tmp_path):
    bench = Bench(tmp_path, SPREAD | {"symbols": ["A", "B*"]})
    assert rules_of(bench.loaded) is not None
    (warning,) = unmatched_patterns(bench.loaded, ["A"])
    assert warning == 'config.toml: alerts.rules.0.symbols: "B*" matches no symbol yet (rule "wide")'
