"""Server processes: start, measurement through /proc, and stop by their handles.

    with marketfeed(rate) as server:      server.port, server.pids(), server.pss_bytes()

Each server has its own process group; no other process is ever signalled.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent
READY_S: Final = 20.0
STOP_S: Final = 8.0


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass(slots=True)
class Server:
    """A server process with its addresses."""

    process: subprocess.Popen[str]
    port: int
    dialect: str = "marketfeed"
    admin_port: int = 0  # only of marketfeed
    tap: Path = Path()  # only of marketfeed, if configured

    def pids(self) -> list[int]:
        """Return the process and all its descendants."""
        found, at = [self.process.pid], 0
        while at < len(found):
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{found[at]}/task/{found[at]}/children").read_text()
                found += map(int, children.split())
            at += 1
        return found

    def pss_bytes(self) -> int:
        """Return proportional set size over all processes."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total


@contextlib.contextmanager
def process(argv: list[str], folder: Path, dialect: str = "marketfeed", port: int = 0) -> Iterator[Server]:
    """Run a server until the block ends; its first stdout line with "ready" marks its start.

    Without ``port``, the port is parsed from the URL at the end of that line. Raises
    RuntimeError with the end of its log if it does not start.
    """
    log = (folder / "server.log").open("w")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder, env=env, start_new_session=True
    )
    try:
        assert child.stdout is not None
        alarm = time.monotonic() + READY_S
        for line in child.stdout:
            if "ready" in line:
                port = port or int(line.split("://")[1].split()[0].rpartition(":")[2])
                break
            if time.monotonic() > alarm:
                break
        if child.poll() is not None or not port:
            tail = (folder / "server.log").read_text()[-600:]
            raise RuntimeError(f"{Path(argv[-1]).name} did not start: {tail}")
        yield Server(child, port, dialect)
    finally:
        # start_new_session made a process group that holds only this server.
        for how, patience_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(patience_s)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        if child.stdout is not None:
            child.stdout.close()
        log.close()


@contextlib.contextmanager
def marketfeed(
    rate: float, universe: int = 1000, engine: str = "", latency: str = "", feed: str = "", gateway: str = ""
) -> Iterator[Server]:
    """Run marketfeed with a uniform synthetic feed of ``rate`` quotes per second.

    ``engine``, ``latency``, ``feed`` and ``gateway`` are additional lines of these sections of its
    configuration.
    """
    with tempfile.TemporaryDirectory(prefix="marketfeed-perf-") as name:
        folder = Path(name)
        config = folder / "config.toml"
        admin_port = free_port()
        config.write_text(
            f"[engine]\ndrain_s = 0.5\n{engine}\n"
            f"[latency]\n{latency}\n"
            f"[gateway]\nport = 0\n{gateway}\n"
            f"[admin]\nport = {admin_port}\n"
            '[[feeds]]\nname = "bench"\ntype = "synthetic"\nactivity = "uniform"\ntrades = 0.0\n'
            f"symbols = {universe}\nrate = {float(rate)}\n{feed}\n"
        )
        argv = [sys.executable, "-m", "marketfeed", "serve", "--log-level", "error", "--config", str(config)]
        with process(argv, folder) as server:
            server.admin_port = admin_port
            server.tap = folder / "tap.sock"
            yield server


def metric(server: Server, name: str, **labels: str) -> float:
    """Return the sum of the samples of ``marketfeed_NAME`` with ``labels``."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.admin_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"marketfeed_{name}" and labels.items() <= sample.labels.items()
    )


def compiled(name: str) -> Path:
    """Compile ``perf/NAME.c`` into a temporary folder, once per version; return the program."""
    source = HERE / f"{name}.c"
    folder = Path(tempfile.gettempdir()) / f"marketfeed-perf-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    program = folder / f"{name}-{source.stat().st_mtime_ns}"
    if not program.exists():
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            raise RuntimeError(f"no C compiler: perf/{name}.c cannot be built")
        # Renamed when complete: another script may compile it concurrently.
        unfinished = program.with_suffix(f".{os.getpid()}")
        subprocess.run(
            [compiler, "-O3", "-march=native", "-o", str(unfinished), str(source), "-lm"], check=True
        )
        unfinished.rename(program)
    return program


def established(port: int) -> int:
    """Return the number of established server-side connections on ``port`` of 127.0.0.1."""
    end = f"0100007F:{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()
    return sum(f" {end} " in line[:20] and line.split()[3] == "01" for line in lines)
