"""What README.md says about access control, as it says it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.support.process import Engine

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
SECTION = README.partition("## Control access")[2].partition("\n## ")[0]
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL) for line in block.splitlines()
]


def arguments(command: str) -> list[str]:
    """Return the arguments of a command line, without a variable before it and a redirection."""
    found = shlex.split(command.partition(" >")[0])
    return found[found.index("marketfeed") + 1 :]


def run(command: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "marketfeed", *arguments(command)],
        cwd=folder, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_engine_on_all_addresses_serves_what_a_token_entitles_to(tmp_path):
    new_key, serve, token_of, watch = COMMANDS
    run(new_key, tmp_path)
    own = ("--set", "gateway.port=0", "--set", "admin.port=0")
    engine = Engine(*arguments(serve)[1:], *own, cwd=tmp_path)
    try:
        assert engine.ready.startswith("marketfeed ready http://0.0.0.0:")
        url = f"ws://127.0.0.1:{engine.port}/v1/stream"
        token = run(token_of, tmp_path).strip()
        with connect(url) as ws:
            ws.recv()
            ws.send(json.dumps({"action": "auth", "token": token}))
            (answer,) = json.loads(ws.recv())
            assert (answer["msg"], answer["tier"]) == ("authenticated", "premium")
            wanted = arguments(watch)[1]
            ws.send(json.dumps({"action": "subscribe", "quotes": [wanted]}))
            seen: set[str] = set()
            while "synced" not in seen:
                for message in json.loads(ws.recv(timeout=20)):
                    seen.add(message["T"])
                    assert message.get("S", "SY000").startswith("SY000")
            assert "q" in seen
            ws.send(json.dumps({"action": "subscribe", "quotes": ["SY0100"]}))
            while (message := json.loads(ws.recv(timeout=20))[0])["T"] != "error":
                assert message["S"].startswith("SY000")
            assert message["code"] == 409
        forged = {"Authorization": f"Bearer {token[:-6]}AAAAAA"}
        with pytest.raises(InvalidStatus, match="HTTP 401"):
            connect(url, additional_headers=forged)
    finally:
        engine.close()
    assert token not in "".join(engine.stderr)


def test_a_token_is_needed(tmp_path):
    new_key, serve, _, _ = COMMANDS
    run(new_key, tmp_path)
    quick = ("--set", "gateway.port=0", "--set", "admin.port=0", "--set", "limits.handshake_s=0.5")
    engine = Engine(*arguments(serve)[1:], *quick, cwd=tmp_path)
    try:
        with connect(f"ws://127.0.0.1:{engine.port}/v1/stream") as ws:
            with suppress(ConnectionClosed):
                while True:
                    ws.recv(timeout=20)
            assert ws.close_code == 4501
    finally:
        engine.close()
