"""An engine with alert rules: what it raises is in the log, over crashes too."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
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


def until_raised(running, count):
    """Wait until the metrics count so many alerts in the log."""
    deadline_s, raised = time.monotonic() + 60, 0.0
    while raised < count:
        assert time.monotonic() < deadline_s, raised
        metrics = get(running.admin_port, "/metrics")[2].decode()
        raised = sum(map(float, re.findall(r"^marketfeed_alerts_total\{.*\} (.*)$", metrics, re.MULTILINE)))


RECORDED = """
[[feeds]]
name = "demo"
type = "synthetic"
symbols = 4
rate = 2000
start_sessions = 1
[[alerts.rules]]
type = "move"
percent = 0.01
window_s = 0.2
[[alerts.rules]]
name = "odd"
type = "anomaly"
field = "return"
z = 2.0
half_life_s = 0.2
cooldown_s = 0.05
"""


def test_rules_over_a_recording_raise_what_the_engine_raised(tmp_path):
    with engine(RECORDED, tmp_path) as running:
        argv = [sys.executable, "-m", "marketfeed", "record", "--url", running.url, "--out", "day.mfr.zst"]
        with subprocess.Popen([*argv, "--tier", "vip"], cwd=tmp_path, stderr=subprocess.PIPE) as recorder:
            until_raised(running, 200)
            recorder.send_signal(signal.SIGINT)
            assert recorder.wait(30) == 0
        assert running.stop() == 0
    status, out, _ = command(tmp_path, "alerts", "test", "day.mfr.zst", "--json")
    *found, last = map(json.loads, out.splitlines())
    assert status == 0
    end_ns = last["summary"]["last_ns"]  # the recording may have some ticks of this time only

    def before_end(some):
        return [(one["id"], one["value"], one["suppressed"]) for one in some if one["r_ns"] < end_ns]

    assert before_end(found) == before_end(alerts(tmp_path))
    assert before_end(found)


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
