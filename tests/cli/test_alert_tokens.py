"""Which requests of ``marketfeed alerts`` bear the token of the admin port."""

from __future__ import annotations

import fcntl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.support.alert_commands import alerts

TOKEN = "0123456789abcdef0123456789abcdef"
REQUEUE = ("requeue", "risk", "--by", "ann")
DROP = ("consumers", "drop", "risk", "--yes", "--by", "ann")
PUBLISH = ("publish", "hello")


@contextmanager
def listening():
    """Yield a port, and the Authorization headers of the requests there, which are refused."""
    received: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(self.headers["Authorization"])
            self.send_response(307)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_DELETE = do_POST

        def log_message(self, *arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port, received
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "admin.token"
    path.write_text(f"{TOKEN}\n")
    return path


@pytest.mark.parametrize(
    ("command", "sent"), [(REQUEUE, f"Bearer {TOKEN}"), (DROP, f"Bearer {TOKEN}"), (PUBLISH, None)]
)
def test_the_token_of_the_configuration_goes_to_its_admin_port_alone(log, token_file, command, sent):
    with listening() as (port, received), log.with_name("alerts.db.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as an engine does
        options = [f"alerts.path={log}", f"admin.token_file={token_file}"]
        options += [f"gateway.port={port}" if sent is None else f"admin.port={port}"]
        told = alerts(log, *command, *(word for option in options for word in ("--set", option)))
    assert (told.status, received) == (2, [sent])  # the redirect is not followed
    assert TOKEN not in told.out + told.err


@pytest.mark.parametrize("command", [REQUEUE, DROP])
def test_another_address_gets_the_token_of_the_option_alone(log, token_file, command):
    with listening() as (port, received):
        where = ["--url", f"http://127.0.0.1:{port}", "--set", f"admin.token_file={token_file}"]
        alerts(log, *command, *where)
        alerts(log, *command, *where, "--admin-token-file", str(token_file))
    assert received == [None, f"Bearer {TOKEN}"]


def test_a_configured_token_that_cannot_be_read_is_one_line(log, tmp_path):
    with log.with_name("alerts.db.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        setting = f"admin.token_file={tmp_path}/none"
        options = ["--set", f"alerts.path={log}", "--set", setting]
        told = alerts(log, *REQUEUE, *options)
        line = f"marketfeed: --set {setting}: {tmp_path}/none: No such file or directory\n"
        assert (told.status, told.err) == (2, line)
        told = alerts(log, "consumers", *options)  # then as the log has them
        assert (told.status, told.err) == (0, line)
        assert told.out.split()[0] == "consumer"
