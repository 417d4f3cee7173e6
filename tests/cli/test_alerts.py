"""``marketfeed alerts`` and the alert rules of a configuration, as a shell sees them."""

from __future__ import annotations

import json

import pytest

from marketfeed.alerts.alert import Alert, alert_id
from marketfeed.alerts.sqlite_log import open_log
from marketfeed.core.units import S
from tests.support.commands import command

pytestmark = pytest.mark.e2e

AT_NS = 1_700_000_000 * S
FEED = '[[feeds]]\ntype = "synthetic"\nsymbols = ["AAPL"]\n'


def alert(rule, symbol, severity, second):
    at_ns = AT_NS + second * S
    found = alert_id(rule, symbol, "raised", at_ns, at_ns)
    return Alert(
        id=found,
        key=found,
        rule=rule,
        symbol=symbol,
        severity=severity,
        r_ns=at_ns,
        message="12 is\x1b[2J wide",
    )


@pytest.fixture
async def logged(tmp_path):
    """Three alerts in the log of the default configuration."""
    alerts = [
        alert("wide", "AAPL", "warning", 0),
        alert("wide", "BTCUSD", "critical", 1),
        alert("hot", "A", "info", 2),
    ]
    async with open_log(tmp_path / "var" / "alerts.db") as log:
        await log.append(alerts, AT_NS, {alerts[1].id: "inhibited"})
    return alerts


async def test_alerts_are_listed_oldest_first(tmp_path, logged):
    status, out, err = command(tmp_path, "alerts", "list")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[-1] for line in lines] == [one.id for one in logged]
    assert lines[1].split()[:5] == ["2023-11-14T22:13:20.000Z", "critical", "raised", "wide", "BTCUSD"]
    assert "inhibited" in lines[1]
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--rule", "wide"], [0, 1]),
        (["--symbol", "A*", "--rule", "w*"], [0]),
        (["--severity", "critical", "--severity", "info"], [1, 2]),
        (["--limit", "1"], [2]),
        (["--rule", "none"], []),
    ],
)
async def test_options_choose_alerts(tmp_path, logged, options, expected):
    status, out, _ = command(tmp_path, "alerts", "list", "--json", *options)
    assert status == 0
    assert [json.loads(line)["id"] for line in out.splitlines()] == [logged[i].id for i in expected]


async def test_one_alert_is_shown_with_its_episode(tmp_path, logged):
    status, out, _ = command(tmp_path, "alerts", "show", logged[0].id, "--json")
    shown = json.loads(out)
    assert (status, shown["symbol"], shown["position"]) == (0, "AAPL", 1)
    assert shown["episode"]["key"] == logged[0].id
    status, out, _ = command(tmp_path, "alerts", "show", logged[0].id)
    rows = {name: value.strip() for name, _, value in (line.partition(" ") for line in out.splitlines())}
    assert status == 0
    assert rows["r_ns"] == "2023-11-14T22:13:20.000Z"
    assert rows["episode.rule"] == "wide"


async def test_the_publisher_of_a_notice_is_shown(tmp_path, logged):
    notice = Alert(id="N", key="k", rule="notice", state="notice", publisher='["desk","ann"]')
    async with open_log(tmp_path / "var" / "alerts.db") as log:
        await log.append([notice], AT_NS)
    _, out, _ = command(tmp_path, "alerts", "show", "N")
    assert ["publisher", '["desk","ann"]'] in [line.split() for line in out.splitlines()]
    _, out, _ = command(tmp_path, "alerts", "list", "--json")
    assert [json.loads(line).get("publisher") for line in out.splitlines()] == [None] * 3 + ['["desk","ann"]']


async def test_mistakes_are_one_line(tmp_path, logged):
    for arguments, said in (
        (["show", "NOPE"], "NOPE: the log has no such alert"),
        (["list", "--severity", "loud"], "--severity loud: must be one of info, warning, critical"),
        (["list", "--log", "gone.db"], "gone.db"),
    ):
        status, out, err = command(tmp_path, "alerts", *arguments)
        assert (status, out) == (2, "")
        assert said in err
        assert len(err.splitlines()) == 1


def check(tmp_path, text):
    (tmp_path / "config.toml").write_text(text + FEED)
    return command(tmp_path, "serve", "--check")


def test_mistakes_in_rules_are_found_by_check_and_name_the_rule(tmp_path):
    rules = '[[alerts.rules]]\ntype = "spread"\nbsp = 5.0\n[[alerts.rules]]\nname = "b"\ntype = "sprad"\n'
    status, _, err = check(tmp_path, rules)
    assert status == 2
    assert "config.toml: alerts.rules.0.bsp: unknown key; did you mean bps?" in err
    assert "config.toml: alerts.rules.1.type: unknown rule type" in err


def test_a_log_that_cannot_be_written_is_a_mistake_if_there_are_rules(tmp_path):
    rule = '[[alerts.rules]]\ntype = "spread"\nbps = 5.0\n'
    status, _, err = check(tmp_path, f'[alerts]\npath = "."\n{rule}')
    assert status == 2
    assert "alerts.path: " in err
    assert check(tmp_path, '[alerts]\npath = "."\n')[0] == 0


def test_a_pattern_without_a_symbol_is_a_warning(tmp_path):
    rule = '[[alerts.rules]]\nname = "wide"\ntype = "spread"\nbps = 5.0\nsymbols = ["AAPL", "BTC*"]\n'
    status, out, err = check(tmp_path, rule)
    assert (status, out) == (0, "config ok: config.toml, 1 feed, 3 tiers\n")
    where, what = "config.toml: alerts.rules.0.symbols", '"BTC*" matches no symbol yet (rule "wide")'
    assert err == f"marketfeed: warning: {where}: {what}\n"
