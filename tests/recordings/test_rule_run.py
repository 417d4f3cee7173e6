"""Rules run over a recording raise what the watcher of an engine would: the same ids, times and values."""

from __future__ import annotations

import os

import numpy as np
import pytest
import trio

from marketfeed.alerts.rules import Judged, RuleSet, rule_specs
from marketfeed.alerts.watcher import Watcher
from marketfeed.core.binary import quotes_frame, symbols_frame, trades_frame
from marketfeed.core.reader import RingReader
from marketfeed.core.records import QUOTES, TRADES, Batch
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.units import S
from marketfeed.core.writer import RingWriter
from marketfeed.ingest.registry import feed_specs
from marketfeed.recordings.rule_run import RuleFigures, RunFigures, run_rules
from marketfeed.recordings.ticks import MarketfeedTicks, ReplayedTicks
from tests.alerts.test_recordings import RULES
from tests.alerts.test_watcher import MemoryLog
from tests.support.alert_ticks import NAMES, arrivals, expected, plain, random_ticks
from tests.support.recordings import write

# Short times: random ticks are microseconds to milliseconds apart.
TABLES = [
    {"type": "spread", "name": "wide", "bps": 20.0, "cooldown_s": 0.01},
    {"type": "crossed", "name": "crossed", "min_duration_s": 0.001},
    {"type": "move", "name": "move", "percent": 2.0, "window_s": 0.1, "inhibited_by": ["wide"]},
    {"type": "off_market", "name": "off", "percent": 1.0, "symbols": ["BTC*"]},
    {"type": "stale", "name": "still", "after_s": 0.005, "inhibited_by": ["crossed"]},
    {"type": "rate", "name": "dead", "below": 50.0, "window_s": 0.1},
    {"type": "size_spike", "name": "big", "factor": 4.0, "half_life_s": 0.1},
]
MAX_SYMBOLS = 16


def recorded(path, drawn, step=53):
    """Write random ticks as ``marketfeed record`` does: the ticks of ``step`` numbers in one step."""
    quotes, trades, is_quote = drawn
    frames = [symbols_frame({name: number for number, name in enumerate(NAMES)}, 1)]
    for start in range(0, len(quotes), step):
        part = slice(start, start + step)
        of_quotes = is_quote[part]
        frames += [
            trades_frame(trades[part][~of_quotes], 2 + start),
            quotes_frame(quotes[part][of_quotes], 2 + start),
        ]
    return write(path, frames)


def run(ticks, tables=TABLES, shown=None, **more):
    """Return the alerts of rules over ``ticks``, and the figures."""
    found: list[Judged] = []
    specs = rule_specs(tables)
    shown = [spec.common.name for spec in specs] if shown is None else shown
    figures = run_rules(ticks, RuleSet(specs, MAX_SYMBOLS), shown, found.extend, **more)
    return found, figures


@pytest.mark.parametrize("seed", range(100 if os.environ.get("MARKETFEED_PROVE") else 2))
def test_alerts_are_those_that_the_oracle_derives(tmp_path, seed):
    drawn = random_ticks(seed, 400)
    found, figures = run(MarketfeedTicks(recorded(tmp_path / "day.mfr", drawn), MAX_SYMBOLS))
    assert plain(found) == expected(TABLES, drawn, max(arrivals(*drawn)))
    assert len({alert.rule for alert, _ in found}) > 4
    assert sum(inhibited for _, inhibited in found)
    assert all(alert.message for alert, _ in found)
    assert figures.symbols == len(NAMES)


@pytest.mark.parametrize("batch_ticks", [1, 7, 100])
def test_the_size_of_batches_changes_nothing(tmp_path, batch_ticks):
    path = recorded(tmp_path / "day.mfr", random_ticks(9, 200))
    whole, figures = run(MarketfeedTicks(path, MAX_SYMBOLS))
    cut, of_cut = run(MarketfeedTicks(path, MAX_SYMBOLS), batch_ticks=batch_ticks)
    assert cut == whole
    assert of_cut.rules == figures.rules


async def test_alerts_are_those_of_the_watcher_on_the_same_ticks(tmp_path, autojump_clock):
    drawn = random_ticks(5, 300)
    quotes, trades, is_quote = drawn
    rings = Rings.private(MAX_SYMBOLS, 1024)
    symbols = SymbolTable(MAX_SYMBOLS, rings.names)
    for name in NAMES:
        symbols.intern(name)
    log = MemoryLog()
    rules = RuleSet(rule_specs(TABLES), MAX_SYMBOLS)
    reader = RingReader(rings, lambda: symbols, held=True, step_ticks=64)
    watcher = Watcher(reader, symbols, rules, dict, lambda: 0)
    channels = np.where(is_quote, QUOTES, TRADES).astype(np.uint8)
    RingWriter(rings).write(Batch(quotes[is_quote].copy(), trades[~is_quote].copy(), channels))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watcher.run, log)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    found, _ = run(MarketfeedTicks(recorded(tmp_path / "day.mfr", drawn), MAX_SYMBOLS))
    assert log.alerts == [alert for alert, _ in found]
    assert log.marks == {alert.id: "inhibited" for alert, inhibited in found if inhibited}


def test_only_chosen_rules_are_shown_and_counted_others_still_inhibit(tmp_path):
    path = recorded(tmp_path / "day.mfr", random_ticks(3, 400))
    everything, _ = run(MarketfeedTicks(path, MAX_SYMBOLS))
    found, figures = run(MarketfeedTicks(path, MAX_SYMBOLS), shown=["still"])
    assert found == [one for one in everything if one.alert.rule == "still"]
    assert any(one.inhibited for one in found)
    assert list(figures.rules) == ["still"]


def test_figures_count_what_was_found(tmp_path):
    drawn = random_ticks(4, 300)
    told = []
    found, figures = run(
        MarketfeedTicks(recorded(tmp_path / "day.mfr", drawn), MAX_SYMBOLS),
        progress=lambda figures: told.append(figures.ticks),
    )
    for name, rule in figures.rules.items():
        own = [one for one in found if one.alert.rule == name]
        raised = [one for one in own if one.alert.state == "raised"]
        assert (rule.raised, rule.cleared) == (len(raised), len(own) - len(raised))
        assert rule.open == 2 * len(raised) - len(own)
        assert rule.inhibited == sum(one.inhibited for one in raised)
        assert rule.suppressed == sum(one.alert.suppressed for one in own)
        assert rule.symbols.total() == len(raised)
        assert figures.per_hour(name) == len(raised) * 3600 / figures.recorded_s
    assert told[-1] == figures.ticks == figures.quotes + figures.trades
    assert figures.ticks_per_s > 0


def test_a_run_without_ticks_has_figures():
    figures = RunFigures({"wide": RuleFigures()})
    assert (figures.ticks, figures.recorded_s, figures.ticks_per_s) == (0, 0, 0)
    assert figures.per_hour("wide") == 0


@pytest.mark.slow
def test_alerts_of_a_real_recording_are_those_of_the_oracle(realdata):
    path = realdata / "binance_raw_ws" / "spot_ethusdt_20240808.gz"
    (spec,) = feed_specs([{"type": "replay", "path": str(path)}])

    class Beginning(ReplayedTicks):
        """The first ticks, which are kept: the oracle is slow."""

        kept: list

        def steps(self):
            self.kept = []
            for step in super().steps():
                self.kept.append((step.quotes.copy(), step.trades.copy()))
                yield step
                if sum(len(records) for kept in self.kept for records in kept) > 5000:
                    return

    ticks = Beginning(spec, realdata, MAX_SYMBOLS)
    found, figures = run(ticks, RULES, batch_ticks=100)
    quotes, trades = (np.concatenate(channel) for channel in zip(*ticks.kept, strict=True))
    is_quote = np.zeros(len(quotes) + len(trades), bool)
    is_quote[quotes["g"] - 1] = True
    drawn = np.zeros(len(is_quote), quotes.dtype), np.zeros(len(is_quote), trades.dtype), is_quote
    drawn[0][is_quote], drawn[1][~is_quote] = quotes, trades
    assert len(found) > 10
    assert plain(found) == expected(RULES, drawn, figures.last_ns, ticks.names())
    assert figures.recorded_s == (max(arrivals(*drawn)) - min(arrivals(*drawn))) / S
