"""What does compression save a running engine, and what does it cost?

    engine ──► 100 ms, 600 sessions × the same 100 symbols: 4 phases, groups of about 150
                  ├──► bytes are counted and discarded
                  └──► one marketfeed.client reads and checks

Reports: server CPU and bytes per delivered frame, without compression and with it, in turns, and the ratios.
CPU is that of the whole engine, with its feed. Sockets are on loopback. Not covered: groups that are too
small to be compressed.

    python -m perf.compress_engine --rounds 5
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import selectors
import socket
import statistics
import threading
import time
from typing import NamedTuple

import marketfeed
from marketfeed.core.units import MS
from marketfeed.fanout.ws_frames import MASKED, TEXT
from perf import bench

INTERVAL_NS = 100 * MS  # of premium


class Point(NamedTuple):
    """One measurement."""

    cpu_us: float  # per delivered frame
    frame_bytes: float
    share: float  # of a core

    def __str__(self) -> str:
        return (
            f"{self.cpu_us:6.2f} µs and {self.frame_bytes:8,.0f} bytes per frame, {self.share:.0%} of a core"
        )


def cpu_s(pids: list[int]) -> float:
    """Return user and system time of processes."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def session(port: int, names: list[str], compress: bool) -> socket.socket:
    """Open a session and subscribe; return its socket, whose input is not parsed."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(
        b"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n" % port
    )
    assert sock.recv(4096).startswith(b"HTTP/1.1 101")
    request = {"action": "subscribe", "quotes": names, "tier": "premium", "compress": compress}
    text = json.dumps(request).encode()
    assert 125 < len(text) < 65536
    # Masked with zeros.
    sock.sendall(bytes((TEXT, MASKED | 126)) + len(text).to_bytes(2, "big") + bytes(4) + text)
    sock.setblocking(False)
    return sock


class Drain(threading.Thread):
    """Reads and discards what sockets receive, and counts it."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        super().__init__(daemon=True)
        self.received = 0
        self.ended = False
        self._selector = selectors.DefaultSelector()
        for sock in sockets:
            self._selector.register(sock, selectors.EVENT_READ)
        self._room = bytearray(1 << 20)

    def run(self) -> None:
        """Read until ``ended``."""
        while not self.ended:
            for key, _ in self._selector.select(0.1):
                assert isinstance(key.fileobj, socket.socket)
                self.received += key.fileobj.recv_into(self._room)


def measure(options: argparse.Namespace, compress: bool) -> Point:
    """Run an engine and its sessions once."""
    names = [f"SY{number:04d}" for number in range(options.symbols)]
    with bench.marketfeed(options.rate, options.symbols) as server:
        sockets = [session(server.port, names, compress) for _ in range(options.sessions)]
        drain = Drain(sockets)
        drain.start()
        url = f"http://127.0.0.1:{server.port}"
        with marketfeed.stream(url, quotes=names, tier="premium", compress=compress) as feed:
            time.sleep(options.warm)
            before = cpu_s(server.pids()), drain.received, time.monotonic()
            time.sleep(options.seconds)
            after = cpu_s(server.pids()), drain.received, time.monotonic()
            read = feed.statistics()
        assert read.silently_lost == read.gaps == read.lags == 0
        assert read.quotes > options.seconds * options.symbols
        drain.ended = True
        drain.join()
        for sock in sockets:
            sock.close()
    seconds = after[2] - before[2]
    frames = options.sessions * seconds * 1e9 / INTERVAL_NS
    cpu = after[0] - before[0]
    return Point(1e6 * cpu / frames, (after[1] - before[1]) / frames, cpu / seconds)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.compress_engine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=600)
    parser.add_argument("--symbols", type=int, default=100, help="of the feed, and of each session")
    parser.add_argument("--rate", type=float, default=10_000, help="quotes/s of the feed")
    parser.add_argument("--warm", type=float, default=3.0, help="seconds before the measurement")
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    say = functools.partial(bench.console.print, highlight=False)
    say(bench.machine(), style="dim")
    found: dict[bool, list[Point]] = {False: [], True: []}
    for _ in range(options.rounds):
        for compress, points in found.items():
            points.append(measure(options, compress))
            say(f"  {'compressed' if compress else 'plain':12}{points[-1]}")
    for title, index in (("CPU", 0), ("bytes", 1)):
        ratios = [packed[index] / plain[index] for plain, packed in zip(*found.values(), strict=True)]
        say(f"{title}: {statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
