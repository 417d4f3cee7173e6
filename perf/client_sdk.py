"""How many quotes per second does marketfeed.client receive on one core?

    this script ──► sender process, core 1 ──► loopback socket ──► client process, core 0: connect(), stream()
                    replays prepared frames                        counts; reads its own statistics

The sender plays an engine: it answers handshake and subscription, then sends quotes of SYMBOLS symbols as
fast as the socket accepts them. The client iterates over batches (binary) or messages (JSON), as a user
does: its figure contains TCP, the WebSocket, decoding, the check of every number, the newest quote of each
symbol, the histogram of latencies and the loop of the caller.

Says: quotes received per second of the client's CPU time, and per second, by quotes per frame. A run whose
quotes are not all there, once and in order, fails. Does not say: anything about an engine or a network, or
about what the caller does with a quote.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from statistics import median
from typing import Any, Final

import numpy as np
import orjson
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request, TextMessage

from marketfeed.client import Quote, connect, stream
from marketfeed.core.binary import quotes_frame, symbols_frame
from marketfeed.core.records import QUOTE
from marketfeed.fanout.tiers import Tier
from marketfeed.fanout.ws_frames import BINARY, TEXT, frame
from marketfeed.gateway import protocol
from perf import bench

SYMBOLS: Final = 1000
LEAST: Final = {"binary": 1_000_000, "json": 150_000}  # quotes per CPU second: the aim
FRONTS: Final = ("trio", "asyncio", "blocking")
BATCH: Final = 1 << 20  # bytes that the sender sends at a time


# The sender.


def records(first: int, count: int) -> Any:
    """Return ``count`` quotes from position ``first`` on: every symbol in turn."""
    quotes = np.zeros(count, QUOTE)
    g = np.arange(first, first + count)
    quotes["g"] = g + 1
    quotes["symbol"] = g % SYMBOLS
    quotes["n"] = g // SYMBOLS + 1
    quotes["bid_px"], quotes["ask_px"] = 101_250_000_000, 101_270_000_000
    quotes["bid_sz"], quotes["ask_sz"] = 100, 200
    quotes["ts_event"] = quotes["ts_recv"] = time.time_ns()
    return quotes


def prepared(encoding: str, count: int, per_frame: int) -> list[bytes]:
    """Return ``count`` quotes as WebSocket messages."""
    frames = []
    for first in range(0, count, per_frame):
        quotes = records(first, min(per_frame, count - first))
        if encoding == "binary":
            frames.append(frame(BINARY, quotes_frame(quotes, time.time_ns())))
            continue
        us = int(quotes["ts_recv"][0]) // 1000
        messages = [
            {"T": "q", "S": f"SY{symbol:04d}", "bp": 101.25, "bs": 100.0, "ap": 101.27, "as": 200.0}
            | {"t": us, "r": us, "n": n, "g": g}
            for symbol, n, g in zip(
                quotes["symbol"].tolist(), quotes["n"].tolist(), quotes["g"].tolist(), strict=True
            )
        ]
        frames.append(frame(TEXT, orjson.dumps(messages)))
    return frames


def send(encoding: str, count: int, per_frame: int) -> None:
    """Serve one client; print the port first."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        frames = prepared(encoding, count, per_frame)
        print(server.getsockname()[1], flush=True)
        client, _ = server.accept()
    with client:
        ws = WSConnection(ConnectionType.SERVER)
        subscribed = False
        while not subscribed:
            ws.receive_data(client.recv(65536))
            for event in ws.events():
                if isinstance(event, Request):
                    client.sendall(ws.send(AcceptConnection()))
                    hello = protocol.connected("e", "s", [Tier("vip", 0, True, 65536)])
                    client.sendall(ws.send(TextMessage(hello.decode())))
                elif isinstance(event, TextMessage):
                    subscribed = True
                    answer = {"T": "subscription", "quotes": ["*"], "trades": [], "alerts": [], "tier": "vip"}
                    answer |= {"encoding": encoding, "id": json.loads(event.data)["id"]}
                    synced = {"T": "synced", "cursor": "e:0", "id": answer["id"]}
                    client.sendall(ws.send(TextMessage(json.dumps([answer, synced]))))
        if encoding == "binary":
            names = {f"SY{symbol:04d}": symbol for symbol in range(SYMBOLS)}
            client.sendall(frame(BINARY, symbols_frame(names, time.time_ns())))
        waiting, size = [], 0
        for one in frames:
            waiting.append(one)
            size += len(one)
            if size >= BATCH:
                client.sendall(b"".join(waiting))
                waiting, size = [], 0
        client.sendall(b"".join(waiting))
        while client.recv(65536):
            pass  # until the client has closed


# The client.


class Receiver:
    """Counts what a caller gets; the clock starts at the first quote."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.got = self.sum = 0
        self._began = (0.0, 0.0)

    def took(self, quotes: int, numbers: int) -> bool:
        """Take ``quotes``, whose ``g`` add up to ``numbers``; return whether they are all there."""
        if not self.got:
            self._began = (time.perf_counter(), time.process_time())
        self.got += quotes
        self.sum += numbers
        return self.got >= self._count

    def result(self, statistics: Any) -> dict[str, Any]:
        """Return the figures; raises AssertionError if a quote is missing or came twice."""
        seconds, cpu_s = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        assert self.got == self._count, f"{self.got:,} of {self._count:,} quotes"
        assert self.sum == self._count * (self._count + 1) // 2, "not each quote once"
        broken = (statistics.gaps, statistics.duplicates, statistics.disconnects)
        assert broken == (0, 0, 0), statistics
        assert statistics.quotes == self._count
        return {"seconds": seconds, "cpu_s": cpu_s, "messages": statistics.messages}


async def receive(port: int, encoding: str, count: int) -> dict[str, Any]:
    """Receive everything on the running event loop."""
    receiver = Receiver(count)
    async with connect(f"http://127.0.0.1:{port}", encoding=encoding, quotes=["*"]) as feed:
        if encoding == "binary":
            async for batch in feed.batches():
                quotes = batch.quotes
                if len(quotes) and receiver.took(len(quotes), int(quotes["g"].sum())):
                    break
        else:
            async for message in feed:
                if type(message) is Quote and receiver.took(1, message.g):
                    break
        return receiver.result(feed.statistics())


def receive_blocking(port: int, encoding: str, count: int) -> dict[str, Any]:
    """Receive everything in this thread."""
    receiver = Receiver(count)
    with stream(f"http://127.0.0.1:{port}", encoding=encoding, quotes=["*"]) as feed:
        if encoding == "binary":
            for batch in feed.batches():
                quotes = batch.quotes
                if len(quotes) and receiver.took(len(quotes), int(quotes["g"].sum())):
                    break
        else:
            for message in feed:
                if type(message) is Quote and receiver.took(1, message.g):
                    break
        return receiver.result(feed.statistics())


def client(front: str, port: int, encoding: str, count: int) -> None:
    """Run a client; print its figures as JSON."""
    if front == "trio":
        result = trio.run(receive, port, encoding, count)
    elif front == "asyncio":
        result = asyncio.run(receive(port, encoding, count))
    else:
        result = receive_blocking(port, encoding, count)
    print(json.dumps(result))


# The measurement.


def measure(front: str, encoding: str, count: int, per_frame: int) -> dict[str, Any]:
    """Run a sender and a client, each on a core of its own if there are two; return the client's figures."""
    cores = sorted(os.sched_getaffinity(0))
    options = ["--encoding", encoding, "--quotes", str(count), "--per-frame", str(per_frame)]
    pin = [["taskset", "-c", str(cores[place % len(cores)])] for place in (0, 1)]
    this = [sys.executable, "-m", "perf.client_sdk", *options]
    sender = subprocess.Popen([*pin[1], *this, "--role", "send"], stdout=subprocess.PIPE, text=True)
    try:
        assert sender.stdout is not None
        port = sender.stdout.readline().strip()
        done = subprocess.run(
            [*pin[0], *this, "--role", front, "--port", port], capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        result: dict[str, Any] = json.loads(done.stdout)
        return result
    finally:
        sender.kill()
        sender.wait()


def main() -> None:
    """Measure each front and encoding, by quotes per frame."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m perf.client_sdk", description=__doc__, formatter_class=form
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--front", choices=FRONTS, default=None, help="one of them only")
    parser.add_argument("--encoding", choices=tuple(LEAST), default=None, help="one of them only")
    parser.add_argument("--quotes", type=int, default=0, help="default: 2,000,000 binary, 400,000 JSON")
    parser.add_argument("--per-frame", type=int, default=0, help="default: 20, 100 and 500")
    parser.add_argument("--role", choices=("send", *FRONTS), default=None, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "send":
        send(options.encoding, options.quotes, options.per_frame)
        return
    if options.role:
        client(options.role, options.port, options.encoding, options.quotes)
        return
    bench.console.print(bench.machine(), style="dim", highlight=False)
    for encoding in [options.encoding] if options.encoding else LEAST:
        for front in [options.front] if options.front else FRONTS:
            for per_frame in [options.per_frame] if options.per_frame else (20, 100, 500):
                count = options.quotes or (2_000_000 if encoding == "binary" else 400_000)
                runs = [measure(front, encoding, count, per_frame) for _ in range(options.rounds)]
                by_cpu = sorted(count / run["cpu_s"] for run in runs)
                by_time = median(count / run["seconds"] for run in runs)
                bench.console.print(
                    f"{encoding:6} {front:8} {per_frame:3} quotes a frame: {median(by_cpu):>11,.0f} quotes "
                    f"per CPU second ({by_cpu[0]:,.0f} to {by_cpu[-1]:,.0f}), {by_time:>11,.0f} per second"
                )


if __name__ == "__main__":
    main()
