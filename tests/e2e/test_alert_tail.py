"""``marketfeed alerts tail`` at a real engine: what it prints and acknowledges, also after a restart."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.commands import command
from tests.support.ports import free_port
from tests.support.process import engine

pytestmark = pytest.mark.e2e

WAIT_S = 60
CONFIG = """
[alerts]
enabled = true
[[feeds]]
name = "demo"
type = "synthetic"
symbols = ["A"]
rate = 500
"""
RULE = """
[[alerts.rules]]
name = "moves"
type = "move"
percent = 0.01
window_s = 0.2
"""


@contextmanager
def tail(folder, *arguments):
    """Run the command, and end it; yield its process."""
    argv = [sys.executable, "-m", "marketfeed", "alerts", "tail", *arguments]
    with subprocess.Popen(
        argv, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def publish(port, key, wait=True, **more):
    """Publish a notice to the consumer ``desk``; return the status and the notice's id."""
    query = f"?wait=ack&timeout_s={WAIT_S}" if wait else ""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2 * WAIT_S)
    body = {"key": key, "msg": f"order {key} is filled", **more}
    try:
        connection.request(
            "POST", f"/v1/alerts{query}", json.dumps(body), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        return response.status, json.loads(response.read())["id"]
    finally:
        connection.close()


def test_a_live_view_prints_alerts_of_rules_and_notices_as_they_come(tmp_path):
    with engine(CONFIG + RULE, tmp_path) as running:
        with tail(tmp_path, "--url", f"http://127.0.0.1:{running.port}") as live:
            # The first alert of a rule shows that the engine has subscribed it.
            assert " moves  A  A: " in live.stdout.readline()
            status, own = publish(running.port, "17", wait=False, sev="critical")
            assert status == 201
            line = next(line for line in live.stdout if own in line)
            assert line.split()[1:4] == ["critical", "notice", "notice"]
            assert "order 17 is filled" in line
            live.send_signal(signal.SIGINT)
            _, said = live.communicate(timeout=WAIT_S)
            assert (live.returncode, said) == (0, "")
        # Other commands see the same alert.
        listed = command(tmp_path, "alerts", "show", own, "--json")[1]
        assert json.loads(listed)["key"] == "17"


def test_the_commented_rule_of_the_shipped_configuration_raises_alerts_that_it_prints(tmp_path):
    text = (Path(__file__).parents[2] / "config.toml").read_text()
    before, rule, after = re.split(r"(?m)(^# \[\[alerts\.rules\]\](?:.*\n# )+.*\n)", text)
    shipped = before + re.sub(r"(?m)^# ", "", rule) + after
    with (
        engine(shipped, tmp_path) as running,
        tail(tmp_path, "--url", f"http://127.0.0.1:{running.port}") as live,
    ):
        assert " jump  SY" in live.stdout.readline()


def test_a_reader_that_leaves_ends_it_without_another_alert(tmp_path):
    with engine(CONFIG, tmp_path) as running:
        options = ("--consumer", "desk", "--from-start", "--url", running.url)
        with tail(tmp_path, *options) as live:
            publish(running.port, "1", wait=False)
            assert "order 1 is filled" in live.stdout.readline()
            live.stdout.close()
            assert live.wait(WAIT_S) == 0
            assert live.stderr.read() == ""


def test_a_consumer_loses_nothing_when_the_engine_restarts_and_acknowledges_what_it_printed(tmp_path):
    port = f"gateway.port={free_port()}"
    options = ("--consumer", "desk", "--ack", "--from-start", "--json")
    with engine(CONFIG, tmp_path, "--set", port) as running:
        publish(running.port, "0", wait=False, to="desk")  # before the consumer exists
        with tail(tmp_path, *options, "--url", running.url) as durable:
            assert publish(running.port, "1", to="desk")[0] == 200
            assert running.stop() == 0
            with engine(CONFIG, tmp_path, "--set", port) as again:
                assert publish(again.port, "2", to="desk")[0] == 200
                assert publish(again.port, "3", to="desk")[0] == 200
                durable.send_signal(signal.SIGINT)
                out, said = durable.communicate(timeout=WAIT_S)
                assert durable.returncode == 0
                assert [json.loads(line)["key"] for line in out.splitlines()] == ["0", "1", "2", "3"]
                assert "reconnecting" in said.splitlines()[0]


def test_an_engine_without_alerts_and_one_that_is_not_there_are_one_line(tmp_path):
    with engine(CONFIG.replace("true", "false"), tmp_path) as running:
        status, out, err = command(tmp_path, "alerts", "tail", "--url", running.url)
        assert (status, out) == (1, "")
        assert err.startswith("marketfeed alerts tail: error 410: alerts are off in this engine")
    status, out, err = command(tmp_path, "alerts", "tail", "--url", running.url)
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith(f"marketfeed alerts tail: cannot connect to {running.url}: ")
