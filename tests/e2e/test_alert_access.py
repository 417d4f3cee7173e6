"""Commands of alerts against an engine with access control: they present a token, and say what is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import jwt
import pytest

from tests.support.access import SECRET
from tests.support.process import engine

CONFIG = """
[auth]
mode = "jwt"
algorithm = "HS256"
key_file = "jwt.secret"
[alerts]
enabled = true
"""


@pytest.fixture
def run(tmp_path):
    """Run ``marketfeed alerts`` with a token; return the finished process."""
    (tmp_path / "jwt.secret").write_text(SECRET)
    (tmp_path / "jwt.secret").chmod(0o600)
    with engine(CONFIG, tmp_path) as running:

        def run(*arguments, **claims):
            payload = {"sub": "ann", "exp": time.time() + 600, "channels": ["alerts"], **claims}
            token = jwt.encode(payload, SECRET, "HS256") if claims else ""
            return subprocess.run(
                [sys.executable, "-m", "marketfeed", "alerts", *arguments],
                cwd=tmp_path, capture_output=True, text=True, timeout=60,
                env=os.environ | {"MARKETFEED_TOKEN": token},
            )  # fmt: skip

        yield lambda *arguments, **claims: run(
            *arguments, "--url", f"http://127.0.0.1:{running.port}", **claims
        )


def test_commands_present_the_token_of_the_environment(run):
    done = run("publish", "first", "--key", "k1", "--to", "risk-1", publish=["risk-1"])
    assert done.returncode == 0, done.stderr
    refused = run("publish", "second", "--key", "k2", publish=["risk-1"])
    assert refused.returncode != 0
    assert "not entitled: publish to everybody" in refused.stderr
    missing = run("publish", "third", "--key", "k3")
    assert missing.returncode != 0
    assert "MARKETFEED_TOKEN" in missing.stderr


def test_tail_presents_it_too(run):
    tail = run("tail", "--consumer", "other", consumers=["risk-1"])
    assert tail.returncode == 1
    assert "not entitled: consumer other" in tail.stderr
    missing = run("tail")
    assert missing.returncode == 1
    assert "MARKETFEED_TOKEN" in missing.stderr
    assert json.dumps("Traceback") not in missing.stderr
