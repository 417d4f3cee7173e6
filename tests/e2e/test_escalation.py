"""An engine escalates to a webhook of another process's making: signed, over a crash, and after a reload."""

from __future__ import annotations

import json
import queue
import signal
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from standardwebhooks import Webhook

from tests.support.admin_client import get, post
from tests.support.commands import command
from tests.support.escalations import EPISODE
from tests.support.process import engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

OLD, NEW = ("whsec_" + letter * 32 for letter in "AB")
CONFIG = (
    EPISODE
    + """
[[alerts.escalate]]
name = "desk"
kind = "webhook"
after_s = 0
url = "http://127.0.0.1:{port}/hook/of-a-token"
allow_private = true
secret_file = "secret"
"""
)


class Receiver:
    """A webhook's receiver: verifies each message, and answers with ``status``."""

    def __init__(self) -> None:
        self.status = 200
        self.secret = OLD
        self.messages: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self.mistakes: list[Exception] = []
        self.port = 0

    def wait(self, kind: str, key: str | None = None) -> tuple[str, dict[str, Any]]:
        """Wait for a message of ``kind`` about the episode ``key``; return its id and its data, once."""
        left: list[tuple[str, dict[str, Any]]] = []
        while True:
            found, body = self.messages.get(timeout=30)
            assert self.mistakes == []
            if body["type"] == kind and key in (None, body["data"]["key"]):
                break
            left.append((found, body))
        for message in left:
            self.messages.put(message)
        return found, body["data"]


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                Webhook(receiver.secret).verify(body, dict(self.headers.items()))
            except Exception as error:
                receiver.mistakes.append(error)  # the test's thread raises it
            receiver.messages.put((self.headers["webhook-id"], json.loads(body)))
            self.send_response(receiver.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def warnings(running: Any) -> str:
    """Return the warnings of /readyz, one per line."""
    status, _, body = get(running.admin_port, "/readyz")
    assert status == 200
    return "\n".join(json.loads(body)["warnings"])


def test_an_episode_reaches_the_webhook_over_a_crash_and_a_new_secret_and_ends_with_its_person(
    tmp_path: Path,
):
    (tmp_path / "secret").write_text(OLD)
    with receiving() as receiver:
        receiver.status = 503
        with engine(CONFIG.format(port=receiver.port), tmp_path) as running:
            _, first = receiver.wait("alert.raised")
            assert (first["rule"], first["S"], first["sev"]) == ("tight", "A", "critical")
            running.process.send_signal(signal.SIGKILL)
            running.process.wait(10)
        receiver.status = 200
        with engine(CONFIG.format(port=receiver.port), tmp_path) as running:
            # It may have arrived, so its end is told; the rules start clear, and raise another episode.
            ended, _ = receiver.wait("alert.cleared", first["key"])
            assert ended == f"cleared_{first['key']}"
            _, second = receiver.wait("alert.raised")
            if second["key"] == first["key"]:  # sent again before its end was in the log
                _, second = receiver.wait("alert.raised")
            assert second["key"] != first["key"]
            (tmp_path / "secret").write_text(NEW)
            running.process.send_signal(signal.SIGHUP)
            running.logged("reloaded")
            receiver.secret = NEW
            body = {"key": second["key"], "by": "ann", "comment": "on it"}
            assert post(running.port, "/v1/alerts/resolve", body)[0] == 200
            _, data = receiver.wait("alert.resolved", second["key"])
            assert (data["by"], data["comment"]) == ("ann", "on it")
            assert "escalation" not in warnings(running)
            metrics = get(running.admin_port, "/metrics")[2].decode()
            assert 'marketfeed_escalation_failing{escalation="desk"} 0.0' in metrics
            assert 'marketfeed_escalation_messages_total{escalation="desk",outcome="failed"} 0.0' in metrics
            assert running.stop() == 0
            for hidden in (OLD, NEW, "of-a-token"):
                assert hidden not in metrics + "".join(running.stderr)


def test_a_webhook_that_is_gone_is_an_alert_and_a_warning(tmp_path: Path):
    (tmp_path / "secret").write_text(OLD)
    with receiving() as receiver:
        receiver.status = 410
        with engine(CONFIG.format(port=receiver.port), tmp_path) as running:
            receiver.wait("alert.raised")
            running.logged("escalation is off: the peer wants no messages")
            assert "is off until the configuration is read again" in warnings(running)
            metrics = get(running.admin_port, "/metrics")[2].decode()
            assert 'marketfeed_warning{kind="escalation",subject="desk"} 1.0' in metrics
            status, out, _ = command(tmp_path, "alerts", "list", "--rule", "escalation", "--json")
            while status == 0 and not out:
                status, out, _ = command(tmp_path, "alerts", "list", "--rule", "escalation", "--json")
            (told,) = map(json.loads, out.splitlines())
            assert (told["state"], told["severity"]) == ("raised", "critical")
            assert running.stop() == 0


def test_a_reload_with_a_mistake_changes_nothing(tmp_path):
    (tmp_path / "secret").write_text(OLD)
    good = CONFIG.format(port=9)
    with engine(good, tmp_path) as running:
        (tmp_path / "config.toml").write_text(good + 'previous_secret_file = "missing"\n')
        running.process.send_signal(signal.SIGHUP)
        reason = running.logged("reload refused, nothing changed")["reason"]
        assert "alerts.escalate.0.previous_secret_file: " in reason
        assert "reload:" in warnings(running)
        assert running.stop() == 0
