"""``marketfeed alerts test``: what it prints for a recording, and how it ends."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest

from marketfeed.alerts.rules import RuleSet, rule_specs
from marketfeed.cli import alerts_test
from marketfeed.config.schema import load
from marketfeed.core.binary import quotes_frame, symbols_frame
from marketfeed.core.records import QUOTE, TRADE
from marketfeed.errors import ConfigError, RecordingError
from tests.support.commands import command
from tests.support.recordings import START_NS, S, write

CONFIG = """
[[feeds]]
name = "table"
type = "replay"
format = "csv"
path = "day.csv"
symbol = "A"
time = "s"
columns = { time = 0, bid = 1, bid_size = 2, ask = 3, ask_size = 4 }
[[feeds]]
name = "demo"
type = "synthetic"
[[alerts.rules]]
name = "wide"
type = "spread"
bps = 50.0
cooldown_s = 2.5
inhibited_by = ["very-wide"]
[[alerts.rules]]
name = "very-wide"
type = "spread"
severity = "critical"
bps = 80.0
[[alerts.rules]]
name = "down"
type = "feed_down"
after_s = 1.0
"""
# Of a symbol per second, in bps.
SPREADS = {"A": [10, 55, 10, 60, 10, 10, 90, 70, 10], "B": [10, 10, 10, 10, 10, 10, 10, 70, 70]}


def quotes_of(spreads):
    names = list(spreads)
    rows = [
        (second, names.index(name), bps) for name in names for second, bps in enumerate(spreads[name])
    ]
    records = np.zeros(len(rows), QUOTE)
    for record, (second, number, bps) in zip(records, sorted(rows), strict=True):
        record["symbol"], record["ts_recv"] = number, START_NS + second * S
        mid = 100 * S
        record["bid_px"], record["ask_px"] = mid - bps * S // 200, mid + bps * S // 200
        record["bid_sz"] = record["ask_sz"] = 1
    records["g"] = 1 + np.arange(len(records))
    return records


@pytest.fixture
def folder(tmp_path):
    """A configuration and the same ticks in three formats."""
    (tmp_path / "config.toml").write_text(CONFIG)
    records = quotes_of(SPREADS)
    frames = [symbols_frame({name: number for number, name in enumerate(SPREADS)}, 1)]
    frames.append(quotes_frame(records, 2))
    for name in ("day.mfr", "day.mfr.zst"):
        write(tmp_path / name, frames)
    own = records[records["symbol"] == 0]
    (tmp_path / "day.csv").write_text(
        "".join(
            f"{one['ts_recv'] // S},{one['bid_px'] / S},1,{one['ask_px'] / S},1\n" for one in own
        )
    )
    return tmp_path


def run(folder, recording="day.mfr", chosen=(), set_=(), **more):
    """Return status, lines of stdout and lines of stderr."""
    loaded = load(folder / "config.toml", list(set_))
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = alerts_test.run(loaded, folder / recording, list(chosen), **more)
    return status, out.getvalue().splitlines(), err.getvalue().splitlines()


def objects(lines):
    *alerts, last = map(json.loads, lines)
    return alerts, last["summary"]


NOTES = ["note: down raises nothing here: the feed of a recording is always live"]


@pytest.mark.parametrize("recording", ["day.mfr", "day.mfr.zst"])
def test_json_has_every_alert_that_the_rules_raise(folder, recording):
    status, out, err = run(folder, recording, as_json=True)
    alerts, summary = objects(out)
    assert (status, err) == (0, NOTES)
    loaded = load(folder / "config.toml", [])
    rules = RuleSet(rule_specs(loaded.config.alerts.rules), 16)
    rules.learn(SPREADS)
    expected = rules.evaluate(quotes_of(SPREADS), np.zeros(0, TRADE))
    assert [one["id"] for one in alerts] == [alert.id for alert, _ in expected]
    assert [(one["rule"], one["symbol"], one["state"], one.get("mark")) for one in alerts] == [
        ("wide", "A", "raised", None),
        ("wide", "A", "cleared", None),
        ("very-wide", "A", "raised", None),
        ("wide", "A", "raised", None),
        ("very-wide", "A", "cleared", None),
        ("wide", "B", "raised", None),
        ("wide", "A", "cleared", None),
    ]
    assert alerts[3]["suppressed"] == 1
    assert [one["r_ns"] for one in alerts] == [START_NS + second * S for second in (1, 2, 6, 6, 7, 7, 8)]
    assert summary["rules"]["wide"] == {
        "raised": 3,
        "cleared": 2,
        "open": 1,
        "per_hour": 1350.0,
        "suppressed": 1,
        "inhibited": 0,
        "symbols": 2,
        "most_frequent": {"symbol": "A", "raised": 2},
        "failed": None,
    }
    figures = {name: summary[name] for name in ("quotes", "trades", "symbols", "recorded_s", "damage")}
    assert figures == {"quotes": 18, "trades": 0, "symbols": 2, "recorded_s": 8.0, "damage": None}
