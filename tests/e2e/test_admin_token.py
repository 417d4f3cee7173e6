"""An admin port that requires a token: scrapers, commands, and a rotation by SIGHUP."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from tests.support.admin_client import SYNTHETIC, get, samples
from tests.support.ports import free_port
from tests.support.process import Engine, engine

OLD, NEW = "old-0123456789abcdef0123456789abcdef", "new-0123456789abcdef0123456789abcdef"
CONFIG = (
    '[admin]\nhost = "0.0.0.0"\ntoken_file = "admin.token"\n[alerts]\nenabled = true\n' + SYNTHETIC
)  # on all addresses, without auth.anonymous


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def scraped(running, token):
    return get(running.admin_port, "/metrics", headers=bearer(token))[0]


def write_token(folder, token):
    path = folder / "admin.token"
    path.write_text(f"{token}\n")
    path.chmod(0o600)
    return path


def reload(running, event):
    """Have the engine read its configuration again; return the log entry that says what came of it."""
    seen = sum(entry["event"] == event for entry in list(running.log))
    running.process.send_signal(signal.SIGHUP)
    while True:
        told = [entry for entry in list(running.log) if entry["event"] == event]
        if len(told) > seen:
            return told[-1]
        assert running.process.poll() is None
        running._reader.join(0.01)


def command(folder, *arguments):
    """Run ``marketfeed``; return status, stdout and stderr, none of which holds a token."""
    done = subprocess.run(
        [sys.executable, "-m", "marketfeed", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not any(token in done.stdout + done.stderr for token in (OLD, NEW))
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("workers", [0, 1])
def test_the_token_is_required_and_rotated_by_sighup(tmp_path, workers):
    path = write_token(tmp_path, OLD)
    with engine(CONFIG, tmp_path, "--set", f"engine.workers={workers}") as running:
        port = running.admin_port
        without: dict[str, str] = {}
        for headers in (without, bearer(NEW)):
            status, found, body = get(port, "/metrics", headers=headers)
            assert (status, found["www-authenticate"]) == (401, "Bearer")
            assert b"admin.token_file" in body
        assert json.loads(get(port, "/readyz")[2]).keys() == {"status"}
        assert json.loads(get(port, "/readyz", headers=bearer(OLD))[2])["feeds"] == {"demo": "live"}
        assert get(port, "/metrics", headers={"Host": "evil.example"} | bearer(OLD))[0] == 421
        status, _, text = get(port, "/metrics", headers=bearer(OLD))
        figures = samples(text)
        assert status == 200
        for reason in ("admin token missing", "admin token wrong", "host not allowed"):
            assert figures["marketfeed_refused_total", reason] == 1

        path.write_text("short")
        reason = reload(running, "reload refused, nothing changed")["reason"]
        assert "admin.token_file: the token in" in reason
        assert (scraped(running, OLD), scraped(running, NEW)) == (200, 401)
        write_token(tmp_path, NEW)
        reload(running, "reloaded")
        assert (scraped(running, OLD), scraped(running, NEW)) == (401, 200)
        path.chmod(0o644)
        told = f"{tmp_path}/config.toml: admin.token_file: every user may read {path}: chmod o-r {path}"
        assert reload(running, told)["level"] == "warning"
        assert running.stop() == 0
        assert not any(token in line for line in running.stderr for token in (OLD, NEW))


def test_commands_send_the_token_of_the_configuration(tmp_path):
    write_token(tmp_path, OLD)
    ports = f"[gateway]\nport = {free_port()}\n" + CONFIG.replace(
        "[admin]\n", f"[admin]\nport = {free_port()}\n"
    )
    config = tmp_path / "config.toml"
    config.write_text(ports)
    running = Engine("--config", str(config), cwd=tmp_path)
    try:
        assert get(running.port, "/v1/alerts?consumer=risk&start=now&timeout_s=0")[0] == 204
        status, out, err = command(tmp_path, "alerts", "consumers", "--json")
        assert (status, err) == (0, "")
        assert "state" in json.loads(out)  # which the log does not have
        assert command(tmp_path, "alerts", "requeue", "risk")[1:] == (
            "risk has no dead letters that it wants\n",
            "",
        )

        # At an address of its own the configuration's token is not sent.
        url = ["--url", f"http://127.0.0.1:{running.admin_port}"]
        status, _, err = command(tmp_path, "alerts", "requeue", "risk", *url)
        assert status == 2
        assert err == (
            "marketfeed: admin token missing: send Authorization: Bearer, with the token in admin.token_file:"
            " --admin-token-file FILE\n"
        )
        option = ["--admin-token-file", "admin.token"]
        assert command(tmp_path, "alerts", "requeue", "risk", *url, *option)[:2] == (
            1,
            "risk has no dead letters that it wants\n",
        )
        status, out, _ = command(tmp_path, "alerts", "consumers", *url, *option)
        assert out.split()[:2] == ["consumer", "state"]
        write_token(tmp_path, NEW)  # the engine has not read it yet
        assert command(tmp_path, "alerts", "consumers", "drop", "risk", "--yes")[2].startswith(
            "marketfeed: admin token wrong: "
        )
        reload(running, "reloaded")
        assert command(tmp_path, "alerts", "consumers", "drop", "risk", "--yes")[1] == "dropped risk\n"
    finally:
        running.close()


def test_mistakes_in_the_token_file_are_told_by_check_and_at_the_start(tmp_path):
    (tmp_path / "config.toml").write_text(CONFIG)
    for check in (["--check"], []):
        told = (
            f"marketfeed: config.toml: admin.token_file: {tmp_path}/admin.token: No such file or directory\n"
        )
        assert command(tmp_path, "serve", *check) == (2, "", told)
    write_token(tmp_path, OLD).chmod(0o644)
    status, out, err = command(tmp_path, "serve", "--check")
    assert (status, out) == (0, "config ok: config.toml, 1 feed, 3 tiers\n")
    assert "warning: config.toml: admin.token_file: every user may read" in err
