"""Revocations and keys of an engine that runs: from its admin port, by its command, and by SIGHUP."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import jwt
import pytest
from websockets.exceptions import ConnectionClosed

from marketfeed.access.secrets import new_key
from tests.support.admin_client import SYNTHETIC, get, post, samples
from tests.support.commands import command
from tests.support.crowd import workers
from tests.support.process import engine, open_session

SECRET = "a secret of tests, 32 bytes or more"
CONFIG = (
    '[auth]\nmode = "jwt"\nalgorithm = "HS256"\nkey_file = "secret"\n[auth.defaults]\nsymbols = ["*"]\n'
    + SYNTHETIC
)
KEYS = CONFIG.replace("jwt", "keys").replace('algorithm = "HS256"\nkey_file = "secret"', 'keys_file = "keys"')


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "secret"
    path.write_text(SECRET)
    path.chmod(0o600)
    return tmp_path


def token(sub: str, **claims: Any) -> str:
    now_s = time.time()
    return jwt.encode({"sub": sub, "iat": now_s, "exp": now_s + 3600, **claims}, SECRET, algorithm="HS256")


def authenticate(ws: Any, presented: str) -> dict[str, Any]:
    """Return the answer to ``auth``."""
    ws.send(json.dumps({"action": "auth", "token": presented}))
    (answer,) = json.loads(ws.recv(timeout=20))
    found: dict[str, Any] = answer
    return found


def subscribed(ws: Any, id_: int) -> dict[str, Any]:
    """Return the answer to a subscription to SY0002."""
    ws.send(json.dumps({"action": "subscribe", "quotes": ["SY0002"], "id": id_}))
    while (answer := json.loads(ws.recv(timeout=20))[0]).get("id") != id_ or answer["T"] == "synced":
        pass
    found: dict[str, Any] = answer
    return found


def code_of(ws: Any) -> int:
    """Return the code of the close that ends the session."""
    with pytest.raises(ConnectionClosed) as closed:
        for _ in iter(lambda: ws.recv(timeout=20), None):
            pass
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


def revocations(running: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(get(running.admin_port, "/v1/revocations")[2])["revocations"]
    return found


@pytest.mark.parametrize("count", [0, 2])
def test_a_revocation_ends_sessions_on_all_workers_and_survives_a_restart(folder, count):
    option = "--set", f"engine.workers={count}"
    with engine(CONFIG, folder, *option) as running:
        with open_session(running.url) as one, open_session(running.url) as two, open_session(
            running.url
        ) as other:  # fmt: skip
            for ws, sub in ((one, "ann"), (two, "ann"), (other, "bob")):
                assert authenticate(ws, token(sub))["msg"] == "authenticated"
            status, told = post(running.admin_port, "/v1/revoke", {"sub": "ann", "comment": "left"})
            assert (status, told["revoked"], told["sessions"]) == (200, {"sub": "ann"}, 2)
            assert (code_of(one), code_of(two)) == (4502, 4502)
            assert authenticate(other, token("bob"))["T"] == "success"
        assert post(running.admin_port, "/v1/revoke", {"token": "no such"})[1]["sessions"] == 0
        found = samples(get(running.admin_port, "/metrics")[2])
        assert found["marketfeed_revocations", "sub"] == 1
        before = revocations(running)
        assert [(row["kind"], row["value"], row["comment"]) for row in before] == [
            ("sub", "ann", "left"),
            ("token", "no such", ""),
        ]
        running.process.kill()  # what was answered is on disk
    with engine(CONFIG, folder, *option) as running:
        assert revocations(running) == before
        with open_session(running.url) as ws:
            issued_s = before[0]["at"] / 1e6 - 5
            assert authenticate(ws, token("ann", iat=issued_s))["code"] == 402
            assert authenticate(ws, token("ann", iat=issued_s + 10))["T"] == "success"
        assert running.stop() == 0
        assert SECRET not in "".join(running.stderr)


def test_the_command_asks_the_engine_that_holds_the_file(folder):
    with engine(CONFIG, folder) as running:
        place = "--url", f"http://127.0.0.1:{running.admin_port}"
        with open_session(running.url) as ws:
            assert authenticate(ws, token("ann"))["T"] == "success"
            status, out, err = command(folder, "revoke", "--sub", "ann", *place)
            assert (status, err) == (0, "")
            assert out.endswith("; 1 session ended\n")
            assert code_of(ws) == 4502
        assert [row["value"] for row in revocations(running)] == ["ann"]
        assert command(folder, "revoke", "--sub", "ann", "--undo", *place)[0] == 0
        assert revocations(running) == []
        # The file is the engine's: the command does not touch it, although it cannot find the engine.
        (folder / "config.toml").write_text(CONFIG + "[admin]\nport = 0\n")
        status, _, err = command(folder, "revoke", "--sub", "ann")
        assert (status, "admin.port: 0 means any free port" in err) == (2, True)


def write_keys(folder, *entries):
    path = folder / "keys"
    path.write_text(
        json.dumps(
            {
                "keys": [
                    {"id": key_id, "hash": hash_, "created_s": int(time.time()), "claims": {"sub": key_id}}
                    for key_id, hash_, _ in entries
                ]
            }
        )
    )
    path.chmod(0o600)


def reload(running, event):
    """Have the engine read its configuration again; return when it has said what came of it."""
    seen = sum(entry["event"] == event for entry in list(running.log))
    running.process.send_signal(signal.SIGHUP)
    while sum(entry["event"] == event for entry in list(running.log)) == seen:
        assert running.process.poll() is None
        running._reader.join(0.01)


@pytest.mark.parametrize("count", [0, 2])
def test_keys_change_with_sighup_and_workers_stay(folder, count):
    stays, goes, comes = new_key(), new_key(), new_key()
    write_keys(folder, stays, goes)
    with (
        engine(KEYS, folder, "--set", f"engine.workers={count}") as running,
        open_session(running.url) as one,
        open_session(running.url) as two,
    ):
        assert authenticate(one, stays[2])["T"] == "success"
        assert authenticate(two, goes[2])["T"] == "success"
        children = workers(running)
        (folder / "keys").write_text("{")
        reload(running, "reload refused, nothing changed")
        assert authenticate(two, goes[2])["T"] == "success"
        write_keys(folder, stays, comes)
        reload(running, "reloaded")
        assert code_of(two) == 4502
        assert authenticate(one, stays[2])["T"] == "success"
        with open_session(running.url) as ws:
            assert authenticate(ws, goes[2])["code"] == 402
            assert authenticate(ws, comes[2])["T"] == "success"
        assert workers(running) == children
        (folder / "config.toml").write_text(KEYS.replace('["*"]', '["SY0001"]'))
        reload(running, "reloaded")
        assert workers(running) == children
        # "reloaded" is logged when workers have been told; each holds its sessions to it soon after.
        for id_ in range(7, 100_000):
            answer = subscribed(one, id_)
            if answer["T"] == "error":
                break
        assert answer["code"] == 409
        log = "".join(running.stderr)
    assert not any(part in log for key in (stays, goes, comes) for part in (key[1], key[2][-43:]))


@pytest.mark.parametrize("count", [0, 2])
def test_a_whole_key_that_is_revoked_ends_its_sessions_and_is_kept_and_logged_nowhere(folder, count):
    key_id, hash_, key = new_key()
    write_keys(folder, (key_id, hash_, key))
    with engine(KEYS, folder, "--set", f"engine.workers={count}") as running:
        with open_session(running.url) as ws:
            assert authenticate(ws, key)["T"] == "success"
            told = post(running.admin_port, "/v1/revoke", {"token": key})[1]
            assert (told["revoked"], told["sessions"]) == ({"token": key_id}, 1)
            assert code_of(ws) == 4502
        place = "--url", f"http://127.0.0.1:{running.admin_port}"
        status, out, err = command(folder, "revoke", "--token", key, *place)
        assert (status, err) == (0, "")
        assert out.startswith(f"revoked token {key_id} for ever; ")
        assert [row["value"] for row in revocations(running)] == [key_id]
        assert running.stop() == 0
        log = "".join(running.stderr)
    assert key[-43:] not in log + out
    assert not any(key[-43:].encode() in path.read_bytes() for path in (folder / "var").iterdir())


def test_two_engines_do_not_share_a_file(folder):
    with engine(CONFIG, folder):
        second = command(
            folder, "serve", "--set", "gateway.port=0", "--set", "admin.port=0", "--config", "config.toml"
        )
    assert second[0] == 2
    assert "auth.path: " in second[2]
    assert "access.db is in use by process " in second[2]
