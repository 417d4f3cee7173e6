"""An engine with alert rules: what it raises is in the log, over crashes too."""

from __future__ import annotations

import json
import signal
import time

import pytest

from tests.support.admin_client import get
from tests.support.commands import command
from tests.support.process import engine, open_session

pytestmark = pytest.mark.e2e

CONFIG = """
[engine]
workers = {workers}
[[feeds]]
name = "demo"
type = "synthetic"
symbols = ["A", "B"]
rate = 200
[[alerts.rules]]
name = "tight"
type = "spread"
absolute = 1e-9
[[alerts.rules]]
type = "stale"
symbols = ["A"]
after_s = 30.0
"""


def alerts(folder):
    """Return the alerts in the log, as ``alerts list`` prints them."""
    status, out, err = command(folder, "alerts", "list", "--json")
    assert (status, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


def until_logged(folder, count):
    deadline_s = time.monotonic() + 30
    while len(found := alerts(folder)) < count:
        assert time.monotonic() < deadline_s, found
    return found


@pytest.mark.parametrize("workers", [0, 1])
def test_what_rules_find_is_logged_while_the_engine_runs_and_after_it_was_killed(tmp_path, workers):
    with engine(CONFIG.format(workers=workers), tmp_path) as running:
        found = until_logged(tmp_path, 2)
        assert {(one["rule"], one["symbol"], one["state"]) for one in found} == {
            ("tight", "A", "raised"),
            ("tight", "B", "raised"),
        }
        metrics = get(running.admin_port, "/metrics")[2].decode()
        assert 'marketfeed_alerts_total{rule="tight",state="raised"} 2.0' in metrics
        assert "marketfeed_alert_log_writable 1.0" in metrics
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(10)
    assert alerts(tmp_path) == found
    with engine(CONFIG.format(workers=workers), tmp_path):
        again = until_logged(tmp_path, 6)
    assert again[:2] == found
    assert {one["key"] for one in again if one["state"] == "cleared"} == {one["id"] for one in found}
    assert len({one["id"] for one in again}) == len(again)


def test_a_second_engine_with_the_same_log_does_not_start(tmp_path):
    with engine(CONFIG.format(workers=0), tmp_path):
        (tmp_path / "second.toml").write_text(CONFIG.format(workers=0))
        ports = ["--set", "gateway.port=0", "--set", "admin.port=0"]
        status, out, err = command(tmp_path, "serve", "--config", "second.toml", *ports)
        assert (status, out) == (2, "")
        last = err.splitlines()[-1]
        assert last.startswith("marketfeed: ")
        assert "alerts.db" in last


def test_a_file_that_is_no_log_stops_the_start_in_one_line(tmp_path):
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "alerts.db").write_text("not a database, but long enough to look at" * 100)
    (tmp_path / "config.toml").write_text(CONFIG.format(workers=0))
    status, out, err = command(tmp_path, "serve", "--set", "gateway.port=0", "--set", "admin.port=0")
    assert (status, out) == (2, "")
    assert "alerts.db" in err.splitlines()[-1]
    # Without alerts only if that is configured.
    with (
        engine(CONFIG.format(workers=0), tmp_path, "--set", "alerts.enabled=false") as running,
        open_session(running.url) as ws,
    ):
        ws.send(json.dumps({"action": "subscribe", "quotes": ["A"]}))
        while not any(message["T"] == "q" for message in json.loads(ws.recv(timeout=20))):
            pass
        assert get(running.admin_port, "/readyz")[0] == 200


def test_without_rules_there_is_no_log(tmp_path):
    with engine('[[feeds]]\ntype = "synthetic"\n', tmp_path) as running:
        assert "marketfeed_alerts" not in get(running.admin_port, "/metrics")[2].decode()
    assert not (tmp_path / "var" / "alerts.db").exists()
