"""The clock is set by 2 h, under a running engine and between two: deliveries do not notice."""

from __future__ import annotations

import json
import os
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.admin_client import get, samples
from tests.support.conformance import connect
from tests.support.process import engine

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

    from tests.support.process import Engine

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)  # of Debian's package faketime
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(LIBRARY is None, reason="needs libfaketime (Debian: faketime)"),
]

CONFIG = """
[alerts]
enabled = true
max_tries = 20
[[feeds]]
type = "synthetic"
symbols = ["A"]
rate = 20
"""
TWO_HOURS_S = 7200
BETWEEN_S = (TWO_HOURS_S, -TWO_HOURS_S) if os.environ.get("MARKETFEED_PROVE") else (TWO_HOURS_S,)
TOLERANCE_S = 600  # between the engine's clock and ours


class Clock:
    """The Unix clock of the processes that are started from now on; their monotonic clock is the real one."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._file = folder / "clock"
        self.set(0)
        monkeypatch.setenv("LD_PRELOAD", str(LIBRARY))
        monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(self._file))
        monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
        monkeypatch.setenv("DONT_FAKE_MONOTONIC", "1")
        monkeypatch.setenv("NO_FAKE_STAT", "1")  # which reads the file for each file that is imported

    def set(self, ahead_s: int) -> None:
        """Set it ahead of the real clock."""
        self.ahead_s = ahead_s
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead_s:+d}s\n")
        new.replace(self._file)


@pytest.fixture
def clock(tmp_path, monkeypatch):
    return Clock(tmp_path, monkeypatch)


class Consumer:
    """A consumer of several engines, one after the other, that acknowledges nothing and checks delays."""

    def __init__(self) -> None:
        self._published: dict[str, tuple[float, int]] = {}  # when, and to which engine, by key
        self._engines = 0
        self.tries: dict[str, list[int]] = {}
        self.quotes = 0

    def join(self, running: Engine, ws: ClientConnection) -> None:
        """Take alerts from an engine."""
        self._running, self._ws = running, ws
        self._engines += 1
        subscribe = {"action": "subscribe", "quotes": ["A"], "alerts": ["*"], "consumer": "risk"}
        ws.send(json.dumps(subscribe))

    def publish(self, key: str) -> None:
        self._published[key] = (time.monotonic(), self._engines)
        with closing(HTTPConnection("127.0.0.1", self._running.port, timeout=20)) as connection:
            connection.request("POST", "/v1/alerts", json.dumps({"key": key, "msg": "m"}))
            assert connection.getresponse().status == 201

    def until(self, key: str, tries: int) -> dict[str, Any]:
        """Read until this delivery of the notice ``key``, and return it."""
        while True:
            for message in json.loads(self._ws.recv(timeout=20)):
                self.quotes += message["T"] == "q"
                if message["T"] == "a":
                    self._received(message["key"], message["try"])
                    if (message["key"], message["try"]) == (key, tries):
                        return dict(message)

    def _received(self, key: str, tries: int) -> None:
        self.tries.setdefault(key, []).append(tries)
        at_s, engines = self._published[key]
        delays = tries - 1 - (self._engines - engines)  # of 1, 2, 4 … s, less 20 %; a restart ends one
        assert time.monotonic() - at_s >= sum(0.8 * 2**number for number in range(delays))

    def check(self) -> None:
        """Check that each try came once and in order, and that nothing was parked."""
        for tries in self.tries.values():
            assert tries == sorted(set(tries))
        assert json.loads(get(self._running.admin_port, "/v1/alerts/dead")[2]) == {"dead": []}


def check_clock(message: dict[str, Any], clock: Clock) -> None:
    """Check that the engine has the clock that was set."""
    assert abs(message["r"] / 1e6 - time.time() - clock.ahead_s) < TOLERANCE_S


def test_redeliveries_come_as_before_when_the_clock_is_set(tmp_path, clock):
    consumer = Consumer()
    with engine(CONFIG, tmp_path) as running, connect(running.url, compression=None, close_timeout=0) as ws:
        consumer.join(running, ws)
        consumer.publish("before")
        check_clock(consumer.until("before", 1), clock)
        for ahead_s in (TWO_HOURS_S, -TWO_HOURS_S):
            clock.set(ahead_s)
            quotes = consumer.quotes
            consumer.publish(str(ahead_s))
            check_clock(consumer.until(str(ahead_s), 1), clock)
            consumer.until(str(ahead_s), 2)  # its delay is over, neither at once nor in 2 h
            assert consumer.quotes > quotes
        consumer.check()
        found = samples(get(running.admin_port, "/metrics")[2])
        assert found["marketfeed_alerts_unacknowledged", "risk"] == 3
        assert running.stop() == 0


@pytest.mark.parametrize("ahead_s", BETWEEN_S)
def test_an_engine_that_starts_under_another_time_goes_on_with_the_same_tries(tmp_path, clock, ahead_s):
    consumer = Consumer()
    with engine(CONFIG, tmp_path) as running, connect(running.url, compression=None, close_timeout=0) as ws:
        consumer.join(running, ws)
        consumer.publish("old")
        check_clock(consumer.until("old", 1), clock)
        assert running.stop() == 0
    clock.set(ahead_s)
    with engine(CONFIG, tmp_path) as running, connect(running.url, compression=None, close_timeout=0) as ws:
        consumer.join(running, ws)
        consumer.publish("new")
        check_clock(consumer.until("new", 1), clock)
        consumer.until("new", 2)
        assert consumer.tries["old"][1] > 1
        consumer.check()
        assert running.stop() == 0
