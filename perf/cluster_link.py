"""What does the link to NATS add to a tick, and what does it cost on each side?

    process: frames at a rate ──► Link ──► nats-server (loopback) ──► Link ──► process: checks each frame

A frame has 64 bytes of head and up to 4,096 quotes of 64 bytes; one is due every millisecond.

Reports: milliseconds from the call of publish() to the task that has the frame, weighted by quotes, and CPU
of each process per quote, with the work on the frames themselves. Not
covered: a network, and several readers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import trio

from marketfeed import logs
from marketfeed.cluster.link import open_link
from marketfeed.cluster.link_settings import LinkSettings
from marketfeed.core.records import QUOTE
from marketfeed.core.units import S
from perf import bench

if TYPE_CHECKING:
    from collections.abc import Iterator

RATES: Final = (100_000, 500_000, 1_000_000)
MOST: Final = 4096  # quotes of a frame
HEAD: Final = np.dtype([("first", "<u8"), ("last", "<u8"), ("sent_ns", "<u8"), ("rest", "V40")])
FRAMES, END = "mf.perf.s0.t", "mf.perf.s0.end"
LIMITS: Final = bench.ROOT / "deploy/nats/limits.conf"
QUEUE_BYTES: Final = 64 << 20
WARM_UP_S: Final = 1.0
CONNECT_S: Final = 30.0


async def write(url: str, rate: float, seconds: float, linger_s: float) -> None:
    """Publish frames at ``rate`` quotes per second for ``seconds``; print what it cost."""
    records = np.zeros(MOST, QUOTE)
    head = np.zeros(1, HEAD)
    total, done, cpu_s = int(rate * (seconds + WARM_UP_S)), 0, 0.0
    async with open_link(LinkSettings((url,), "perf.writer", QUEUE_BYTES)) as link:
        await link.flush(CONNECT_S)
        start = time.monotonic()
        counted_from, warm = 0, False
        while done < total:
            now = time.monotonic() - start
            if not warm and now >= WARM_UP_S:
                warm, counted_from, cpu_s = True, done, time.process_time()
            due = min(int(now * rate), total)
            while done < due:
                count = min(due - done, MOST)
                records["g"][:count] = np.arange(done + 1, done + count + 1, dtype=np.uint64)
                head["first"], head["last"] = done + 1, done + count
                head["sent_ns"] = time.monotonic_ns()
                assert link.publish(FRAMES, head.tobytes() + records[:count].tobytes()), "the queue is full"
                done += count
            await trio.sleep(linger_s)
        await link.flush(30)
        cpu_s = time.process_time() - cpu_s
        link.publish(END, b"")
        figures = link.statistics()
    assert (figures.dropped_out, figures.link_restarts, figures.connects) == (0, 0, 1)
    print(json.dumps({"us": cpu_s / (total - counted_from) * 1e6, "rate": done / (time.monotonic() - start)}))


async def read(url: str) -> None:
    """Check each frame until the end; print latencies and what it cost."""
    delays: list[tuple[int, int]] = []  # ns, quotes
    expected, cpu_s, counted_from, began_ns = 1, 0.0, 0, 0
    async with open_link(LinkSettings((url,), "perf.reader", QUEUE_BYTES)) as link:
        link.subscribe(FRAMES)
        link.subscribe(END)
        await link.flush(CONNECT_S)
        print("ready", flush=True)
        over = False
        while not over:
            for message in await link.receive():
                now_ns = time.monotonic_ns()
                if message.subject == END:
                    over = True
                    continue
                head = np.frombuffer(message.payload, HEAD, 1)[0]
                records = np.frombuffer(message.payload, QUOTE, offset=HEAD.itemsize)
                first, last = int(head["first"]), int(head["last"])
                # A benchmark that lost ticks measured something else.
                assert first == expected, f"{expected} is missing"
                assert np.array_equal(records["g"], np.arange(first, last + 1, dtype=np.uint64))
                expected = last + 1
                began_ns = began_ns or now_ns
                if now_ns - began_ns < WARM_UP_S * S:
                    counted_from, cpu_s = last, time.process_time()
                else:
                    delays.append((now_ns - int(head["sent_ns"]), len(records)))
        cpu_s = time.process_time() - cpu_s
        assert link.statistics().dropped_in == 0
    ns, quotes = np.array(sorted(delays)).T
    shares = np.cumsum(quotes) / quotes.sum()
    p50, p99 = (int(ns[np.searchsorted(shares, share)]) / 1e6 for share in (0.5, 0.99))
    frames = len(delays)
    us = cpu_s / (expected - 1 - counted_from) * 1e6
    print(json.dumps({"p50_ms": p50, "p99_ms": p99, "us": us, "quotes": int(quotes.sum()) / frames}))


@contextlib.contextmanager
def nats_server(folder: Path) -> Iterator[str]:
    """Run nats-server with the limits of deploy/nats; yield its URL."""
    port = bench.free_port()
    (folder / "nats.conf").write_text(f"listen: 127.0.0.1:{port}\n" + LIMITS.read_text())
    program = Path(sys.executable).with_name("nats-server")
    server = subprocess.Popen([program, "-c", folder / "nats.conf"], stderr=subprocess.DEVNULL)
    try:
        yield f"nats://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def child(url: str, *arguments: str) -> subprocess.Popen[str]:
    """Start this program as one of the two processes."""
    argv = [sys.executable, "-m", "perf.cluster_link", "--url", url, *arguments]
    return subprocess.Popen(argv, cwd=bench.ROOT, stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the line of JSON that ``process`` prints at its end."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, "a process failed"
    found: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return found


def measure(url: str, rate: float, seconds: float, linger_s: float) -> None:
    """Print a line of figures for one rate."""
    reader = child(url, "--read")
    assert reader.stdout is not None
    assert reader.stdout.readline() == "ready\n", "the reader did not start"
    writer = child(url, "--write", str(rate), "--seconds", str(seconds), "--linger-ms", str(linger_s * 1e3))
    wrote, has_read = result(writer), result(reader)
    bench.console.print(
        f"{rate / 1e6:4.1f} M/s (done {wrote['rate'] / 1e6:.2f}), {has_read['quotes']:5.0f} quotes a frame: "
        f"p50 {has_read['p50_ms']:5.2f} ms, p99 {has_read['p99_ms']:6.2f} ms, "
        f"writer {wrote['us']:.3f} µs, reader {has_read['us']:.3f} µs of CPU per quote"
    )


def main() -> None:
    """Measure each rate, or be one of its processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="*", default=RATES)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--linger-ms", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=1)
    for name in ("--url", "--write"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--read", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    linger_s = options.linger_ms / 1e3
    logs.configure("error")
    if options.read:
        trio.run(read, options.url)
    elif options.write:
        trio.run(write, options.url, float(options.write), options.seconds, linger_s)
    else:
        bench.console.print(bench.machine())
        with tempfile.TemporaryDirectory(prefix="marketfeed-perf-") as name, nats_server(Path(name)) as url:
            for _ in range(options.rounds):
                for rate in options.rates:
                    measure(url, rate, options.seconds, linger_s)


if __name__ == "__main__":
    main()
