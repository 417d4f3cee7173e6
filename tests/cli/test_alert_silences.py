"""``marketfeed alerts`` silence and silences without an engine, and the times that they take."""

from __future__ import annotations

import time

import pytest

from marketfeed.alerts.sqlite_reads import SqliteReader
from marketfeed.cli.alerts_times import age, duration_ns, when_ns
from marketfeed.core.units import DAY_NS, MINUTE_NS, S
from tests.support.alert_commands import alerts, read, said

WHY = ["--by", "ann", "--comment", "upgrade"]


def kept(log):
    return read(log, SqliteReader.silences)


def test_a_silence_begins_now_for_a_duration(log):
    before_ns = time.time_ns()
    told = alerts(log, "silence", "--symbol", "BTC*", "--symbol", "A", "--for", "1h30m", *WHY)
    (silence,) = kept(log)
    assert (silence.rules, silence.symbols) == (("*",), ("BTC*", "A"))
    assert (silence.created_by, silence.comment) == ("ann", "upgrade")
    assert before_ns <= silence.starts_ns <= time.time_ns()
    assert abs(silence.ends_ns - silence.starts_ns - 90 * MINUTE_NS) < 60 * S
    assert told.out.startswith("silenced until 20")
    assert told.out.endswith(f"Z: {silence.id}\n")


def test_a_silence_of_another_day_is_pending_until_it_begins(log):
    options = ["--rule", "wide", "--from", "2150-01-01T10:00+02:00", "--for", "1d", *WHY]
    assert alerts(log, "silence", *options).out.startswith(
        "silenced from 2150-01-01T08:00:00.000Z until 2150-01-02T08:00:00.000Z: "
    )
    options = ["--rule", "w*", "--from", "2150-01-01", "--until", "2150-01-02T00:00", *WHY]
    (told,) = alerts(log, "silence", *options, "--json").json
    assert told["ends"] - told["starts"] == DAY_NS // 1000
    assert (told["state"], told["rules"], told["symbols"]) == ("pending", ["w*"], ["*"])
    assert {silence.starts_ns for silence in kept(log)} == {
        when_ns("2150-01-01T08:00Z"),
        when_ns("2150-01-01"),
    }


def test_silences_are_listed_without_those_that_have_ended(log):
    options = ["--rule", "a", "--from", "2020-01-01", *WHY]
    (active,) = alerts(log, "silence", *options, "--until", "2150-01-01", "--json").json
    (ended,) = alerts(log, "silence", *options, "--for", "1000w", "--json").json
    assert alerts(log, "silence", "--expire", ended["id"], "--by", "bob").out == f"ended {ended['id']}\n"
    assert alerts(log, "silences", "--json").json == [active]
    assert {one["id"]: one["state"] for one in alerts(log, "silences", "--all", "--json").json} == {
        active["id"]: "active",
        ended["id"]: "expired",
    }
    header, row = alerts(log, "silences").out.splitlines()
    assert header.split() == ["state", "from", "until", "rules", "symbols", "by", "comment", "id"]
    assert row.split() == [
        "active", "2020-01-01T00:00:00.000Z", "2150-01-01T00:00:00.000Z", "a", "*", "ann", "upgrade",
        active["id"],
    ]  # fmt: skip
    assert read(log, lambda reader: reader.newest_audit(1))[0].by == "bob"
    assert alerts(log, "silence", "--expire", active["id"], "--json").json == [{"ended": active["id"]}]
    assert alerts(log, "silences").out == "no silences that have not ended\n"


def test_a_log_without_silences_says_so(log):
    assert alerts(log, "silences", "--all").out == "no silences\n"
    assert alerts(log, "silences", "--json").out == ""


def test_the_limit_of_silences_holds_without_an_engine(log, monkeypatch):
    monkeypatch.setattr("marketfeed.alerts.silencing.MOST", 1)
    options = ["--rule", "*", "--for", "1d", *WHY]
    assert alerts(log, "silence", *options).status == 0
    assert said(alerts(log, "silence", *options)) == "there are 1 silences already: end one first"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--rule", "a"], "--until, --for: one of them is required, and not both"),
        (["--rule", "a", "--for", "1h", "--until", "2150-01-01"], "--until, --for: one of them is required"),
        (["--for", "1h"], "--rule, --symbol: at least one is required; --rule '*' for every alert"),
        (["--rule", "a", "--for", "soon"], "--for: 'soon' is not a duration such as 30m, 2h, 1h30m or 1d"),
        (
            ["--rule", "a", "--until", "noon"],
            "--until: 'noon' is not a time in ISO 8601, such as 2026-11-27T",
        ),
        (["--rule", "a", "--until", "2020-01-01"], "ends: must be later than now and than starts"),
        (["--rule", "a", "--until", "2150-01-01", "--from", "2150-01-01"], "ends: must be later than now"),
        (["--rule", "a*b", "--for", "1h"], "rules: a pattern is the name of a rule, the beginning of one"),
        (["--symbol", "A" * 26, "--for", "1h"], "the body: Expected `str` of length <= 25 - at `$.symbols"),
        (["--rule", "a", "--expire", "ID"], "--expire: takes no other option of a silence than --by"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line_and_nothing_is_kept(log, options, line):
    why = [] if "--expire" in options else WHY
    assert said(alerts(log, "silence", *options, *why)).startswith(line)
    assert kept(log) == []


@pytest.mark.parametrize("symbol", ["a*b", "**", "*A", "A B", "A\x01", ""])
def test_what_is_no_pattern_of_symbols_is_refused(log, symbol):
    line = said(alerts(log, "silence", "--symbol", symbol, "--for", "1h", *WHY))
    assert "symbols" in line
    assert kept(log) == []


def test_control_characters_are_refused(log):
    options = ["silence", "--rule", "*", "--for", "1h", "--by", "ann"]
    assert said(alerts(log, *options, "--comment", "\x1b[2J")).startswith(
        "comment: control characters such as"
    )
    assert said(alerts(log, *options, "--comment", " ")).startswith("by, comment")
    assert kept(log) == []


def test_a_reason_is_required(log):
    line = said(alerts(log, "silence", "--rule", "*", "--for", "1h", "--by", "ann"))
    assert line == "--comment: required, as the reason for others"
    line = said(alerts(log, "silence", "--expire", "NOPE", "--by", "ann"))
    assert line == "no silence 'NOPE' that ends later than now"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01", 0),
        ("1970-01-01T00:00:01Z", 1),
        ("1970-01-02 01:00+01:00", 86_400),
        ("2026-11-27T18:00", 1_795_802_400),
        ("1970-01-01T00:00:00.25", 0.25),
    ],
)
def test_times_are_utc_without_an_offset(text, seconds):
    assert when_ns(text) == seconds * S


@pytest.mark.parametrize(
    "text", ["", "now", "1969-12-31", "2200-01-01", "0001-01-01T00:00+05:00", "18:00", "1"]
)
def test_other_texts_are_no_times(text):
    with pytest.raises(ValueError, match=r"ISO 8601|the year must be from 1970 to 2199"):
        when_ns(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1d", 86_400), ("1w", 604_800)],
)
def test_durations(text, seconds):
    assert duration_ns(text) == seconds * S


@pytest.mark.parametrize("text", ["", "5", "h", "-1h", "1 h", "1.5h", "0s", "9999999999s", "99999999w", "١h"])
def test_other_texts_are_no_durations(text):
    with pytest.raises(ValueError, match=r"a duration such as|above 0, and at most 100 years"):
        duration_ns(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0, "0s"), (59, "59s"), (60, "1m"), (7500, "2h 5m"), (86_401, "1d"), (90_000, "1d 1h")],
)
def test_ages_have_two_units(seconds, text):
    assert age(seconds) == text
