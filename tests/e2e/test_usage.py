"""Usage of a running engine, with and without workers: metered, shown, limited, and kept over its end."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from http.client import HTTPConnection
from typing import Any

import jwt
import pytest
from websockets.sync.client import connect

from tests.support.access import SECRET
from tests.support.admin_client import get
from tests.support.process import engine

CONFIG = """
[engine]
workers = {workers}
[auth]
mode = "jwt"
algorithm = "HS256"
key_file = "secret"
[auth.tenants.acme]
max_ticks_per_day = 1000000
[[feeds]]
name = "demo"
type = "synthetic"
symbols = 10
rate = 1000
"""


def token(sub: str, symbols: list[str]) -> str:
    now_s = time.time()
    claims: dict[str, Any] = {"sub": sub, "tenant": "acme", "tier": "vip", "symbols": symbols}
    return jwt.encode({**claims, "iat": now_s, "exp": now_s + 600}, SECRET, algorithm="HS256")


def received(url: str, sub: str, ticks: int) -> int:
    """Have a session until it has got some ticks; return how many it got, without snapshots."""
    found = 0
    headers = {"Authorization": f"Bearer {token(sub, ['SY*'])}"}
    with connect(url, additional_headers=headers) as session:
        session.send(json.dumps({"action": "subscribe", "quotes": ["*"], "trades": ["*"], "tier": "vip"}))
        while found < ticks:
            messages = json.loads(session.recv(30))
            found += sum(one["T"] in ("q", "t") and "snap" not in one for one in messages)
    return found


def poll(port: int, sub: str) -> bytes:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(
        "GET", "/v1/quotes?symbols=*", headers={"Authorization": f"Bearer {token(sub, ['*'])}"}
    )
    body = connection.getresponse().read()
    connection.close()
    return body


@pytest.mark.parametrize("workers", [0, 2])
def test_usage_is_metered_and_kept(tmp_path, workers):
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    with engine(CONFIG.format(workers=workers), tmp_path) as running:
        got = {sub: received(running.url, sub, ticks) for sub, ticks in (("ann", 500), ("bob", 100))}
        body = poll(running.port, "poll")
        status, _, answer = get(running.admin_port, "/v1/usage")
        assert status == 200
        assert {row["sub"]: row["peak"] for row in json.loads(answer)["rows"]} == {"ann": 1, "bob": 1}
        assert b"marketfeed_usage_store_failures_total 0.0" in get(running.admin_port, "/metrics")[2]
        assert running.stop() == 0
    done = subprocess.run(
        [sys.executable, "-m", "marketfeed", "usage", "--config", "config.toml", "--json", "--days", "2"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    rows: dict[str, dict[str, Any]] = {}
    for row in map(json.loads, done.stdout.splitlines()):
        rows.setdefault(row["sub"], row)
    for sub, ticks in got.items():  # what was in flight when the client left was delivered too
        assert rows[sub]["quotes"] + rows[sub]["trades"] >= ticks
        assert rows[sub]["symbols"] == 10
    assert rows["poll"]["quotes"] == body.count(b'"T":"q"')
    assert (rows["poll"]["bytes"], rows["poll"]["symbols"], rows["poll"]["peak"]) == (len(body), 10, 0)
