"""Every field of the JSON that operators and scripts read is described where the docs say it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.admin_client import SYNTHETIC, get
from tests.support.commands import command
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
