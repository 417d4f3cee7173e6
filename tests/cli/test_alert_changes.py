"""Commands of ``marketfeed alerts`` that change the log, while no engine runs."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
import trio
from typer.testing import CliRunner

from marketfeed.alerts.sqlite_log import open_log
from marketfeed.alerts.sqlite_reads import SqliteReader
from marketfeed.cli import app
from marketfeed.core.units import S
from marketfeed.testing_alert_log import NOW_NS
from tests.support.alert_commands import ONE, THREE, TWO, Told, alerts, read, said


def test_acknowledged_alerts_are_settled_and_unknown_ones_named(log):
    told = alerts(log, "ack", "risk", ONE.id, TWO.id, "NOPE")
    assert (told.status, told.err) == (0, "")
    assert told.out.splitlines() == [
        f"acknowledged {ONE.id}",
        f"acknowledged {TWO.id}",
        "unknown NOPE: not this consumer's, or acknowledged before",
    ]
    assert read(log, SqliteReader.dead_letter_counts) == {"risk": 0, "away": 0}
    assert read(log, lambda reader: reader.progress("risk")).settled == {2}


def test_status_1_tells_that_nothing_was_acknowledged(log):
    told = alerts(log, "ack", "away", "nothing", "--json")
    assert (told.status, told.json) == (1, [{"alerts": [], "unknown": ["nothing"]}])
    assert read(log, lambda reader: reader.newest_audit(1))[0].action == "parked"


def test_who_resolves_first_stays_recorded(log):
    told = alerts(log, "resolve", ONE.key, "--by", "ann", "--comment", "the venue\n confirmed")
    assert (told.status, told.err) == (0, "")
    assert told.out.startswith("resolved: wide AAPL, by ann at 20")
    assert told.out.endswith("Z: the venue confirmed\n")
    told = alerts(log, "resolve", ONE.key, "--by", "bob")
    assert told.out.startswith("resolved before: wide AAPL, by ann at ")
    (found,) = alerts(log, "resolve", ONE.key, "--json").json
    assert (found["key"], found["by"], found["comment"]) == (ONE.key, "ann", "the venue confirmed")
    assert said(alerts(log, "resolve", "NOPE", "--by", "ann")) == "no episode has the key 'NOPE'"


def test_the_login_name_is_the_default_of_by(log, monkeypatch):
    monkeypatch.setenv("LOGNAME", "carla")
    (found,) = alerts(log, "resolve", ONE.key, "--json").json
    assert found["by"] == "carla"


def test_dead_letters_are_listed_and_delivered_again(log):
    told = alerts(log, "dead")
    assert told.out.splitlines() == [
        f"2026-09-21T14:13:25.000Z  warning   raised   wide  AAPL  é\\x00  for risk  10 deliveries  {ONE.id}"
    ]
    assert alerts(log, "dead", "--consumer", "away").out == "no dead letters\n"
    (letter,) = alerts(log, "dead", "--consumer", "risk", "--json").json
    assert (letter["id"], letter["consumer"], letter["tries"]) == (ONE.id, "risk", 10)
    assert letter["parked_ns"] == NOW_NS + 5 * S

    told = alerts(log, "requeue", "risk", "NOPE", ONE.id, "--by", "ann")
    assert (told.status, told.out.splitlines()) == (
        0,
        [f"requeued {ONE.id}", "unknown NOPE: no dead letter of this consumer, or not wanted by it any more"],
    )
    (record,) = read(log, lambda reader: reader.newest_audit(1))
    assert (record.action, record.subject, record.by) == ("requeued", "risk", "ann")
    assert alerts(log, "dead", "--json").out == ""


def test_all_dead_letters_are_requeued_without_ids(log):
    assert alerts(log, "requeue", "risk", "--json").json == [{"alerts": [ONE.id]}]
    told = alerts(log, "requeue", "risk")
    assert (told.status, told.out) == (1, "risk has no dead letters that it wants\n")


def test_consumers_are_listed_as_the_log_knows_them(log):
    away, risk = alerts(log, "consumers", "--json").json
    assert away == {
        "consumer": "away",
        "alerts": ["wide", "hot*"],
        "symbols": ["*"],
        "more_symbols": 0,
        "start": "all",
        "unacknowledged": 0,
        "oldest": NOW_NS // 1000,
        "waiting": 3,
        "dead": 0,
        "position": 0,
        "floor": 0,
    }
    figures = {name: risk[name] for name in ("unacknowledged", "waiting", "dead", "position", "floor")}
    assert figures == {"unacknowledged": 1, "waiting": 1, "dead": 1, "position": 2, "floor": 1}
    header, *rows = [line.split() for line in alerts(log, "consumers").out.splitlines()]
    assert header == ["consumer", "state", "unacknowledged", "oldest", "waiting", "dead", "patterns"]
    assert [(row[0], row[1], row[-1]) for row in rows] == [("away", "-", "hot*"), ("risk", "-", "*")]


def test_symbols_of_consumers_are_listed_if_not_all_have_all(log):
    async def entitle():
        async with open_log(log) as opened:
            symbols = [f"S{number:02}" for number in range(30)]
            await opened.use_consumer("away", NOW_NS, "all", ["wide"], symbols)
            await opened.use_consumer("few", NOW_NS, symbols=["BTC*", "MSFT"])
            await opened.use_consumer("none", NOW_NS, symbols=[])

    trio.run(entitle)
    header, *rows = alerts(log, "consumers").out.splitlines()
    assert header.split()[-2:] == ["patterns", "symbols"]
    assert [row.split("  ")[-1].strip() for row in rows] == [
        "S00 S01 S02 S03 S04 and 25 more",
        "BTC* MSFT",
        "-",
        "*",
    ]
    away, *_ = alerts(log, "consumers", "--json").json
    assert (len(away["symbols"]), away["more_symbols"]) == (20, 10)
    assert away["oldest"] == 0  # the alerts of the log are about another symbol


def test_what_was_requeued_is_the_oldest_of_a_consumer(log):
    for ids in ([TWO.id, THREE.id], [ONE.id]):
        alerts(log, "ack", "away", *ids)
    alerts(log, "ack", "risk", TWO.id, THREE.id)
    away, risk = alerts(log, "consumers", "--json").json
    assert (away["oldest"], risk["oldest"]) == (0, 0)
    alerts(log, "requeue", "risk")
    assert alerts(log, "consumers", "--json").json[1]["oldest"] == NOW_NS // 1000
    assert "-" in alerts(log, "consumers").out


def test_a_consumer_is_dropped_without_a_question_if_yes_is_given(log):
    told = alerts(log, "consumers", "drop", "risk", "--yes", "--by", "ann")
    assert (told.status, told.out) == (0, "dropped risk\n")
    assert said(alerts(log, "consumers", "drop", "risk", "--yes")) == "no consumer 'risk'"
    assert alerts(log, "consumers", "drop", "away", "--yes", "--json").json == [{"dropped": "away"}]
    assert alerts(log, "consumers").out == "no consumers\n"
    record = read(log, lambda reader: reader.newest_audit(2))[0]
    assert (record.action, record.subject, record.by) == ("dropped", "risk", "ann")


def test_without_a_terminal_nobody_is_asked(log):
    assert said(alerts(log, "consumers", "drop", "risk")) == "there is no terminal to ask on: use --yes"


@pytest.mark.e2e
@pytest.mark.parametrize(("typed", "status"), [(b"y\n", 0), (b"\n", 1)])
def test_on_a_terminal_consent_is_asked_for(log, typed, status):
    ours, theirs = pty.openpty()
    try:
        arguments = ["alerts", "consumers", "drop", "risk", "--log", str(log)]
        os.write(ours, typed)
        done = subprocess.run(
            [sys.executable, "-m", "marketfeed", *arguments],
            cwd=log.parent,
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == status
    assert "Drop consumer 'risk', with its position" in done.stderr
    left = {consumer.name for consumer in read(log, SqliteReader.consumers)}
    assert left == ({"away"} if status == 0 else {"away", "risk"})


def test_options_before_drop_are_not_lost_silently(log):
    done = CliRunner().invoke(app, ["alerts", "consumers", "--json", "drop", "risk", "--log", str(log)])
    assert said(Told(done)) == "options of drop come after it"


def test_a_notice_is_kept_once_per_key(log):
    options = [
        "--key",
        "k1",
        "--to",
        "risk",
        "--severity",
        "critical",
        "--symbol",
        "AAPL",
        "--data",
        '{"n":[1]}',
    ]
    told = alerts(log, "publish", "stop  now", *options)
    notice = read(log, lambda reader: reader.newest(1)[0].alert)
    assert (told.status, told.out) == (0, f"published: {notice.id}, key k1\n")
    assert (notice.key, notice.to, notice.severity, notice.symbol) == ("k1", "risk", "critical", "AAPL")
    assert (notice.message, notice.data, notice.state) == ("stop now", {"n": [1]}, "notice")
    again = alerts(log, "publish", "again", "--key", "k1", "--to", "risk")
    assert again.out == f"published before: {notice.id}, key k1\n"
    assert said(alerts(log, "publish", "again", "--key", "k1")) == (
        f"the key 'k1' is that of your notice {notice.id} to risk, "
        "and this one is to everybody: use another key"
    )
    assert notice.publisher == ""
    assert read(log, SqliteReader.head) == 4


def test_without_a_key_a_notice_gets_a_random_one(log):
    keys = [alerts(log, "publish", "hello", "--json").json[0]["key"] for _ in range(2)]
    assert len({*keys}) == 2
    assert [entry.alert.key for entry in read(log, lambda reader: reader.newest(2))] == keys


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--data", "{"], "--data: not JSON: Input data was truncated"),
        (["--data", "[1]"], "--data: Expected `object`, got `array`"),
        (["--data", f'{{"text": "{"x" * 17_000}"}}'], "data: at most 16384 bytes of JSON"),
        (["--severity", "loud"], "--severity loud: must be one of info, warning, critical"),
        (["--symbol", "A,B"], "S: not a symbol: 'A,B'"),
        (["--to", "a b"], "a consumer's name must be 1 to 64 printable ASCII characters without space"),
        (["--key", ""], "the body: Expected `str` of length >= 1 - at `$.key`"),
        (["--timeout", "3"], "--timeout: needs --wait-ack"),
        (["--wait-ack"], "--wait-ack: needs --to CONSUMER, which has to acknowledge the notice"),
        (["--wait-ack", "--to", "risk", "--timeout", "nan"], "--timeout: 0 to 300, not nan"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_mistakes_in_a_notice_are_one_line_and_nothing_is_kept(log, options, line):
    assert said(alerts(log, "publish", "hello", *options)) == line
    assert read(log, SqliteReader.head) == 3


def test_only_an_engine_can_wait_for_an_acknowledgement(log):
    line = said(alerts(log, "publish", "hello", "--to", "risk", "--wait-ack"))
    assert line.startswith("--wait-ack: needs an engine, and none holds ")
    assert read(log, SqliteReader.head) == 3


def test_the_audit_trail_is_listed(log):
    alerts(log, "ack", "risk", TWO.id, THREE.id)
    alerts(log, "resolve", ONE.key, "--by", "ann", "--comment", "on it")
    options = ["--rule", "wide", "--for", "1h", "--by", "bob", "--comment", "upgrade"]
    (silence,) = alerts(log, "silence", *options, "--json").json
    header, *rows = alerts(log, "audit").out.splitlines()
    assert header.split() == ["time", "action", "subject", "by", "detail"]
    assert [row.split()[1:] for row in rows] == [
        ["parked", "risk", "-", ONE.id],
        ["acknowledged", "risk", "-", TWO.id, THREE.id],
        ["resolved", ONE.key, "ann", "on", "it"],
        ["silenced", silence["id"], "bob", "upgrade"],
    ]
    assert [one["action"] for one in alerts(log, "audit", "--consumer", "risk", "--json").json] == [
        "parked",
        "acknowledged",
    ]
    (last,) = alerts(log, "audit", "--limit", "1", "--json").json
    assert (last["subject"], last["by"], last["detail"]["rules"]) == (silence["id"], "bob", ["wide"])
    assert alerts(log, "audit", "--subject", "nobody").out == "no records\n"
