"""Every field of the JSON that operators and scripts read is described where the docs say it is."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import httpx
import pytest

from tests.support.admin_client import SYNTHETIC, get
from tests.support.commands import command
from tests.support.conformance import check_answer
from tests.support.process import engine, open_session

DOCS = Path(__file__).parents[2] / "docs"


def described(page, after):
    """Return the words in code style of the section of ``page`` that begins with ``after``."""
    text = (DOCS / page).read_text("utf-8").partition(f"\n{after}\n")[2]
    assert text
    return set(re.findall(r"[A-Za-z0-9_]+", " ".join(re.findall(r"`[^`]+`", re.split(r"\n#+ ", text)[0]))))


def fields(value, names=()):
    """Yield the keys of all objects in ``value``, but for those that are ``names`` of something."""
    if isinstance(value, list):
        for item in value:
            yield from fields(item, names)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in names:
                yield key
            yield from fields(item, names)


@pytest.mark.parametrize("workers", [0, 1])
def test_sessions_and_latency(tmp_path, workers):
    config = f"[engine]\nworkers = {workers}\n[latency]\ninterval_s = 0.5\n{SYNTHETIC}"
    with engine(config, tmp_path) as running, open_session(running.url) as ws:
        ws.send('{"action":"subscribe","quotes":["*"],"trades":["*"],"tier":"vip"}')
        symbols = [f"SY{number:04}" for number in range(10)]
        hops = ("venue", "ring", "wait", "late", "encode", "send", "total", "client")
        names = {*symbols, *hops, "vip", "premium", "basic"}
        while True:
            ws.recv()
            latency = json.loads(get(running.admin_port, "/v1/latency")[2])
            if latency["tiers"].get("vip", {}).get("symbols"):
                break
        sessions = json.loads(get(running.admin_port, "/v1/sessions")[2])
        assert set(fields(sessions, names)) <= described("protocol.md", "# On the admin port")
        assert set(fields(latency, names)) <= described("latency.md", "## As JSON")
        assert ("worker" in sessions["shown"][0]) == bool(workers)


def test_a_simulation(tmp_path):
    (tmp_path / "day.csv").write_text("".join(f"{10 * i},1.{i:05},2\n" for i in range(20)))
    (tmp_path / "config.toml").write_text(
        '[[feeds]]\nname = "fx"\ntype = "replay"\nformat = "csv"\npath = "other.csv"\nsymbol = "EUR/USD"\n'
        'time = "ms"\nday = "2014-05-08"\ncolumns = { time = 0, bid = 1, ask = 2 }\n'
    )
    status, out, err = command(
        tmp_path, "simulate", "day.csv", "--feed", "fx", "--json", "--tier", "premium.interval_ms=200"
    )
    assert (status, err) == (0, "")
    found = set(fields(json.loads(out), ("vip", "premium", "basic")))
    assert {"configured", "what_if", "delay_ms", "p99"} <= found <= described("recordings.md", "## What if")


def test_answers_about_alerts(tmp_path):
    with engine(f"[alerts]\nenabled = true\n{SYNTHETIC}", tmp_path) as running:

        def answer(status, method, target, body=None):
            response = httpx.request(method, f"http://127.0.0.1:{running.port}{target}", json=body)
            assert response.status_code == status
            check_answer(method, target, status, response.headers, response.content)
            return response.json() if response.content else None

        notice = {"key": "order-17", "msg": "too large", "to": "risk-1", "data": {"order": 17}}
        first = answer(201, "POST", "/v1/alerts", notice)
        assert answer(200, "POST", "/v1/alerts", notice) == first
        answer(504, "POST", "/v1/alerts?wait=ack&timeout_s=0", notice)
        (alert,) = answer(200, "GET", "/v1/alerts?consumer=risk-1")["alerts"]
        assert alert["id"] == first["id"]
        settled = {"consumer": "risk-1", "alerts": [first["id"], "none"]}
        assert answer(200, "POST", "/v1/alerts/ack", settled) == {
            "alerts": [first["id"]],
            "unknown": ["none"],
        }
        answer(200, "POST", "/v1/alerts?wait=ack", notice)
        answer(204, "GET", "/v1/alerts?consumer=risk-1&timeout_s=0")
        answer(404, "POST", "/v1/alerts/resolve", {"key": "none", "by": "ann"})
        ends = round(time.time() + 3600) * 1_000_000
        silence = answer(201, "POST", "/v1/alerts/silences", {"ends": ends, "by": "ann", "comment": "test"})
        assert answer(200, "GET", "/v1/alerts/silences") == {"silences": [silence]}
        for status in (204, 404):
            answer(status, "DELETE", f"/v1/alerts/silences?id={silence['id']}&by=ann")
