"""SIGKILLs of an engine and its workers at random moments, under alerts of rules, notices and consumers.

    ticks over TCP ──► rules ──► log ──► polled:   one client over HTTP
    notices over HTTP ──────────► │ ├──► streamed: two sessions on WebSockets, with patterns
                                  │ └──► killed:   a process over HTTP, which is killed too
                                  │
                       killer: at the start, after some alerts, during a commit

Publishers and consumers repeat what failed. After a kill the ticks go on a few steps earlier, with the same
venue times: the same causes again. At the end the log is compared with what the consumers saw.
"""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from marketfeed.alerts.alert import alert_id
from marketfeed.alerts.sqlite_reads import SqliteReader
from marketfeed.core.binary import quotes_frame, symbols_frame
from marketfeed.core.records import QUOTE
from marketfeed.core.units import MS
from tests.support.alert_consumers import Api, Polling, Task
from tests.support.alert_histories import History, Watched, check, read, redeliveries
from tests.support.alert_streams import FAILURES, Streaming
from tests.support.crowd import children, lives
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

ENGINE: Final = "engine"
WORKER: Final = "worker"
CONSUMER: Final = "consumer"
HISTORY: Final = "killed.history"  # of the consumer process
ROOT: Final = str(Path(__file__).parents[2])
CONFIG: Final = """
[engine]
workers = {workers}
[gateway]
port = {gateway}
[admin]
port = {admin}
[limits]
requests_per_s = 1_000_000
[latency]
enabled = false
[alerts]
enabled = true
in_flight = 100
max_tries = 1000  # what is killed before it is acknowledged shall not become a dead letter
[[feeds]]
name = "pushed"
type = "push"
listen = "127.0.0.1:{push}"
[[alerts.rules]]
name = "wide"
type = "spread"
bps = 50.0
[[alerts.rules]]
name = "huge"
type = "spread"
bps = 500.0
"""
IDS: Final = {"A": 0, "B": 1, "C": 2, "D": 3, "LAST": 4}
SPREADS_PX: Final = (10_000_000_000, 10_000_000, 1_000_000_000, 10_000_000)  # huge, tight, wide, tight
BID_PX: Final = 100_000_000_000
PATTERNS: Final = {"polled": ["*"], "streamed": ["wi*", "notice"], "killed": ["*"]}
PACE_S: Final = 0.05  # most between publications when no alert comes
PATIENCE_S: Final = 120.0  # for what has to happen, on a busy machine
STATE: Final = "/v1/alerts/consumers"


class Ticks:
    """A publisher of the push feed: with each step the spread of each symbol changes."""

    def __init__(self, port: int, seen: History, rng: random.Random) -> None:
        self._port, self._seen, self._random = port, seen, rng
        self._start_ns = time.time_ns()
        self._number = 0
        self._sock: socket.socket | None = None

    def step(self) -> None:
        """Publish the next ticks, and wait until an alert was seen, or PACE_S. Raises OSError."""
        seen = len(self._seen.ids)
        with self._connected() as sock:
            sock.sendall(self._frame("ABCD", SPREADS_PX[self._number % len(SPREADS_PX)]))
        self._number += 1
        self._seen.wait(seen + 1, PACE_S)

    def last(self) -> str:
        """Publish a tick of LAST that raises an alert; return the alert's id. Raises OSError."""
        with self._connected() as sock:
            sock.sendall(self._frame(["LAST"], SPREADS_PX[2]))
        return alert_id("wide", "LAST", "raised", self._t_ns, 0)

    def close(self) -> None:
        """End the connection."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        """Return the connection, or a new one, on which ticks are repeated; close it if it fails."""
        try:
            if self._sock is None:
                self._sock = socket.create_connection(("127.0.0.1", self._port), timeout=20)
                self._sock.sendall(symbols_frame(IDS, 0))
                self._number -= min(self._random.randint(0, 3), self._number)
            yield self._sock
        except OSError:
            self.close()
            raise

    @property
    def _t_ns(self) -> int:
        return self._start_ns + self._number * MS

    def _frame(self, names: Iterable[str], spread_px: int) -> bytes:
        symbols = [IDS[name] for name in names]
        quotes = np.zeros(len(symbols), QUOTE)
        quotes["symbol"], quotes["ts_event"] = symbols, self._t_ns
        quotes["bid_px"], quotes["ask_px"] = BID_PX, BID_PX + spread_px
        quotes["bid_sz"] = quotes["ask_sz"] = 1
        return quotes_frame(quotes, 0)


class Notices:
    """A publisher over HTTP that repeats what was not answered; ``answered`` are ids by key."""

    def __init__(self, port: int, seen: History, rng: random.Random) -> None:
        self.answered: dict[str, str] = {}
        self._api, self._seen, self._random = Api(port), seen, rng

    def step(self) -> None:
        """Publish the next notice, or one that was answered; wait until an alert was seen, or PACE_S."""
        seen = len(self._seen.ids)
        number = len(self.answered)
        if again := number > 0 and self._random.random() < 0.1:
            number = self._random.randrange(number)
        key = f"order-{number}"
        body = {"key": key, "msg": "filled"} | ({"to": "streamed"} if number % 3 == 0 else {})
        status, answer = self._api.request("POST", "/v1/alerts", body)
        if status not in (200, 201):
            raise http.client.HTTPException(f"{status}: {answer}")
        assert not again or (status == 200 and answer["id"] == self.answered[key])
        self.answered[key] = answer["id"]
        self._seen.wait(seen + 1, PACE_S)

    def close(self) -> None:
        """End the connection."""
        self._api.close()


class Life:
    """A Python program as a process, from its start until it is killed or stopped."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._log = folder / "stderr.log"
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=folder, env=os.environ | {"PYTHONPATH": ROOT}, text=True,
                stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip

    def until_ready(self) -> None:
        """Wait until the engine is ready."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("marketfeed ready"), self.tail()

    def tail(self) -> str:
        """Return the end of what was logged."""
        return self._log.read_text()[-4000:]

    def end(self, signal_: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal; return the exit status."""
        self.process.send_signal(signal_)
        status = self.process.wait(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@dataclass
class Figures:
    """What a storm was like."""

    kills: Counter[str] = field(default_factory=Counter)  # by what was killed; of engines by moment
    duration_s: float = 0.0
    problems: list[str] = field(default_factory=list)
    alerts: int = 0
    redeliveries: int = 0


class Storm:
    """SIGKILLs of engines, workers and the consumer process, over at least ``alerts`` alerts.

    ``kills`` has how many of each, by ENGINE, WORKER and CONSUMER; ``seed`` draws their order and moments.
    The consumers that are not killed leave a share ``ignored`` of the deliveries unacknowledged.
    """

    def __init__(
        self, folder: Path, kills: Mapping[str, int], alerts: int, *, seed: int = 0, ignored: float = 0.0
    ) -> None:
        self._folder, self._alerts = folder, alerts
        self._plan = list(Counter(kills).elements())
        workers = 2 if kills.get(WORKER) else 0
        self._random = random.Random(seed)
        self._random.shuffle(self._plan)
        self._workers = workers
        self._ports = {name: free_port() for name in ("gateway", "admin", "push")}
        (folder / "config.toml").write_text(CONFIG.format(workers=workers, **self._ports))
        self._histories = {name: History() for name in ("polled", "streamed")}
        self._figures = Figures()
        self._start_s = 0.0  # how long a start took
        port, seen = self._ports["gateway"], self._histories["polled"]
        self._ticks = Ticks(self._ports["push"], seen, random.Random(seed + 1))
        self._notices = Notices(port, seen, random.Random(seed + 2))
        self._polling = Polling(port, "polled", PATTERNS["polled"], seen, ignored=ignored)
        self._sessions = [
            Streaming(
                f"ws://127.0.0.1:{port}/v1/stream", "streamed", PATTERNS["streamed"],
                self._histories["streamed"], ordered=not workers, ignored=ignored, seed=seed + number,
            )
            for number in range(2)
        ]  # fmt: skip
        self._publishers = [Task(self._ticks.step), Task(self._notices.step)]
        self._consumers = [
            Task(self._polling.step), *(Task(one.step, FAILURES) for one in self._sessions)
        ]  # fmt: skip

    def run(self) -> Figures:
        """Kill, let the consumers take everything, stop the engine, and check."""
        started_s = time.monotonic()
        self._life = self._engine()
        self._killed = self._consumer()
        try:
            self._life.until_ready()
            self._start_s = time.monotonic() - started_s
            for task in [*self._publishers, *self._consumers]:
                task.start()
            kill = {ENGINE: self._kill_engine, WORKER: self._kill_worker, CONSUMER: self._kill_consumer}
            for what in self._plan:
                kill[what]()
            self._drain()
            assert self._life.end(signal.SIGTERM) == 0, self._life.tail()
        finally:
            for task in [*self._publishers, *self._consumers]:
                task.stopping.set()
            self._life.end()
            self._killed.end()
        self._figures.duration_s = time.monotonic() - started_s
        self._check()
        return self._figures

    def _engine(self) -> Life:
        return Life(self._folder, "marketfeed", "serve", "--config", "config.toml")

    def _consumer(self) -> Life:
        port, patterns = str(self._ports["gateway"]), ",".join(PATTERNS["killed"])
        return Life(self._folder, "tests.support.alert_consumers", port, "killed", patterns, HISTORY)

    def _kill_consumer(self) -> None:
        """Kill the consumer process, mostly between deliveries and the answers to their acknowledgements."""
        self._until_seen(self._some())
        if self._random.random() < 0.8:
            self._until((self._folder / HISTORY).exists)
            self._until(self._consumer_works)
        self._killed.end()
        self._killed = self._consumer()
        self._figures.kills[CONSUMER] += 1

    def _kill_worker(self) -> None:
        """Kill a worker; the engine starts another one."""
        self._until_seen(self._some())
        living = [pid for pid in children(self._life.process.pid) if lives(pid)]
        os.kill(self._random.choice(living), signal.SIGKILL)
        self._figures.kills[WORKER] += 1

    def _kill_engine(self) -> None:
        moments = {"start": self._at_start, "alerts": self._after_alerts, "commit": self._in_commit}
        moment = self._random.choice(list(moments))
        moments[moment]()
        self._life.end()
        self._life = self._engine()
        self._figures.kills[f"{ENGINE}, {moment}"] += 1

    def _at_start(self) -> None:
        """Wait for a part of the time that a start takes, or for readiness and some milliseconds."""
        if self._random.random() < 0.5:
            self._life.until_ready()
            time.sleep(self._random.uniform(0, 0.02))
        else:
            time.sleep(self._random.uniform(0, 1.2 * self._start_s))

    def _after_alerts(self) -> None:
        self._until_seen(self._some())

    def _in_commit(self) -> None:
        """Wait until the writer has written to the WAL, which it does before the commit is on disk."""
        self._until_seen(self._some())
        wal = self._folder / "var" / "alerts.db-wal"

        def written() -> tuple[int, int]:
            found = wal.stat()
            return found.st_size, found.st_mtime_ns

        before = written()
        self._until(lambda: written() != before)

    def _some(self) -> int:
        return self._random.randint(1, max(2 * self._alerts // len(self._plan), 1))

    def _consumer_works(self) -> bool:
        """Return whether the consumer process has kept a delivery last."""
        with (self._folder / HISTORY).open("rb") as file:
            file.seek(-min(200, file.seek(0, os.SEEK_END)), os.SEEK_END)
            return file.read().rstrip().rpartition(b"\n")[2].startswith(b'["Seen"')

    def _until_seen(self, more: int) -> None:
        seen = self._histories["polled"]
        wanted = len(seen.ids) + more
        self._until(lambda: seen.wait(wanted, 0.1))

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert self._life.process.poll() is None, self._life.tail()
            assert self._killed.process.poll() is None, self._killed.tail()
            for task in [*self._publishers, *self._consumers]:
                task.check()
            assert time.monotonic() < deadline_s, (self._figures, self._life.tail())

    def _drain(self) -> None:
        """Have as many alerts as wanted; end the publishers, then the consumers when nothing is unsettled."""
        seen = self._histories["polled"]
        self._until_seen(max(self._alerts - len(seen.ids), 1))
        for publisher in self._publishers:
            publisher.stop()
        self._until(self._last_seen)
        self._until(self._settled)
        for task in self._consumers:
            task.stop()
        for close in (self._ticks.close, self._notices.close, self._polling.close):
            close()
        for session in self._sessions:
            session.close()

    def _last_seen(self) -> bool:
        """Publish a last tick, which is evaluated after all others; return whether its alert was seen."""
        seen = self._histories["polled"]
        before = len(seen.ids)
        with suppress(OSError):
            last = self._ticks.last()
            seen.wait(before + 1, 0.1)
            return last in seen.ids
        return False

    def _settled(self) -> bool:
        api = Api(self._ports["admin"])
        status, answer = api.request("GET", STATE)
        api.close()
        assert status == 200
        states: list[dict[str, Any]] = answer["consumers"]
        assert not any(state["dead"] for state in states)
        all_there = {state["consumer"] for state in states} == set(PATTERNS)
        return all_there and all(state["waiting"] == state["oldest"] == 0 for state in states)

    def _check(self) -> None:
        reader = SqliteReader(self._folder / "var" / "alerts.db")
        log = reader.read(0, 1_000_000)
        reader.close()
        events = {name: history.events for name, history in self._histories.items()}
        events["killed"] = read(self._folder / HISTORY)
        watched = {
            name: Watched(PATTERNS[name], events[name], in_order=name == "polled" and not self._workers)
            for name in PATTERNS
        }
        self._figures.problems = check(log, watched, self._notices.answered)
        self._figures.alerts = len(log)
        self._figures.redeliveries = sum(redeliveries(one) for one in events.values())
