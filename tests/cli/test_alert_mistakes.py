"""What ``marketfeed alerts`` says if the log, the engine or an argument is at fault: one line, status 2."""

from __future__ import annotations

import fcntl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from marketfeed.cli import app
from tests.support.alert_commands import ONE, Told, alerts, said

COMMANDS = [
    ("ack", "risk", ONE.id),
    ("resolve", ONE.key),
    ("requeue", "risk"),
    ("consumers", "drop", "risk", "--yes"),
    ("publish", "hello"),
    ("silence", "--rule", "*", "--for", "1h", "--comment", "why"),
    ("silence", "--expire", "ID"),
]


def of(log):
    """Return options of a configuration with this log."""
    return ["--set", f"alerts.path={log}"]


LISTS = [("dead",), ("consumers",), ("list",), ("show", ONE.id), ("silences",), ("audit",)]


@pytest.mark.parametrize("command", COMMANDS + LISTS, ids=" ".join)
def test_a_missing_log_is_one_line(tmp_path, command):
    assert "there is no alert log " in said(alerts(tmp_path / "gone.db", *command))


@pytest.mark.parametrize("command", COMMANDS + LISTS, ids=" ".join)
@pytest.mark.parametrize("folder", ["/", ".", "/tmp"])
def test_a_folder_is_said_to_be_one(command, folder):
    assert said(alerts(folder, *command)).startswith(f"{folder} is a folder: the alert log is a file")


@pytest.mark.parametrize("command", COMMANDS + LISTS, ids=" ".join)
def test_a_damaged_log_is_one_line(log, command):
    log.write_bytes(b"SQLite, but not that anybody could read it" * 100)
    assert "is no alert log, or its beginning is damaged" in said(alerts(log, *command))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_engine_that_does_not_answer_is_one_line(log, command, monkeypatch):
    """A process holds the log, and nothing listens on the ports of the configuration."""
    monkeypatch.setattr("marketfeed.cli.alerts_place.BUSY_S", 0.0)
    with log.with_name("alerts.db.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ports = [*of(log), "--set", "gateway.port=1", "--set", "admin.port=2"]
        line = said(alerts(log, *command, *ports))
    assert "cannot reach the engine at http://127.0.0.1:" in line
    assert "connection refused, is the engine running?" in line
    assert "use --url http://HOST:PORT" in line


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_engine_is_not_asked_about_the_log_of_another_one(log, command, monkeypatch):
    monkeypatch.setattr("marketfeed.cli.alerts_place.BUSY_S", 0.0)
    with log.with_name("alerts.db.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = said(alerts(log, *command))
    assert line.endswith(
        "is not the log of this configuration: use --config or --url of the engine that holds it"
    )


def test_consumers_are_read_from_the_log_if_the_engine_does_not_answer(log):
    with log.with_name("alerts.db.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = alerts(log, "consumers", "--json", *of(log), "--set", "admin.port=1")
    assert told.status == 0
    assert [row["consumer"] for row in told.json] == ["away", "risk"]
    assert told.err.startswith("marketfeed: cannot reach the engine at http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("ack", "risk", "\udcff"), "an argument is not UTF-8 text"),
        (("dead", "--consumer", "\udcff"), "no consumer '\\udcff'"),
        (("dead", "--consumer", "rsik"), "no consumer 'rsik'; did you mean risk?"),
        (("ack", "rsik", ONE.id), "no consumer 'rsik'; did you mean risk?"),
        (("requeue", "nobody"), "no consumer 'nobody'"),
        (("consumers", "drop", "Risk", "--yes"), "no consumer 'Risk'; did you mean risk?"),
        (("resolve", "k", "--by", "a" * 257), "the body: Expected `str` of length <= 256 - at `$.by`"),
        (
            ("ack", "risk", ONE.id, "--url", "nowhere"),
            "--url nowhere: must be http://HOST:PORT, or https://…",
        ),
        (
            ("ack", "risk", ONE.id, "--url", "http://h:0"),
            "--url http://h:0: must be http://HOST:PORT, or https://…",
        ),
        (
            ("ack", "risk", ONE.id, "--url", "http://h:1", "--ca", "ca.pem"),
            "--ca ca.pem: requires an https:// URL, not http://h:1",
        ),
        (
            ("requeue", "risk", "--url", "https://h:1", "--ca", "gone.pem"),
            "--ca gone.pem: No such file or directory",
        ),
        (
            ("requeue", "risk", "--url", "http://127.0.0.1:1", "--admin-token-file", "gone"),
            "--admin-token-file: gone: No such file or directory",
        ),
        (("consumers", "--admin-token-file", "gone", "drop", "risk"), "options of drop come after it"),
        (
            ("ack", "risk", ONE.id, "--set", "admin.prot=1"),
            "--set admin.prot=1: unknown key; did you mean port? allowed: host, port, hosts, token_file",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_are_one_line(log, arguments, line):
    assert said(alerts(log, *arguments)) == line


def test_a_second_command_waits_for_the_first(log, monkeypatch):
    """The lock is freed while the command looks again."""
    looks = []
    with log.with_name("alerts.db.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def free(seconds):
            looks.append(seconds)
            fcntl.flock(lock, fcntl.LOCK_UN)

        monkeypatch.setattr("marketfeed.cli.alerts_place.time.sleep", free)
        told = alerts(log, "ack", "risk", ONE.id, *of(log), "--set", "gateway.port=1")
    assert (told.status, len(looks)) == (0, 1)


class Elsewhere(BaseHTTPRequestHandler):
    """Answers every request with ``status`` and ``body``."""

    status, body = 200, b""

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def elsewhere():
    """Yield the URL of a server that is no engine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


OFF = b'{"error":{"code":503,"msg":"alerts are off in this engine"}}'


@pytest.mark.parametrize(
    ("status", "body", "line"),
    [
        (503, OFF, "alerts are off in this engine"),
        (
            503,
            b"<p>\x1b[2J busy</p>",
            "answers with HTTP status 503, as no engine does: <p>\\x1b[2J busy</p>",
        ),
        (302, b"", "answers with HTTP status 302, as no engine does: "),
        (200, b"hello", "the answer is not JSON, so not an engine's"),
        (200, b"", "the answer is not an engine's"),
        (200, b"[1]", "the answer is not an engine's"),
        (200, b'{"alerts":5,"consumers":5}', "the answer is not an engine's"),
        (200, b'{"consumers":[{"consumer":5}]}', "the answer is not an engine's"),
    ],
)
@pytest.mark.parametrize("command", [("ack", "risk", "ID"), ("consumers",)], ids=" ".join)
def test_what_is_no_engine_or_refuses_is_one_line(elsewhere, monkeypatch, command, status, body, line):
    monkeypatch.setattr(Elsewhere, "status", status)
    monkeypatch.setattr(Elsewhere, "body", body)
    done = CliRunner().invoke(app, ["alerts", *command, "--url", elsewhere])
    assert said(Told(done)).endswith(line)


def test_fields_of_a_later_release_are_left_out(elsewhere, monkeypatch):
    monkeypatch.setattr(Elsewhere, "body", b'{"alerts":["a"],"unknown":[],"later":1}')
    told = Told(CliRunner().invoke(app, ["alerts", "ack", "risk", "a", "--json", "--url", elsewhere]))
    assert (told.status, told.json) == (0, [{"alerts": ["a"], "unknown": []}])
