"""What do sessions that read slowly, or not at all, cost the healthy sessions?

    engine ──┬─► healthy sessions ──► load client: p99
             ├─► a tenth that reads a tenth of its rate ──► the age of what it gets, against what its
             │     reading speed allows: the buffers on the way, read at that speed
             └─► a tenth that never reads ──► closed within limits.stall_s + 2 s

Runs pairs, without and with the slow and stalled sessions, and compares the healthy p99 once the buffers of
the others are full; meanwhile the server's memory is measured every five seconds. The engine is not scraped
during the runs: a scrape takes milliseconds and would affect only one run of a pair.

Reports: the ratio of the healthy sessions' p99, the server's memory over time, when the stalled sessions were
closed, the age of the newest quote at slow sessions, and the bytes they had read between its receipt and its
arrival. Fails if these exceed the buffers. Not covered: networks that lose packets.
"""

from __future__ import annotations

import argparse
import bisect
import json
import random
import re
import select
import socket
import subprocess
import threading
import time
from dataclasses import replace

from rich.table import Table

from perf import bench, client

STALL_S = 10.0  # the engine's default
GRACE_S = 2.0
SEND_BUFFER_BYTES = 262_144  # of the benchmark's tier, unsent in the server's kernel
UNDERWAY_BYTES = 2 * 70_000  # sent completely after its buffer was full, plus the frame that filled it
RECEIPT = re.compile(rb'"r":(\d{16}),')  # 16 digits: excludes values split between reads
HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Crowd(threading.Thread):
    """Stalled sessions, which read nothing, and slow ones, which read at a fixed speed."""

    def __init__(self, port: int, stalled: int, slow: int, symbols: int, universe: int, speed: float) -> None:
        """``speed`` is the rate of a slow session in bytes per second."""
        super().__init__(daemon=True)
        self._speed = speed
        draw = random.Random(7)
        self.socks = [self._open(port, draw.sample(range(universe), symbols)) for _ in range(stalled + slow)]
        self.stalled, self.slow = self.socks[:stalled], self.socks[stalled:]
        self.opened_at = time.monotonic()
        self._hang_up = select.poll()
        for sock in self.stalled:
            self._hang_up.register(sock, 0)  # errors only, which needs no reads
        self.ages: list[float] = []  # seconds, of the newest quote in each read of a slow session
        self.read_meanwhile: list[int] = []  # bytes that it had read since that quote's receipt
        self._reads = {sock: ([0.0], [0]) for sock in self.slow}  # Unix times, and cumulative bytes read
        self.ended_slow = 0
        self.stop = threading.Event()
        self.start()

    @staticmethod
    def _open(port: int, symbols: list[int]) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(HANDSHAKE)
        while not sock.recv(4096):
            raise RuntimeError("the handshake was not answered")
        names = [f"SY{number:04d}" for number in symbols]
        client.send(sock, 1, json.dumps({"action": "subscribe", "quotes": names}).encode())
        sock.setblocking(False)
        return sock

    def run(self) -> None:
        """Read from each slow session twenty times per second."""
        turn_s = 0.05
        while not self.stop.wait(turn_s):
            for sock in list(self.slow):
                try:
                    data = sock.recv(int(self._speed * turn_s))
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                if not data:
                    self.ended_slow += 1
                    self.slow.remove(sock)
                    continue
                found = RECEIPT.findall(data)
                self._book(sock, len(data), int(found[-1]) / 1e6 if found else None)

    def _book(self, sock: socket.socket, size: int, receipt_s: float | None) -> None:
        times, totals = self._reads[sock]
        now_s = time.time()
        times.append(now_s)
        totals.append(totals[-1] + size)
        if receipt_s is not None:
            self.ages.append(now_s - receipt_s)
            self.read_meanwhile.append(totals[-1] - totals[bisect.bisect_right(times, receipt_s) - 1])

    def allowed_bytes(self) -> int:
        """Return the capacity in bytes of the buffers before a slow session's reads."""
        receiving = max(sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) for sock in self.slow)
        return receiving + SEND_BUFFER_BYTES + UNDERWAY_BYTES

    def cut(self) -> bool:
        """Return whether the server has reset all stalled sessions, by the client's sockets."""
        return len(self._hang_up.poll(0)) == len(self.stalled)

    def close(self) -> None:
        """Close all sessions."""
        self.stop.set()
        self.join()
        for sock in self.socks:
            sock.close()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.slow",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.common(parser)
    parser.add_argument("--rate", type=float, default=50_000, help="quotes/s of the feed")
    parser.set_defaults(seconds=20.0)
    options = parser.parse_args()
    work = bench.work_of(options)
    bad = work.sessions // 10
    healthy = replace(work, sessions=work.sessions - 2 * bad)
    say = bench.console.print
    say(bench.machine(), style="dim", highlight=False)
    full_speed = options.rate * work.symbols / work.universe * 134  # bytes per second of one session
    ratios: list[float] = []
    table = Table(
        title=f"{healthy.sessions} healthy, {bad} slow, {bad} stalled sessions at {options.rate:,.0f} q/s"
    )
    for title in (
        "round",
        "p99 alone",
        "p99 with them",
        "ratio",
        "stalled gone after",
        "slow: age p99",
        "kB before it, of kB allowed",
        "memory MB",
    ):
        table.add_column(title, justify="right")
    for number in range(1, options.rounds + 1):
        with bench.marketfeed(options.rate, work.universe) as server:
            alone = bench.load(server, healthy, options.rate)
        with bench.marketfeed(options.rate, work.universe) as server:
            crowd = Crowd(server.port, bad, bad, work.symbols, work.universe, full_speed / 10)
            fill(server, options.rate * work.symbols / work.universe * 2 * bad)
            probe = subprocess.Popen(
                bench.client_argv(server, healthy), cwd=bench.ROOT, stdout=subprocess.PIPE, text=True
            )
            gone_s, memory = watch(server, crowd, probe)
            assert bench.metric(server, "closes_total", code="4001") == bad
            text, _ = probe.communicate(timeout=60)
            allowed = crowd.allowed_bytes()
            crowd.close()
        among = bench.Point(options.rate, healthy, json.loads(text))
        for point in (alone, among):
            point.assert_honest()
            assert not point.fault(), point.fault()
        assert crowd.ended_slow == 0, f"{crowd.ended_slow} slow sessions were closed although they read"
        assert gone_s <= STALL_S + GRACE_S + 4.0, f"stalled sessions were closed only after {gone_s:.1f} s"
        most = max(crowd.read_meanwhile)
        assert most <= allowed, (
            f"a slow session's quote was {most:,} bytes behind; its buffers hold {allowed:,}"
        )
        ratios.append(among.p99_ms / alone.p99_ms)
        ages = sorted(crowd.ages)
        table.add_row(
            str(number),
            f"{alone.p99_ms:.2f} ms",
            f"{among.p99_ms:.2f} ms",
            f"{ratios[-1]:.2f}",
            f"{gone_s:.1f} s",
            f"{ages[int(0.99 * len(ages))]:.1f} s",
            f"{most / 1e3:.0f} of {allowed / 1e3:.0f}",
            " ".join(f"{size / 1e6:.0f}" for size in memory),
        )
    say(table)
    say(f"healthy p99, with over without: median {bench.middle(ratios):.2f}")


def fill(server: bench.Server, full_rate: float) -> None:
    """Wait until the buffers of the crowd, which is offered ``full_rate`` quotes per second, are full.

    Until then the crowd is served like healthy sessions, and the run would compare 500 sessions with 400.
    """
    before, began_s = bench.metric(server, "delivered_total"), time.monotonic()
    while True:
        time.sleep(1)
        now, at_s = bench.metric(server, "delivered_total"), time.monotonic()
        if now - before < full_rate / 4 * (at_s - began_s):
            return
        before, began_s = now, at_s


def watch(server: bench.Server, crowd: Crowd, probe: subprocess.Popen[str]) -> tuple[float, list[int]]:
    """Return when all stalled sessions were closed, and the server's memory during the run."""
    gone_s, memory, next_s = 0.0, [server.pss_bytes()], time.monotonic() + 5
    while probe.poll() is None or not gone_s:
        now = time.monotonic()
        if not gone_s and crowd.cut():
            gone_s = now - crowd.opened_at
        if now >= next_s:
            memory.append(server.pss_bytes())
            next_s += 5
        if now - crowd.opened_at > 120:
            raise AssertionError("stalled sessions were never closed")
        time.sleep(0.5)
    return gone_s, memory


if __name__ == "__main__":
    main()
