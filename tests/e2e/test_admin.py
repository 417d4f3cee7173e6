"""The admin listener of a real engine: metrics that agree with what subscribers got."""

from __future__ import annotations

import json
import platform
import signal
import socket

import pytest

from marketfeed import __version__
from tests.support.admin_client import SYNTHETIC, get, samples
from tests.support.conformance import connect
from tests.support.process import engine, open_session


def test_metrics_health_and_sessions(tmp_path):
    with engine(SYNTHETIC, tmp_path) as running, open_session(running.url) as ws:
        ws.send('{"action":"subscribe","quotes":["*"],"trades":["*"]}')
        got = 0
        while got < 500:
            got += sum(m["T"] in ("q", "t") and "snap" not in m for m in json.loads(ws.recv()))
        status, headers, text = get(running.admin_port, "/metrics")
        assert status == 200
        assert headers["content-type"].startswith("text/plain")
        found = samples(text)
        assert found["marketfeed_sessions", "vip", "websocket"] == 1
        assert found["marketfeed_clients", "1", "none"] == 1
        assert found["marketfeed_delivered_total", "vip"] >= got
        assert found["marketfeed_matched_total", "vip"] == sum(
            found[f"marketfeed_{name}", "vip"]
            for name in ("delivered_total", "conflated_total", "lost_total", "pending", "abandoned_total")
        )
        assert found["marketfeed_ticks_total", "quotes", "demo"] > 400
        assert found["marketfeed_feed_state", "demo", "live"] == 1
        assert found["marketfeed_flush_seconds_count",] > 0
        status, _, text = get(running.admin_port, "/v1/sessions")
        (row,) = json.loads(text)["shown"]
        assert (row["tier"], row["state"], row["slow"], row["symbols"]["quotes"]) == ("vip", "live", None, 10)
        assert get(running.admin_port, "/healthz")[0] == 200
        assert json.loads(get(running.admin_port, "/readyz")[2])["feeds"] == {"demo": "live"}


PUSH = '[[feeds]]\nname = "{0}"\ntype = "push"\nlisten = "./{0}/push.sock"\n'


def test_ready_is_whether_subscribers_can_be_served(tmp_path):
    (tmp_path / "asked").mkdir()
    (tmp_path / "extra").mkdir()
    for name in ("asked", "extra"):  # no socket can be had there: both feeds are down
        (tmp_path / name / "push.sock").write_text("a file")
    config = SYNTHETIC + PUSH.format("extra")
    with engine(config, tmp_path) as running:
        status, body = readiness(running, lambda body: body["feeds"]["extra"] == "down")
        assert (status, body["status"], body["problems"]) == (200, "ready", [])
        assert [text.partition(" is ")[0] for text in body["warnings"]] == ["feed extra"]
        found = samples(get(running.admin_port, "/metrics")[2])
        assert (found["marketfeed_ready",], found["marketfeed_warning", "feed_down", "extra"]) == (1, 1)
        (tmp_path / "config.toml").write_text(config + PUSH.format("asked") + "required = true\n")
        running.process.send_signal(signal.SIGHUP)
        status, body = readiness(running, lambda body: body["feeds"].get("asked") == "down")
        assert (status, body["status"], len(body["problems"])) == (503, "not ready", 1)
        found = samples(get(running.admin_port, "/metrics")[2])
        assert (found["marketfeed_ready",], found["marketfeed_problem", "feed_down", "asked"]) == (0, 1)
        (tmp_path / "config.toml").write_text("[limits\n")
        running.process.send_signal(signal.SIGHUP)
        _, body = readiness(running, lambda body: len(body["warnings"]) == 2)
        assert "not TOML" in body["warnings"][1]


def readiness(running, found):
    """Return the answer of /readyz, once ``found(body)``."""
    while True:
        status, _, text = get(running.admin_port, "/readyz")
        if found(body := json.loads(text)):
            return status, body
        assert running.process.poll() is None


def test_what_runs_is_told_by_build_info(tmp_path):
    with engine(SYNTHETIC, tmp_path) as running:
        found = samples(get(running.admin_port, "/metrics")[2])
    version = platform.python_version()
    assert found["marketfeed_build_info", "1", version, __version__] == 1


def test_clients_are_counted_by_protocol_and_sdk_with_workers_too(tmp_path):
    with (
        engine(SYNTHETIC, tmp_path, "--set", "engine.workers=2") as running,
        connect(running.url, user_agent_header="marketfeed-py/1.2") as one,
        connect(running.url, user_agent_header="marketfeed-py/1.2 (CPython)") as two,
        connect(running.url, user_agent_header="other/1.2") as three,
    ):
        for ws in (one, two, three):
            ws.recv(timeout=10)  # each has been let in
        found = samples(get(running.admin_port, "/metrics")[2])
        clients = {key[2]: value for key, value in found.items() if key[0] == "marketfeed_clients"}
        assert clients == {"marketfeed-py/1.2": 2, "none": 1}


@pytest.mark.parametrize("workers", [0, 2])
def test_round_trips_of_pings_are_a_histogram_per_tier(tmp_path, workers):
    settings = ("--set", f"engine.workers={workers}", "--set", "limits.ping_s=0.1")
    with (
        engine(SYNTHETIC, tmp_path, *settings) as running,
        open_session(running.url) as one,
        open_session(running.url) as two,
    ):
        two.send('{"action":"subscribe","quotes":["NONE"],"tier":"basic"}')
        found: dict[tuple[str, ...], float] = {}
        while not all(found.get(("marketfeed_round_trip_seconds_count", tier)) for tier in ("vip", "basic")):
            for ws in (one, two):
                ws.ping().wait(10)
            found = samples(get(running.admin_port, "/metrics")[2])
        assert found["marketfeed_round_trip_seconds_count", "premium"] == 0
        for tier in ("vip", "basic"):
            count = found["marketfeed_round_trip_seconds_count", tier]
            assert found["marketfeed_round_trip_seconds_bucket", "+Inf", tier] == count
            assert found["marketfeed_round_trip_seconds_sum", tier] > 0


def test_who_is_slow_and_why(tmp_path):
    feed = SYNTHETIC.replace("rate = 1000", "rate = 100000")
    with engine(feed, tmp_path, "--set", "limits.stall_s=60") as running, open_session(running.url) as ws:
        ws.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ws.send('{"action":"subscribe","quotes":["*"]}')
        slow: list[dict[str, object]] = []
        while not slow:  # the client's own thread buffers a little, and then does not read
            slow = json.loads(get(running.admin_port, "/v1/sessions?slow=1")[2])["shown"]
        assert "full" in str(slow[0]["slow"])


def test_wrong_paths_methods_and_junk(tmp_path):
    with engine(SYNTHETIC, tmp_path) as running:
        status, _, text = get(running.admin_port, "/nope")
        assert status == 404
        assert json.loads(text)["error"]["code"] == 404
        status, headers, _ = get(running.admin_port, "/metrics", "POST")
        assert (status, headers["allow"]) == (405, "GET, HEAD")
        status, headers, text = get(running.admin_port, "/healthz", "HEAD")
        assert (status, text) == (200, b"")
        assert int(headers["content-length"]) > 0
        limits, slow = ("limit=x", "limit=" + "9" * 5000, "limit=1&limit=2"), ("slow=abc", "slwo=1")
        for query in (*limits, *slow, "&".join(["a=1"] * 150)):
            assert get(running.admin_port, f"/v1/sessions?{query}")[0] == 400
        assert get(running.admin_port, "//[")[0] == 400
        for junk in (
            b"\x16\x03\x01\x02\x00\x01",
            b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 20_000 + b"\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", running.admin_port), timeout=10) as sock:
                sock.sendall(junk + b"\r\n\r\n")
                assert sock.recv(100).startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
        assert get(running.admin_port, "/healthz")[0] == 200
