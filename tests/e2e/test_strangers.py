"""What strangers do to a real engine, and what its sessions and its operator notice of it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage

from tests.support import SUPPORT
from tests.support.admin_client import get
from tests.support.conformance import connect
from tests.support.process import Engine, engine, open_session
from tests.support.publishers import address_of

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.alone

SYNTHETIC = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 10\nrate = 1000\n'
SILENCE_S = 0.3
TRIES = 4
ATTACKERS = 100


def asked(port: int, path: str, headers: dict[str, str], address: str = "127.0.0.1") -> tuple[int, bytes]:
    status, _, body = get(port, path, headers=headers, address=address)
    return status, body


def memory_kb(pid: int) -> int:
    """Return the highest resident memory that the process ever had."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0])


class Listener(threading.Thread):
    """A healthy session on every tick, and its longest silence."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.frames = 0
        self.longest_s = 0.0
        self.stopping = False
        self._url = url
        self.start()

    def run(self) -> None:
        with open_session(self._url) as ws:
            ws.send('{"action":"subscribe","quotes":["*"]}')
            while json.loads(ws.recv(timeout=10))[-1]["T"] != "synced":
                pass
            before = time.monotonic()
            while not self.stopping:
                ws.recv(timeout=30)
                self.frames += 1
                now = time.monotonic()
                self.longest_s, before = max(self.longest_s, now - before), now

    def stop(self) -> float:
        """Return the longest silence, in seconds."""
        self.stopping = True
        self.join(30)
        return self.longest_s


@contextmanager
def flood(seconds: float, shut: bool, *ports: int) -> Iterator[None]:
    script = SUPPORT / "flood.py"
    argv = [sys.executable, str(script), str(seconds), str(ATTACKERS), "1" if shut else "0", *map(str, ports)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        yield
        told, _ = process.communicate(timeout=60)
        assert int(told) > ATTACKERS  # they were let go, and came again
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("shut", [False, True], ids=["open", "half-closed"])
def test_bodies_that_nobody_asked_for_silence_no_session(tmp_path, shut):
    with engine(SYNTHETIC, tmp_path) as running:
        listener = Listener(running.url)
        while listener.frames < 10:
            time.sleep(0.05)
        before_kb = memory_kb(running.process.pid)
        silences: list[float] = []
        # What holds the engine up does so each time; a machine that is busy with other things does not.
        while len(silences) < TRIES and not (silences and min(silences) < SILENCE_S):
            listener.longest_s = 0.0
            with flood(3.0, shut, running.port, running.admin_port):
                pass
            silences.append(listener.longest_s)
        grown_kb = memory_kb(running.process.pid) - before_kb
        listener.stop()
        assert min(silences) < SILENCE_S
        assert grown_kb < ATTACKERS * 1024


@pytest.mark.parametrize("workers", [0, 1])
def test_a_page_whose_name_resolves_to_the_engine_reads_nothing(tmp_path, workers):
    own = '[gateway]\nhosts = ["feed.example.com"]\n[admin]\nhosts = ["*.scrape.example"]\n'
    with engine(own + SYNTHETIC, tmp_path, "--set", f"engine.workers={workers}") as running:
        for port, path, key, name in (
            (running.port, "/v1/symbols", "gateway.hosts", "feed.example.com"),
            (running.admin_port, "/metrics", "admin.hosts", "a.scrape.example"),
        ):
            for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "x"):
                status, body = asked(port, path, {"Host": host})
                assert status == 421
                assert key in json.loads(body)["error"]["msg"]
            for host in (f"127.0.0.1:{port}", "localhost", "[::1]", f"{name}:{port}", socket.gethostname()):
                assert asked(port, path, {"Host": host})[0] == 200
            told = running.logged(f"host not allowed, see {key}")
            assert told["host"] == "evil.example"
        assert asked(running.port, "//x/v1/symbols", {})[0] == 404
        assert asked(running.admin_port, "//x/metrics", {})[0] == 404
        _, metrics = asked(running.admin_port, "/metrics", {})
        assert b'marketfeed_refused_total{reason="host not allowed"}' in metrics


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_pages_of_an_engine_on_all_addresses_connect_by_whichever_they_used(tmp_path, host):
    anyone = f'[auth]\nanonymous = true\n[gateway]\nhost = "{host}"\n'
    reached = [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.2"),
        *([("::1", "[::1]")] if ":" in host else []),
    ]
    with engine(anyone + SYNTHETIC, tmp_path) as running:
        port = running.port
        for address, name in reached:
            url, origin = f"ws://{name}:{port}/v1/stream", f"http://{name}:{port}"
            with connect(url, origin=origin, compression=None) as ws:
                assert json.loads(ws.recv(timeout=10))[0]["msg"] == "connected"
            strange = {"Host": f"{name}:{port}", "Origin": "http://10.0.0.9:8765"}
            assert asked(port, "/v1/symbols", strange, address)[0] == 403
        told = running.logged("origin not allowed, see gateway.allowed_origins")
        assert told["origin"] == "http://10.0.0.9:8765"


@pytest.mark.parametrize("files", [96, 256])
def test_at_the_limit_of_files_the_operator_gets_in_and_sessions_go_on(tmp_path, files):
    patient = '[limits]\nhandshake_s = 60\n[engine]\ntap = "./tap.sock"\n'
    push = '[[feeds]]\nname = "p"\ntype = "push"\nlisten = "./push.sock"\n'
    with engine(patient + SYNTHETIC + push, tmp_path, files=files) as running, ExitStack() as held:
        listener = Listener(running.url)
        while listener.frames < 10:
            time.sleep(0.05)
        kept = []
        for _ in range(2 * files):
            sock = held.enter_context(socket.create_connection(("127.0.0.1", running.port)))
            sock.settimeout(0.1)
            kept.append(sock)
        assert running.logged("a connection was refused: see ulimit -n")["reserved"] > 0
        for _ in range(5):
            for path in ("/metrics", "/healthz", "/v1/sessions"):
                assert asked(running.admin_port, path, {})[0] == 200
        _, metrics = asked(running.admin_port, "/metrics", {})
        assert b'marketfeed_refused_total{reason="too many open files"}' in metrics
        for path, kind in (("tap.sock", socket.SOCK_SEQPACKET), ("push.sock", socket.SOCK_STREAM)):
            with socket.socket(socket.AF_UNIX, kind) as sock:
                sock.connect(str(tmp_path / path))
        frames = listener.frames
        while listener.frames < frames + 100:
            time.sleep(0.01)
        assert len(list(Path(f"/proc/{running.process.pid}/fd").iterdir())) < files - 8
        held.close()
        with until_let_in(running) as ws:
            ws.send('{"action":"ping"}')
            assert json.loads(ws.recv(timeout=10))[0]["T"] == "pong"
        assert listener.stop() < 10


@pytest.mark.parametrize("files", [96, 256])
def test_connections_held_open_at_the_admin_port_keep_nobody_out(tmp_path, files):
    with engine(SYNTHETIC, tmp_path, files=files) as running, ExitStack() as held:
        for _ in range(2 * files):
            held.enter_context(socket.create_connection(("127.0.0.1", running.admin_port)))
        for _ in range(5):
            assert asked(running.admin_port, "/metrics", {})[0] == 200
            assert asked(running.port, "/v1/symbols", {})[0] == 200
        assert running.logged("the oldest connection to the admin port was closed")["most"] >= 12
        assert len(list(Path(f"/proc/{running.process.pid}/fd").iterdir())) < files - 8


def test_publishers_of_many_feeds_leave_the_operator_a_way_in(tmp_path):
    names = ("p", "q", "r")
    feeds = "".join(f'[[feeds]]\nname = "{n}"\ntype = "push"\nlisten = "./{n}.sock"\n' for n in names)
    with engine(SYNTHETIC + feeds, tmp_path, files=96) as running, ExitStack() as held:
        for name in names:
            address_of(running, name)  # it listens
        for number in range(96):
            sock = held.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(tmp_path / f"{names[number % len(names)]}.sock"))
        assert running.logged("publisher refused: see ulimit -n")["files"] == 84
        for _ in range(5):
            assert asked(running.admin_port, "/metrics", {})[0] == 200
        assert not any(entry["event"] == "cannot accept" for entry in running.log)


@contextmanager
def until_let_in(running: Engine):
    """Open a session as soon as the engine has noticed that others left."""
    deadline = time.monotonic() + 10
    while True:
        try:
            session = open_session(running.url)
            ws = session.__enter__()
            break
        except (OSError, EOFError, InvalidMessage, ConnectionClosed):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    try:
        yield ws
    finally:
        session.__exit__(None, None, None)
