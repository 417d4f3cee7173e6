"""What do 200 sessions that reconnect at once cost the sessions that stayed connected?

    server ──► 500 sessions of the load client, live throughout ──► p50, p99
           └─► 200 sessions in waves: disconnected together, resumed together by their cursors

Each round measures the live sessions without the waves and with them. A wave connects; once all its sessions
are connected, they resume at the same moment. A session that has received `synced` is disconnected.

Reports: the live sessions' p99 with the waves over that without, and the duration of a wave from its requests
to its last `synced`. Not covered: networks. Three processes share the cores, so on a machine with two cores
the reading of the waves also delays the live sessions.
"""

from __future__ import annotations

import argparse
import functools
import json
import selectors
import socket
import struct
import subprocess
import sys
import time
from typing import Final

from rich.table import Table

from perf import bench

HANDSHAKE: Final = (
    b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: bWFya2V0ZmVlZC1wZXJmLg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
READ_BYTES: Final = 1 << 18


class Returning:
    """A session that disconnects and resumes; its input is searched, not parsed."""

    def __init__(self, number: int, options: argparse.Namespace) -> None:
        first = number * 7 % (options.universe - options.symbols)
        self._names = [f"SY{i:04d}" for i in range(first, first + options.symbols)]
        self._port = options.port
        self.cursor: str | None = None
        self.resumed = self.synced = self.open = False
        self.sock: socket.socket
        self._tail = b""

    def connect(self) -> None:
        """Start a non-blocking connect."""
        self.sock = socket.create_connection(("127.0.0.1", self._port))
        self.sock.sendall(HANDSHAKE)
        self.sock.setblocking(False)
        self.resumed = self.synced = self.open = False
        self._tail = b""

    def ask(self) -> None:
        """Resume: subscribe after the last cursor."""
        request = {"action": "subscribe", "quotes": self._names}
        text = json.dumps(request | ({"after": self.cursor} if self.cursor else {})).encode()
        head = struct.pack("!BBHI", 0x81, 0x80 | 126, len(text), 0)  # masked with zeros
        self.sock.sendall(head + text)

    def read(self) -> int:
        """Read available bytes up to `synced`; return them."""
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            raise SystemExit("perf.resume: the server closed a session")
        text = self._tail + data
        self.open = self.open or b"\r\n\r\n" in text
        self.resumed = self.resumed or b'"resumed":true' in text
        _, told, rest = text.partition(b'"synced","cursor":"')
        if told and b'"' in rest:
            self.synced, self.cursor = True, rest.partition(b'"')[0].decode()
        self._tail = text[-300:]
        return len(data)


def waves(options: argparse.Namespace) -> None:
    """Run waves until stdin ends; print their figures."""
    poll = selectors.DefaultSelector()
    poll.register(sys.stdin.buffer, selectors.EVENT_READ, None)
    sessions = [Returning(number, options) for number in range(options.returning)]
    took: list[float] = []
    resumed = read = 0
    while True:
        for session in sessions:
            session.connect()
            poll.register(session.sock, selectors.EVENT_READ, session)
        while not all(session.open for session in sessions):
            read += step(poll, took, resumed, read)
        began = time.perf_counter()
        for session in sessions:
            session.ask()
        waiting = len(sessions)
        while waiting:
            read += step(poll, took, resumed, read)
            for session in [
                key.data for key in list(poll.get_map().values()) if key.data and key.data.synced
            ]:
                waiting -= 1
                resumed += session.resumed
                poll.unregister(session.sock)
                session.sock.close()
        took.append(time.perf_counter() - began)
        time.sleep(options.away)


def step(poll: selectors.BaseSelector, took: list[float], resumed: int, read: int) -> int:
    """Read available bytes; return their number. Exits with a line of JSON once stdin has ended."""
    more = 0
    for key, _ in poll.select():
        if key.data is None:
            print(json.dumps({"waves_s": took[1:], "read_mb": read / 1e6, "resumed": resumed}))
            raise SystemExit
        more += key.data.read()
    return more


def point(
    options: argparse.Namespace, work: bench.Work, with_waves: bool
) -> tuple[bench.Point, dict[str, object]]:
    """Measure the live sessions once."""
    start = functools.partial(bench.marketfeed, universe=work.universe)
    with start(options.rate) as server:
        visitors = None
        if with_waves:
            argv = [sys.executable, "-m", "perf.resume", "--port", str(server.port)]
            for name in ("returning", "symbols", "universe", "away"):
                argv += [f"--{name}", str(getattr(options, name))]
            visitors = subprocess.Popen(
                argv, cwd=bench.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        found = bench.load(server, work, options.rate)
        found.assert_honest()
        told: dict[str, object] = {}
        if visitors is not None:
            told = json.loads(visitors.communicate("", timeout=60)[0])
    return found, told


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.resume",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.common(parser)
    parser.add_argument("--rate", type=float, default=100_000, help="quotes/s offered")
    parser.add_argument("--returning", type=int, default=200, help="sessions per wave")
    parser.add_argument("--away", type=float, default=0.2, help="seconds between disconnect and reconnect")
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)  # internal: run the waves
    options = parser.parse_args()
    if options.port:
        waves(options)
        return
    work = bench.work_of(options)
    say = bench.console.print
    say(bench.machine(), style="dim", highlight=False)
    ratios: list[float] = []
    wave_s: list[float] = []
    table = Table(
        title=f"{options.returning} sessions away for {options.away:g} s, {options.rate:,.0f} quotes/s"
    )
    for title in (
        "round",
        "p50 ms alone",
        "with waves",
        "p99 ms alone",
        "with waves",
        "p99 ratio",
        "waves",
        "wave duration, s",
    ):
        table.add_column(title, justify="right")
    for number in range(1, options.rounds + 1):
        alone, _ = point(options, work, False)
        beside, told = point(options, work, True)
        took = [float(s) for s in told["waves_s"]]  # type: ignore[attr-defined]
        if not told["resumed"]:
            raise AssertionError(f"nobody was resumed: {told}")
        ratios.append(beside.p99_ms / alone.p99_ms)
        wave_s += took
        table.add_row(
            str(number), f"{alone.counts['p50_ms']:.2f}", f"{beside.counts['p50_ms']:.2f}",
            f"{alone.p99_ms:.2f}", f"{beside.p99_ms:.2f}", f"{ratios[-1]:.2f}", str(len(took)),
            f"{bench.middle(took):.2f}",
        )  # fmt: skip
    say(table)
    say(f"p99 with waves over p99 without, median: {bench.middle(ratios):.2f}")
    say(f"duration of a wave, median: {bench.middle(wave_s):.2f} s")


if __name__ == "__main__":
    main()
