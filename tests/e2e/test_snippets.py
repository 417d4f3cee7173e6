"""The clients in examples/ run as they stand, and come back after a proxy's 502 and a restart."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import sqlite3
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.lines import Lines
from tests.support.peers import ROOT, need
from tests.support.ports import free_port
from tests.support.process import engine

if TYPE_CHECKING:
    from pathlib import Path

SYNTHETIC = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 1000\nrate = 2000\n'
COMES_S = 60
AWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
EVENT_SOURCE = "--experimental-eventsource"
PAGE = "setInterval(() => {}, 1000);"  # a page stays; node ends while its EventSource waits to come back
IMPATIENT = ("subscribe.py",)  # begins with an engine, or not at all


class Proxy(socketserver.ThreadingTCPServer):
    """A proxy as nginx is by itself: while the engine is away, every request is answered 502."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.engine = free_port()
        self.refused = threading.Event()


class Passing(socketserver.BaseRequestHandler):
    """One connection of a client."""

    server: Proxy

    def handle(self) -> None:
        """Pass all bytes on, both ways, until either side ends."""
        try:
            behind = socket.create_connection(("127.0.0.1", self.server.engine))
        except OSError:
            self.request.recv(65536)
            self.request.sendall(AWAY)
            self.server.refused.set()
            return
        with behind:
            there = threading.Thread(target=passed_on, args=(self.request, behind), daemon=True)
            there.start()
            passed_on(behind, self.request)
            there.join()


def passed_on(one: socket.socket, other: socket.socket) -> None:
    """Send what comes from ``one`` to ``other``; end both when it ends."""
    with contextlib.suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
    for end in (one, other):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class Output:
    """The lines that a client prints, counted as they come."""

    def __init__(self, client: subprocess.Popen[str]) -> None:
        self._client = client
        self._lines: Lines[str] = Lines(client, str)

    def wait_for(self, text: str) -> None:
        """Wait for a line with ``text`` that comes from now on."""
        known = len(self._lines.all)
        self._lines.wait(lambda all_: any(text in line for line in all_[known:]))

    def close(self) -> None:
        """Kill the client."""
        self._client.kill()
        self._client.wait()
        self._lines.close()


@pytest.mark.parametrize(
    "name", ["events.js", "poll.py", "subscribe.js", "subscribe.py", "subscribe_plain.py"]
)
def test_a_client_comes_back_after_502_and_after_a_restart(tmp_path: Path, name: str) -> None:
    text = (ROOT / "examples" / name).read_text("utf-8")
    command = [sys.executable, "-u"]
    if name.endswith(".js"):
        # node does not import from http:// addresses
        text = text.replace("http://127.0.0.1:8765/marketfeed.js", (ROOT / "js" / "marketfeed.js").as_uri())
        command, text = [need("node"), EVENT_SOURCE], PAGE + text
        if subprocess.run([*command, "-e", ""], capture_output=True, check=False).returncode:
            pytest.skip(f"needs a node that takes {EVENT_SOURCE}")
    with Proxy() as proxy, contextlib.ExitStack() as cleanup:
        cleanup.callback(proxy.shutdown)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        script = tmp_path / f"client.{'mjs' if name.endswith('.js') else 'py'}"
        script.write_text(text.replace("127.0.0.1:8765", f"127.0.0.1:{proxy.server_address[1]}"))

        def started() -> Output:
            client = Output(subprocess.Popen([*command, script], stdout=subprocess.PIPE, text=True))
            cleanup.callback(client.close)
            return client

        output = None if name in IMPATIENT else started()
        for _ in range(2):
            if output is not None:
                proxy.refused.clear()
                assert proxy.refused.wait(COMES_S)
            with engine(SYNTHETIC, tmp_path, "--set", f"gateway.port={proxy.engine}") as running:
                output = output or started()
                output.wait_for("SY0")
                assert running.stop() == 0


def test_the_risk_service_survives_the_end_of_the_engine_and_its_own(tmp_path: Path) -> None:
    text = (ROOT / "examples" / "risk.py").read_text("utf-8")
    config = f"[alerts]\nenabled = true\n{SYNTHETIC}"
    script = tmp_path / "risk.py"

    def service() -> Output:
        return Output(
            subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
        )

    def published(key: str, **wait: str) -> httpx.Response:
        notice = {"key": key, "msg": key, "to": "risk-1"}
        url = f"http://127.0.0.1:{proxy.engine}/v1/alerts"
        return httpx.post(url, params=wait, json=notice, timeout=2 * COMES_S)

    wait = {"wait": "ack", "timeout_s": str(COMES_S)}
    with Proxy() as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        script.write_text(text.replace("127.0.0.1:8765", f"127.0.0.1:{proxy.server_address[1]}"))
        running = service()  # before the engine
        try:
            assert proxy.refused.wait(COMES_S)
            with engine(config, tmp_path, "--set", f"gateway.port={proxy.engine}"):
                assert published("first", **wait).status_code == 200
                running.close()
                assert published("second").status_code == 201
            # The engine was killed, too.
            proxy.refused.clear()
            running = service()
            assert proxy.refused.wait(COMES_S)
            with engine(config, tmp_path, "--set", f"gateway.port={proxy.engine}"):
                for key in ("second", "third"):
                    assert published(key, **wait).status_code == 200
        finally:
            running.close()
            proxy.shutdown()
    with contextlib.closing(sqlite3.connect(tmp_path / "risk.db")) as kept:
        found = kept.execute("SELECT msg FROM alerts ORDER BY rowid").fetchall()
    assert found == [("first",), ("second",), ("third",)]
