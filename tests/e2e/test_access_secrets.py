"""Keys, tokens, tickets and secrets are in no log, metric, list of sessions, traceback or check."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import jwt
import pytest
import trio
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.admin_client import SYNTHETIC, get
from tests.support.entitled_clients import request
from tests.support.process import Engine

SECRET = "5ecret-0123456789abcdef0123456789abcdef"
CONFIG = f"""
[auth]
mode = "jwt"
algorithm = "HS256"
key_file = "jwt.secret"
[admin]
token_file = "admin.token"
{SYNTHETIC}
"""
ADMIN = "adm1n-0123456789abcdef0123456789abcdef"


def written(folder):
    for name, text in (("jwt.secret", SECRET), ("admin.token", ADMIN)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    path = folder / "config.toml"
    path.write_text(CONFIG)
    return path


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_secret_is_shown(tmp_path, workers):
    config = written(tmp_path)
    now_s = time.time()
    claims = {
        "sub": "ann\u2028level=error",
        "exp": now_s + 3600,
        "iat": now_s,
        "symbols": ["*"],
        "tier": "vip",
    }
    token = jwt.encode({**claims, "sub": "ann"}, SECRET, "HS256")
    refused = [
        jwt.encode(claims, SECRET, "HS256"),  # a sub that would break a line of the log
        jwt.encode({**claims, "sub": "ann", "exp": now_s - 99}, SECRET, "HS256"),
        jwt.encode({**claims, "sub": "ann"}, SECRET * 2, "HS256"),
        token[:-4] + "AAAA",
        "mfk_0123456789ab_0123456789012345678901234567890123456789012",
    ]
    options = ("--set", "gateway.port=0", "--set", "admin.port=0", "--set", f"engine.workers={workers}")
    engine = Engine("--config", str(config), "--log-level", "debug", *options, cwd=tmp_path)
    answers: list[object] = []
    try:
        answers.append(
            trio.run(request, engine.port, "GET", f"/v1/quotes?symbols=*&access_token={token}", "")
        )
        status, issued = trio.run(request, engine.port, "POST", "/v1/tickets", token)
        assert status == 201
        ticket = issued["ticket"]
        for bad in refused:
            found = trio.run(request, engine.port, "GET", "/v1/quotes?symbols=*", bad)
            assert found[0] == 401
            answers.append(found)
        with connect(f"{engine.url}?ticket={ticket}") as ws:
            ws.recv()
            for bad in refused[:2]:
                ws.send(json.dumps({"action": "auth", "token": bad}))
            ws.send(json.dumps({"action": "subscribe", "quotes": ["*"], "id": 1}))
            answers += [ws.recv() for _ in range(4)]
            with pytest.raises(InvalidStatus):
                connect(f"{engine.url}?ticket={ticket}")
            bearer = {"Authorization": f"Bearer {ADMIN}"}
            for path in (
                "/metrics",
                "/v1/sessions",
                "/v1/usage",
                "/v1/revocations",
                "/readyz",
                "/v1/latency",
            ):
                answer = get(engine.admin_port, path, headers=bearer)
                assert answer[0] == 200, path
                answers.append(answer)
            answers.append(get(engine.admin_port, "/metrics", headers={"Authorization": "Bearer wrong"}))
        revoked = get(engine.admin_port, "/v1/revoke", "POST", bearer, body=b'{"sub":"ann"}')
        assert revoked[0] == 200
        answers.append(revoked)
        assert engine.stop() == 0
    finally:
        engine.close()
    check = subprocess.run(
        [sys.executable, "-m", "marketfeed", "serve", "--check", "--config", str(config)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert check.returncode == 0
    (tmp_path / "jwt.secret").write_text(SECRET[:20])  # too short
    short = subprocess.run(check.args, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert short.returncode == 2
    shown = "".join([*engine.stderr, check.stdout, check.stderr, short.stdout, short.stderr, str(answers)])
    assert "Traceback" not in shown
    assert not [secret for secret in (SECRET[:20], ADMIN, token, ticket, *refused) if secret in shown]
    for line in engine.stderr:
        assert json.loads(line)["level"] in ("debug", "info", "warning")
