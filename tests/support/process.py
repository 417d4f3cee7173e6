"""A real marketfeed process, and a third-party client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.conformance import check_messages, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from websockets.sync.client import ClientConnection

ROOT = Path(__file__).parents[2]
READY_S = 60  # processes that start while other tests use all cores
# Sets the hard limit of open files, then runs the program.
FEW_FILES = (
    "import os, resource, sys; files = int(sys.argv[1]); "
    "resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)


class Engine:
    """``marketfeed serve`` as a process; collects its log."""

    def __init__(
        self, *arguments: str, cwd: Path, files: int | None = None, module: str = "marketfeed"
    ) -> None:
        """Run ``serve`` of ``module``, which has the command line of marketfeed."""
        limited = [] if files is None else ["-c", FEW_FILES, str(files)]
        self.process = subprocess.Popen(
            [sys.executable, *limited, "-m", module, "serve", *arguments],
            cwd=cwd,
            env=os.environ if module == "marketfeed" else os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[dict[str, Any]] = []
        self.stderr: list[str] = []
        self._grown = threading.Condition()
        self._reader = threading.Thread(target=self._gather, daemon=True)
        self._reader.start()
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline().strip()
        assert self.ready.startswith(("marketfeed ready http://", "marketfeed ready https://")), "".join(
            self.stderr
        )
        self.url = "ws" + self.ready.split()[2].removeprefix("http") + "/v1/stream"
        self.port = int(self.ready.split()[2].rpartition(":")[2])

    @property
    def admin_port(self) -> int:
        """The admin listener's port, from the log."""
        port: int = self.logged("admin listening")["port"]
        return port

    def logged(self, event: str) -> dict[str, Any]:
        """Return the first log entry of ``event``, waiting for it."""

        def found() -> dict[str, Any] | None:
            return next((entry for entry in self.log if entry["event"] == event), None)

        with self._grown:
            assert self._grown.wait_for(found, READY_S), f"never logged: {event}"
            entry = found()
        assert entry is not None
        return entry

    def _gather(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._grown:
                self.stderr.append(line)
                if line.startswith("{"):
                    self.log.append(json.loads(line))
                self._grown.notify_all()

    def stop(self, signal_: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(signal_)
        return self.process.wait(READY_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def engine(
    config: str, folder: Path, *arguments: str, files: int | None = None, module: str = "marketfeed"
) -> Iterator[Engine]:
    """Run an engine on a free port with ``config``; it may have ``files`` open."""
    path = folder / "config.toml"
    path.write_text(config)
    own = ("--config", str(path), "--set", "gateway.port=0", "--set", "admin.port=0")
    running = Engine(*own, *arguments, cwd=folder, files=files, module=module)
    try:
        yield running
    except BaseException as error:
        # What the engine says of it: such as a worker that it has replaced.
        told = [line for line in running.stderr if '"level":"info"' not in line.replace(" ", "")]
        error.add_note("the engine's log:\n" + "".join(told[-20:]))
        raise
    finally:
        running.close()


class Reader(threading.Thread):
    """A session that subscribes and stores every frame until ``enough`` returns True.

    Frames are stored unparsed: a reader that parses while it reads would fall
    behind a fast replay and be conflated.
    """

    def __init__(self, url: str, request: dict[str, Any], enough: Callable[[bytes], bool]) -> None:
        super().__init__(daemon=True)
        self.frames: list[bytes] = []
        self.error: BaseException | None = None
        self._url, self._request, self._enough = url, request, enough
        self.start()

    def run(self) -> None:
        try:
            with connect(self._url, max_size=None, compression=None) as ws:
                ws.send(json.dumps(self._request))
                while True:
                    self.frames.append(ws.recv(timeout=60, decode=False))
                    if self._enough(self.frames[-1]):
                        return
        except BaseException as error:
            self.error = error

    def result(self, timeout_s: float) -> list[list[dict[str, Any]]]:
        """Return all frames once there are enough; re-raises the session's exception."""
        self.join(timeout_s)
        if self.error is not None:
            raise self.error
        assert not self.is_alive(), "never enough"
        frames = [json.loads(frame) for frame in self.frames]
        for messages in frames:
            check_messages(messages)
        return frames


@contextmanager
def open_session(url: str) -> Iterator[ClientConnection]:
    """Open a session and read its first message."""
    with connect(url, compression=None) as ws:
        (first,) = json.loads(ws.recv(timeout=10))
        assert first["msg"] == "connected"
        yield ws


def subscribe(ws: ClientConnection, **request: Any) -> None:
    """Subscribe and wait until it is in force: a session is not sent trades that came before.

    For a session without anything to be sent: what comes before ``synced`` is discarded.
    """
    ws.send(json.dumps({"action": "subscribe", **request}))
    while '"synced"' not in (text := str(ws.recv(timeout=30))):
        assert '"error"' not in text, text
