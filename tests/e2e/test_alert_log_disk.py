"""The alert log on a real file system that runs full: a small tmpfs, by itself and under an engine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.admin_client import get, samples
from tests.support.conformance import connect
from tests.support.process import engine
from tests.support.tmpfs import fill, small_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.sync.client import ClientConnection

    from tests.support.process import Engine

pytestmark = pytest.mark.e2e

CONFIG = """
[alerts]
enabled = true
path = "disk/alerts.db"
[[feeds]]
type = "synthetic"
symbols = ["A"]
rate = 50
"""
DATA = {"text": "x" * 4000}


def test_the_log_survives_a_full_file_system(tmp_path):
    with small_disk(tmp_path, "2m") as disk:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.full_tmpfs", str(disk)],
            capture_output=True,
            text=True,
            timeout=100,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    answered = found["answered"]
    assert answered > 20
    assert found == {
        "answered": answered,
        "error": f"no room to write {disk / 'alerts.db'}: free space on its disk",
        "read": answered,
        "again": answered + 1,
        "head": answered + 1,
    }


class Client:
    """A publisher and a consumer over HTTP, which keep what they were answered over all engines."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}  # ids by key, of notices that were answered
        self.refused: list[str] = []  # keys
        self.received: list[str] = []  # ids
        self.acknowledged: set[str] = set()

    @contextmanager
    def using(self, running: Engine) -> Iterator[None]:
        """Have it make its requests to this engine."""
        with closing(HTTPConnection("127.0.0.1", running.port, timeout=20)) as self._http:
            yield

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        self._http.request(method, path, None if body is None else json.dumps(body))
        response = self._http.getresponse()
        answer = response.read()
        return response.status, json.loads(answer) if answer else None

    def publish(self, key: str) -> bool:
        """Return whether it was kept."""
        status, answer = self.request("POST", "/v1/alerts", {"key": key, "msg": "m", "data": DATA})
        if status == 503:
            check_refusal(answer)
            self.refused.append(key)
            return False
        assert status in (200, 201)
        self.kept[key] = answer["id"]
        return True

    def publish_until_full(self) -> None:
        number = len(self.kept)
        while self.publish(f"n{number}"):
            number += 1

    def poll(self) -> bool:
        """Return whether alerts were received."""
        status, answer = self.request("GET", "/v1/alerts?consumer=risk&timeout_s=0&limit=1000")
        if status == 204:
            return False
        self.received += [alert["id"] for alert in answer["alerts"]]
        return True

    def acknowledge(self, alert: str) -> bool:
        """Return whether it was acknowledged."""
        body = {"consumer": "risk", "alerts": [alert]}
        status, answer = self.request("POST", "/v1/alerts/ack", body)
        if status == 503:
            check_refusal(answer)
            return False
        assert (status, answer) == (200, {"alerts": [alert], "unknown": []})
        self.acknowledged.add(alert)
        return True


def check_refusal(answer: Any) -> None:
    assert answer["error"]["code"] == 503
    assert answer["error"]["msg"].startswith("no room to write ")
    assert answer["error"]["msg"].endswith("alerts.db: free space on its disk")


def until_ready(running: Engine, ready: bool) -> list[str]:
    """Wait until the engine is ready, or not; return its problems."""
    while True:
        status, _, body = get(running.admin_port, "/readyz")
        if (status == 200) == ready:
            return list(json.loads(body)["problems"])


def until_quoted_after(ws: ClientConnection, at_us: int) -> None:
    """Read until a quote that arrived after ``at_us``."""
    while not any(
        message["T"] == "q" and message["r"] > at_us for message in json.loads(ws.recv(timeout=20))
    ):
        pass


def test_an_engine_whose_disk_is_full_refuses_alerts_and_goes_on(tmp_path):
    client = Client()
    with small_disk(tmp_path, "4m") as disk:
        with (
            engine(CONFIG, tmp_path) as running,
            connect(running.url, compression=None, close_timeout=0) as ws,
            client.using(running),
        ):
            ws.send(json.dumps({"action": "subscribe", "quotes": ["A"]}))
            assert all(client.publish(f"n{number}") for number in range(40))
            while len(client.received) < 40:
                client.poll()
            unacknowledged = iter(client.received)
            assert client.acknowledge(next(unacknowledged))

            # While the disk is full.
            ballast = fill(disk)
            client.publish_until_full()
            while client.acknowledge(refused := next(unacknowledged)):
                pass
            (problem,) = until_ready(running, ready=False)
            assert problem == f"alert log: no room to write {disk / 'alerts.db'}: free space on its disk"
            found = samples(get(running.admin_port, "/metrics")[2])
            assert found["marketfeed_alert_log_writable",] == 0
            assert found["marketfeed_alert_log_failures_total",] >= 2
            assert not client.publish("refused")
            until_quoted_after(ws, time.time_ns() // 1000)

            # With room it goes on by itself.
            ballast.unlink()
            assert until_ready(running, ready=True) == []
            assert client.publish("refused")
            assert client.acknowledge(refused)

            fill(disk)
            client.publish_until_full()
            while client.acknowledge(next(unacknowledged)):
                pass
            running.process.send_signal(signal.SIGKILL)
            running.process.wait(20)
        (disk / "ballast").unlink()
        with engine(CONFIG, tmp_path) as running, client.using(running):
            client.received.clear()
            while client.poll():
                pass
            again = client.received
            assert len(again) == len(set(again))
            kept = set(client.kept.values())
            assert kept - set(again) <= client.acknowledged | {refused}
            assert not client.acknowledged & set(again)
            assert client.publish(client.refused[-1])
            assert running.stop() == 0
