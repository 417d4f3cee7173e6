"""``marketfeed alerts test``: what it prints for a recording, and how it ends."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest

from marketfeed.alerts.rules import RuleSet, rule_specs
from marketfeed.cli import rule_trial
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
name = "very-wide"
type = "spread"
severity = "critical"
bps = 80.0
[[alerts.rules]]
name = "wide"
type = "spread"
bps = 50.0
cooldown_s = 2.5
inhibited_by = ["very-wide"]
[[alerts.rules]]
name = "down"
type = "feed_down"
after_s = 1.0
"""
# Of a symbol per second, in bps.
SPREADS = {"A": [10, 55, 10, 60, 10, 10, 90, 70, 10], "B": [10, 10, 10, 10, 10, 10, 10, 70, 70]}


def quotes_of(spreads):
    names = list(spreads)
    rows = [(second, names.index(name), bps) for name in names for second, bps in enumerate(spreads[name])]
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
        "".join(f"{one['ts_recv'] // S},{one['bid_px'] / S},1,{one['ask_px'] / S},1\n" for one in own)
    )
    return tmp_path


def run(folder, recording="day.mfr", chosen=(), set_=(), **more):
    """Return status, lines of stdout and lines of stderr."""
    loaded = load(folder / "config.toml", list(set_))
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = rule_trial.run(loaded, folder / recording, list(chosen), **more)
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
        ("wide", "A", "raised", "inhibited"),
        ("very-wide", "A", "cleared", None),
        ("wide", "B", "raised", None),
        ("wide", "A", "cleared", "inhibited"),
    ]
    assert alerts[3]["suppressed"] == 1
    assert [one["r_ns"] for one in alerts] == [START_NS + second * S for second in (1, 2, 6, 6, 7, 7, 8)]
    assert summary["rules"]["wide"] == {
        "raised": 3,
        "cleared": 2,
        "open": 1,
        "per_hour": 1350.0,
        "suppressed": 1,
        "inhibited": 1,
        "symbols": 2,
        "most_frequent": {"symbol": "A", "raised": 2},
        "failed": None,
    }
    figures = {name: summary[name] for name in ("quotes", "trades", "symbols", "recorded_s", "damage")}
    assert figures == {"quotes": 18, "trades": 0, "symbols": 2, "recorded_s": 8.0, "damage": None}


def test_lines_are_followed_by_a_table_of_the_rules(folder):
    status, out, err = run(folder)
    assert (status, err) == (0, NOTES)
    assert len(out) == 7 + 1 + 4
    assert out[3].startswith(
        "2026-09-21T14:13:26.000Z  warning   raised   wide       A  "
        "A: spread 90 bps, threshold 50 bps  inhibited  01"
    )
    assert out[7].startswith(
        "day.mfr: 18 quotes, 0 trades, 2 symbols, "
        "2026-09-21T14:13:20.000Z to 2026-09-21T14:13:28.000Z, 8.0 s in "
    )
    assert out[8].split()[:3] == ["rule", "raised", "cleared"]
    assert [line.split() for line in out[9:]] == [
        ["very-wide", "1", "1", "0", "450.0", "0", "0", "1", "A", "1"],
        ["wide", "3", "2", "1", "1,350.0", "1", "1", "2", "A", "2"],
        ["down", "0", "0", "0", "0.0", "0", "0", "0"],
    ]


def test_a_changed_threshold_changes_the_result(folder):
    counts = {}
    for bps in (50, 60, 75):
        _, out, _ = run(folder, set_=[f"alerts.rules.1.bps={bps}"], as_json=True)
        alerts, summary = objects(out)
        assert all(one["threshold"] == bps for one in alerts if one["rule"] == "wide")
        counts[bps] = summary["rules"]["wide"]["raised"]
    assert counts == {50: 3, 60: 2, 75: 1}


def test_a_chosen_rule_is_shown_alone_and_still_inhibited_by_another(folder):
    _, out, err = run(folder, chosen=["wide", "wide"], as_json=True)
    alerts, summary = objects(out)
    assert err == []
    assert [one.get("mark") for one in alerts] == [None, None, "inhibited", None, "inhibited"]
    assert list(summary["rules"]) == ["wide"]


def test_the_summary_alone(folder):
    _, out, _ = run(folder, summary_only=True)
    assert [line.split()[0] for line in out] == ["day.mfr:", "rule", "very-wide", "wide", "down"]
    _, out, _ = run(folder, summary_only=True, as_json=True)
    alerts, summary = objects(out)
    assert alerts == []
    assert summary["rules"]["wide"]["raised"] == 3


def test_a_file_of_a_venue_is_read_with_the_keys_of_its_feed(folder):
    _, out, err = run(folder, "day.csv", feed="table", as_json=True)
    alerts, summary = objects(out)
    assert err == NOTES
    assert summary["quotes"] == 9
    _, out, _ = run(folder, as_json=True)
    same = [one for one in objects(out)[0] if one["symbol"] == "A"]
    assert [(one["rule"], one["state"], one["r_ns"]) for one in alerts] == [
        (one["rule"], one["state"], one["r_ns"]) for one in same
    ]


def test_patterns_without_a_symbol_and_events_are_noted(folder):
    path = folder / "day.csv"
    path.write_text(path.read_text() + "not,a,row,at,all\n")
    _, _, err = run(folder, "day.csv", feed="table", set_=['alerts.rules.1.symbols=["A", "X*"]'])
    assert err[:2] == [
        *NOTES,
        'note: alerts.rules.1.symbols: "X*" matches no symbol yet (rule "wide")',
    ]
    assert err[2].startswith("note: counted while reading: 1 ")


def test_a_cut_recording_has_figures_and_status_1(folder):
    path = folder / "day.mfr"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    status, out, err = run(folder, as_json=True)
    alerts, summary = objects(out)
    assert (status, len(alerts)) == (1, 7)
    assert "cut short" in summary["damage"]
    assert err == [*NOTES, summary["damage"]]


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        ("", {"chosen": ["wid"]}, "--rule wid: {}/config.toml has no rule of this name; did you mean wide?"),
        (
            "",
            {"chosen": ["x"]},
            "--rule x: {}/config.toml has no rule of this name; one of very-wide, wide, down",
        ),
        ("", {"recording": "gone.mfr"}, "{}/gone.mfr: No such file or directory"),
        ("", {"recording": "gone.csv", "feed": "table"}, "path: {}/gone.csv: No such file or directory"),
        ("", {"feed": "demo"}, "--feed demo: {}/config.toml has no feed of this name and type replay"),
        ("", {"format": "odd"}, "format: 'odd' is not one of"),
        ("", {"set_": ["alerts.rules.1.bps=-1"]}, "--set alerts.rules.1.bps"),
        ("[[feeds]]\ntype = 'synthetic'\n", {}, "{}/config.toml has no [[alerts.rules]]: add one"),
        (
            CONFIG + "[[alerts.rules]]\ntype = 'price_band'\npercent = 1.0\nreference = 'gone.csv'\n",
            {},
            "{}/config.toml: alerts.rules.3.reference: ",
        ),
    ],
)
def test_mistakes_are_one_line(folder, change, arguments, said):
    if change:
        (folder / "config.toml").write_text(change)
    with pytest.raises((ConfigError, RecordingError)) as caught:
        run(folder, **arguments)
    (line,) = str(caught.value).splitlines()
    assert said.format(folder) in line


def test_a_rule_that_fails_is_reported_and_the_others_go_on(folder, monkeypatch):
    def evaluate(self, ticks):
        raise RuntimeError("odd")

    loaded = load(folder / "config.toml", [])
    (spec,) = (one for one in rule_specs(loaded.config.alerts.rules) if one.common.name == "down")
    monkeypatch.setattr(spec.factory, "evaluate", evaluate)
    status, out, err = run(folder, as_json=True)
    alerts, summary = objects(out)
    assert (status, len(alerts)) == (1, 7)
    assert "RuntimeError: odd" in summary["rules"]["down"]["failed"]
    assert err[1].startswith("rule down failed, and is not evaluated to the end: RuntimeError: odd")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("as_json", [False, True])
def test_on_a_terminal_a_bar_shows_how_far_it_is_and_the_lines_stay_whole(folder, monkeypatch, as_json):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = Terminal()
    loaded = load(folder / "config.toml", [])
    with redirect_stdout(screen), redirect_stderr(screen):
        assert rule_trial.run(loaded, folder / "day.mfr", [], as_json=as_json) == 0
    shown = screen.getvalue()
    assert ("ticks/s" in shown.partition("18 quotes")[0]) != as_json
    assert shown.count("spread 90 bps, threshold 50 bps") == 1


def test_a_reader_that_leaves_ends_it(folder, monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    with redirect_stdout(Closed()), pytest.raises(BrokenPipeError):
        rule_trial.run(load(folder / "config.toml", []), folder / "day.mfr", [], as_json=True)


@pytest.mark.e2e
def test_the_command_has_status_0_or_2(folder):
    (folder / "odd.mfr").write_text("no recording, but long enough to be looked at")
    status, out, err = command(folder, "alerts", "test", "day.mfr", "--rule", "wide", "--summary")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1].split()[:3] == ["wide", "3", "2"]
    status, out, err = command(folder, "alerts", "test", "odd.mfr")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith("marketfeed: odd.mfr is not a recording")
