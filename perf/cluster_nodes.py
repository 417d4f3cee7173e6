"""Nodes of a cluster and their NATS servers, for the benchmarks."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from perf import bench

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SYMBOLS: Final = 1000
LIMITS: Final = bench.ROOT / "deploy/nats/limits.conf"


@dataclass(slots=True)
class Nats:
    """A nats-server that can be killed and started again."""

    folder: Path
    port: int
    route_port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self, routes: Sequence[int] = ()) -> None:
        """Start it, as one of the cluster of the servers on ``routes``, if there are any."""
        text = (
            f"listen: 127.0.0.1:{self.port}\nserver_name: {self.folder.name}\n{LIMITS.read_text()}\n"
            f'jetstream {{ store_dir: "{self.folder}", sync_interval: always }}\n'
        )
        if routes:
            urls = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
            text += f"cluster {{ name: perf, listen: 127.0.0.1:{self.route_port}, routes: [{urls}] }}\n"
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder.with_suffix(".conf")
        config.write_text(text)
        program = Path(sys.executable).with_name("nats-server")
        self.process = subprocess.Popen([program, "-c", config], stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def nats(folder: Path, count: int) -> Iterator[list[Nats]]:
    """Run one server, or several as a cluster."""
    servers = [Nats(folder / f"n{number}", bench.free_port(), bench.free_port()) for number in range(count)]
    routes = [server.route_port for server in servers] if count > 1 else []
    try:
        for server in servers:
            server.start(routes)
        yield servers
    finally:
        for server in servers:
            server.kill()


def config(folder: Path, name: str, rate: float, servers: Sequence[Nats]) -> tuple[list[str], int, int]:
    """Write the configuration of a node, alone without ``servers``; return its command line and ports."""
    port, admin = bench.free_port(), bench.free_port()
    text = (
        "[engine]\ndrain_s = 0.5\ntap = './tap.sock'\n"
        f"[gateway]\nport = {port}\n[admin]\nport = {admin}\n"
        '[[feeds]]\nname = "bench"\ntype = "synthetic"\nactivity = "uniform"\ntrades = 0.0\n'
        f"symbols = {SYMBOLS}\nrate = {float(rate)}\n"
    )
    if servers:
        text += (
            f'[cluster]\nnode = "{name}"\nservers = {json.dumps([server.url for server in servers])}\n'
            f"replicas = {len(servers)}\n"
        )
    (folder / name).mkdir(exist_ok=True)
    path = folder / name / "config.toml"
    path.write_text(text)
    argv = [sys.executable, "-m", "marketfeed", "serve", "--log-level", "error", "--config", str(path)]
    return argv, port, admin


@contextlib.contextmanager
def node(folder: Path, name: str, rate: float, servers: Sequence[Nats] = ()) -> Iterator[bench.Server]:
    """Run a node until the block ends."""
    argv, port, admin = config(folder, name, rate, servers)
    with bench.process(argv, folder / name, port=port) as server:
        server.admin_port, server.tap = admin, folder / name / "tap.sock"
        yield server
