"""``marketfeed usage`` over a file, without an engine."""

from __future__ import annotations

import csv
import io
import json
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from marketfeed.access.usage import Unwritten, User, day_of
from marketfeed.access.usage_file import UsageWriter
from marketfeed.access.usage_report import day_text
from marketfeed.cli import app

NAMES = ["BTC-USD", "BTC-EUR", "ETH-USD"]
COUNTS = {("vip", "quotes"): (3, 30), ("vip", "trades"): (2, 25)}


@pytest.fixture
def file(tmp_path):
    path, today = tmp_path / "access.db", day_of(time.time())
    writer = UsageWriter(path)
    some, one = np.array([0, 1, 2], "<u4").tobytes(), np.array([0], "<u4").tobytes()
    writer.write(
        {
            (today, User("acme", "ann")): Unwritten(dict(COUNTS), 2, {some}),
            (today, User("acme", "=cmd()")): Unwritten(dict(COUNTS), 1, {one}),
            (today - 1, User("beta", "ann")): Unwritten({}, 1, {one}),
        },
        NAMES,
    )
    writer.close()
    return path


def run(*arguments):
    done = CliRunner().invoke(app, ["usage", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_a_table_of_users(file):
    status, out, _ = run("--file", file)
    assert status == 0
    head, first, second = out.splitlines()
    assert head.split() == ["day", "tenant", "user", "peak", "symbols", "quotes", "trades", "alerts", "bytes"]
    assert first.split()[1:] == ["acme", "=cmd()", "1", "1", "3", "2", "0", "55"]
    assert second.split()[1:] == ["acme", "ann", "2", "3", "3", "2", "0", "55"]
    assert run("--file", file, "--day", "2020-01-01") == (0, "no usage\n", "")


def test_csv_has_a_row_per_tier_and_channel_that_no_spreadsheet_runs(file):
    status, out, _ = run("--file", file, "--csv", "--days", 2)
    assert status == 0
    rows = list(csv.reader(io.StringIO(out)))
    assert rows[0] == ["day", "tenant", "user", "peak", "symbols", "tier", "channel", "ticks", "bytes"]
    assert rows[1][1:] == ["beta", "ann", "1", "1", "", "", "0", "0"]
    assert rows[2][1:] == ["acme", "'=cmd()", "1", "1", "vip", "quotes", "3", "30"]
    assert len(rows) == 1 + 1 + 2 + 2


def test_reports_by_tenant_and_by_symbols(file):
    _, out, _ = run("--file", file, "--by", "tenant", "--json")
    assert json.loads(out)["users"] == 2
    _, out, _ = run("--file", file, "--by", "tenant", "--csv")
    assert out.splitlines()[0] == "day,tenant,users,peak,symbols,tier,channel,ticks,bytes"
    _, out, _ = run("--file", file, "--by", "symbols", "--prefix", 3, "--csv", "--days", 2)
    today, yesterday = (day_text(day_of(time.time()) - back) for back in (0, 1))
    assert out.splitlines() == [
        "day,prefix,users,tenants,symbols",
        f"{yesterday},BTC,1,1,1",
        f"{today},BTC,2,1,2",
        f"{today},ETH,1,1,1",
    ]
    _, out, _ = run("--file", file, "--by", "symbols", "--prefixes", "BTC-E,XRP")
    assert [line.split()[1:] for line in out.splitlines()[1:]] == [
        ["BTC-E", "1", "1", "1"],
        ["XRP", "0", "0", "0"],
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--day", "monday"], "--day: today, yesterday, or a day"),
        (["--csv", "--json"], "--csv: not together with --json"),
        (["--prefix", "2"], "--prefix: only with by symbols"),
        (["--tenant", "\udcff"], "an argument is not UTF-8 text"),
    ],
)
def test_mistakes_are_told(file, arguments, told):
    status, out, err = run("--file", file, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"marketfeed: {told}")


def test_the_file_is_that_of_the_configuration(file, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text("[auth]\npath = 'access.db'\n")
    assert run("--config", config)[1].count("acme") == 2
    status, _, err = run("--config", config, "--set", "auth.path=none.db")
    assert status == 2
    assert "there is no file of access" in err
