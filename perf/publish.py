"""Publisher for push feeds: sends quotes at a fixed rate from a separate process.

    python -m perf.publish 127.0.0.1:8770 --rate 1000000 --symbols 1000 --seconds 10

    this process ──► frames of about 1 ms each ──► TCP or Unix socket ──► push feed

Frames are prepared before the start and sent repeatedly; only their times are
written just before sending. The schedule follows the clock, so that a late
frame does not delay later ones. Prints the achieved rate at the end. Metrics
of the engine show its side.
"""

from __future__ import annotations

import argparse
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from marketfeed.core.binary import HEADER, RECORD_BYTES, Kind, frame_header, symbols_frame
from marketfeed.core.records import QUOTE, Records

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEP_S: Final = 0.001  # interval of frames on one connection; longer if it would hold less than one quote
FRAMES: Final = 64  # prepared for each connection
CENT: Final = 10_000_000
SENT_AT: Final = slice(8, 16)  # sent_ns in the header
MAX_RATE: Final = 2_000_000


@dataclass(frozen=True, slots=True)
class Sent:
    """Quotes sent, duration, and ``late_s``, the largest delay of a frame against the schedule."""

    quotes: int
    seconds: float
    late_s: float


class PreparedFrame:
    """A quotes frame in which only the times change."""

    def __init__(self, records: Records) -> None:
        self.data = bytearray(frame_header(Kind.QUOTES, records.nbytes, 0) + records.tobytes())
        self._ts_event: NDArray[np.int64] = np.frombuffer(self.data, QUOTE, offset=HEADER.size)["ts_event"]
        self.quotes = len(records)

    def stamp(self, now_ns: int) -> None:
        """Write the time into header and records."""
        self.data[SENT_AT] = now_ns.to_bytes(8, "little")
        self._ts_event[:] = now_ns


def prepared_frames(size: int, symbols: int, activity: str, seed: int) -> list[PreparedFrame]:
    """Return FRAMES frames of ``size`` quotes each, over ids 0 to ``symbols`` - 1."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, symbols + 1) if activity == "zipf" else np.ones(symbols)
    edges = np.cumsum(weights / weights.sum())
    frames = []
    for _ in range(FRAMES):
        records = np.zeros(size, QUOTE)
        which = np.minimum(np.searchsorted(edges, rng.random(size)), symbols - 1)
        bids = 10_000 + 10 * which + rng.integers(-100, 101, size)  # cents
        records["symbol"] = which
        records["bid_px"] = bids * CENT
        records["ask_px"] = (bids + 1 + which % 3) * CENT
        records["bid_sz"], records["ask_sz"] = rng.integers(1, 50, (2, size)) * 100.0
        frames.append(PreparedFrame(records))
    return frames


def connect(address: str) -> socket.socket:
    """Connect to ``host:port`` or, with a / in it, to a Unix socket."""
    if "/" in address:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
        return connection
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host.strip("[]"), int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def publish(
    address: str, rate: float, symbols: int, seconds: float, activity: str = "zipf", connections: int = 1
) -> Sent:
    """Send ``rate`` quotes per second over all connections for ``seconds``; raises OSError."""
    size = max(1, round(rate / connections * STEP_S))
    frames = [prepared_frames(size, symbols, activity, seed) for seed in range(connections)]
    names = symbols_frame({f"SY{number:04d}": number for number in range(symbols)}, time.time_ns())
    sockets = [connect(address) for _ in range(connections)]
    try:
        for each in sockets:
            each.sendall(names)
        # Round robin: frame k is sent at k * interval_s on connection k % connections.
        interval_s = size / rate
        total = max(1, round(seconds / interval_s))
        start_s, late_s = time.monotonic(), 0.0
        for number in range(total):
            wait_s = start_s + number * interval_s - time.monotonic()
            if wait_s > 0:
                time.sleep(wait_s)
            else:
                late_s = max(late_s, -wait_s)
            turn, which = divmod(number, connections)
            frame = frames[which][turn % FRAMES]
            frame.stamp(time.time_ns())
            sockets[which].sendall(frame.data)
        # The rate includes the interval of the last frame.
        remaining_s = start_s + total * interval_s - time.monotonic()
        if remaining_s > 0:
            time.sleep(remaining_s)
        took_s = time.monotonic() - start_s
    finally:
        for each in sockets:
            each.close()
    return Sent(total * size, took_s, late_s)


def main() -> None:
    """Publish as configured by the command line, and print the achieved rate."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.publish", description="publish quotes at a fixed rate"
    )
    parser.add_argument("address", nargs="?", default="127.0.0.1:8770", help="host:port or a Unix socket")
    parser.add_argument("--rate", type=float, default=1_000_000, help="quotes per second, at most 2,000,000")
    parser.add_argument("--symbols", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--activity", choices=("zipf", "uniform"), default="zipf")
    parser.add_argument("--connections", type=int, default=1)
    asked = parser.parse_args()
    if not 0 < asked.rate <= MAX_RATE:
        parser.error(f"--rate: above 0, at most {MAX_RATE}")
    if not 0 < asked.symbols <= 65536:
        parser.error("--symbols: 1 to 65536")
    if not 0 < asked.connections <= 64:
        parser.error("--connections: 1 to 64")
    try:
        sent = publish(
            asked.address, asked.rate, asked.symbols, asked.seconds, asked.activity, asked.connections
        )
    except OSError as error:
        parser.exit(1, f"{asked.address}: {error.strerror or error}\n")
    bytes_s = sent.quotes * RECORD_BYTES / sent.seconds
    print(
        f"{sent.quotes} quotes in {sent.seconds:.3f} s: {sent.quotes / sent.seconds:,.0f} quotes/s "
        f"({bytes_s / 1e6:,.0f} MB/s), at most {sent.late_s * 1e3:.1f} ms behind"
    )


if __name__ == "__main__":
    main()
