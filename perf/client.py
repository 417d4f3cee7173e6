"""Load client: how much arrives at the subscribers, how late, and is anything missing or doubled?

    server ──► N sockets ──► epoll ──► whole frames ──► count, first and last receipt time ──► histogram
                                                   └──► every tick of each `--verify`-th session parsed

Opens N WebSockets, subscribes each to K random symbols, waits `--warm`, measures for `--seconds`, and
prints one line of JSON. Latency is the time of the read minus the receipt time `r` of the first and the last
tick of each frame, each weighted with half of the frame's ticks. Frames are decoded only on sampled sessions,
where `n` must increase by one per quote.

Reports: the view of one reader in another process. Not covered: a network, or decoding in an application.
Cost: 7 µs per frame of one quote, 13 µs per frame of 22. If that is too slow (`client_cpu_s` near
`seconds`), client.c does the same; the other scripts compile it with `--client c`. A single file that needs
only numpy, so that it can be copied to another machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import selectors
import socket
import struct
import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

READ_BYTES: Final = 1 << 18
OPENING: Final = 100  # concurrent handshakes
CONNECT_S: Final = 15.0
FINE: Final = 100_000  # bins of 1 µs, then COARSE bins of 1 ms
COARSE: Final = 60_000
QUOTE: Final = re.compile(
    rb'\{"T":"q","S":"([^"]+)"[^}]*?"r":(\d+)(?:,"[^}]*?)??,"n":(\d+),"g":(\d+)([^}]*)\}'
    rb'|\{"T":"lag","on":(true|false)(?:,"conflated":(\d+))?\}|\{"T":"gap"[^}]*"lost":(\d+)'
)
CONFLATED: Final = re.compile(rb'"conflated":(\d+)')
LOST: Final = re.compile(rb'"T":"gap"[^}]*"lost":(\d+)')
HEADER: Final = struct.Struct("<BBHIQ")  # of a binary frame; then 64-byte records
QUOTE_DTYPE: Final = np.dtype(
    {
        "names": ["ts_recv", "g", "n", "symbol", "flags"],
        "formats": ["<i8", "<u8", "<u4", "<u2", "u1"],
        "offsets": [8, 16, 56, 60, 63],
        "itemsize": 64,
    }
)
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def arguments() -> argparse.Namespace:
    """Parse the command line; client.c has the same options."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m perf.client", description=__doc__, formatter_class=form)
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, required=True)
    add("--path", default="/v1/stream")
    add("--sessions", type=int, default=500)
    add("--symbols", type=int, default=20, help="symbols per session, drawn for each")
    add("--universe", type=int, default=1000, help="number of symbols of the feed: SY0000, SY0001 …")
    add("--prefix", default="SY")
    add("--tier", default="", help="default: the engine's")
    add("--transport", choices=("websocket", "binary", "sse"), default="websocket")
    add("--dialect", choices=("marketfeed", "nats"), default="marketfeed")
    add("--seed", type=int, default=1)
    add("--warm", type=float, default=1.0, help="seconds between connecting and measuring")
    add("--seconds", type=float, default=3.0)
    add("--verify", type=int, default=25, help="parse all ticks of every n-th session; 0: none")
    add("--watch", default="", help="comma-separated ids of processes whose CPU time to measure")
    return parser.parse_args()


def cpu_s(pids: list[int]) -> float:
    """Return the CPU seconds of processes, user and system; 0 for processes that ended."""
    total = 0
    for pid in pids:
        try:
            after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(after[11]) + int(after[12])
    return total / TICKS_PER_S


@dataclass(slots=True, eq=False)
class Session:
    """State of one WebSocket."""

    sock: socket.socket
    index: int
    verified: bool
    open: bool = False
    rest: bytes = b""  # start of an incomplete frame
    tail: bytes = b""  # of a verified session: a tick split by the end of a frame
    last_n: dict[bytes | int, int] = field(default_factory=dict)
    missing: int = 0
    told: int = 0  # ticks that `lag` and `gap` announced as missing
    lagging: bool = False


class Load:
    """All sessions of one client process, and their counts."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.poll = selectors.EpollSelector()
        self.sessions: list[Session] = []
        self.open = self.closed = 0
        self.measuring = False
        self.frames = self.ticks = self.bytes = 0
        self.lags = self.conflated = self.gaps = self.lost = 0
        self.checked = self.doubled = 0
        self.top_g = self.top_r = 0
        self.samples = array("q")  # µs, weight, µs, weight …
        self.bins = np.zeros(FINE + COARSE, np.int64)

    def run(self) -> dict[str, object]:
        """Connect, warm up, measure; return the result."""
        options, began = self.options, time.perf_counter()
        while self.open + self.closed < options.sessions:
            if (
                len(self.sessions) < options.sessions
                and len(self.sessions) - self.open - self.closed < OPENING
            ):
                self._connect()
                continue
            self._step()
            if time.perf_counter() - began > CONNECT_S:
                raise SystemExit(
                    f"perf.client: {self.open} of {options.sessions} sessions after {CONNECT_S:g} s"
                )
        connected = time.perf_counter()
        while time.perf_counter() - connected < options.warm:
            self._step()
        watched = [int(pid) for pid in options.watch.split(",") if pid]
        self.measuring, start, from_g, from_r = True, time.perf_counter(), self.top_g, self.top_r
        server_cpu, own_cpu = cpu_s(watched), time.process_time()
        while (took := time.perf_counter() - start) < options.seconds:
            self._step()
            if len(self.samples) > 1 << 20:
                self._fold()
        server_cpu, own_cpu = cpu_s(watched) - server_cpu, time.process_time() - own_cpu
        self._fold()
        on_time = [session for session in self.sessions if not session.lagging]
        span_r = self.top_r - from_r
        return {
            "client": "python", "sessions": self.open, "closed": self.closed, "seconds": round(took, 4),
            "connect_s": round(connected - began, 3),
            "frames": self.frames, "ticks": self.ticks, "bytes": self.bytes,
            **{f"{name}_ms": self._percentile_ms(q) for name, q in
               (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0))},
            "lags": self.lags, "conflated": self.conflated, "gaps": self.gaps, "lost": self.lost,
            "feed_rate": round((self.top_g - from_g) * 1e6 / span_r, 2) if from_r and span_r > 0 else 0,
            "checked": self.checked, "missing": sum(s.missing for s in self.sessions),
            "untold": sum(s.missing - s.told for s in on_time), "doubled": self.doubled,
            "lagging": len(self.sessions) - len(on_time),
            "server_cpu_s": round(server_cpu, 3), "client_cpu_s": round(own_cpu, 3),
        }  # fmt: skip

    def _connect(self) -> None:
        sock = socket.create_connection((self.options.host, self.options.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        where = f"{self.options.host}:{self.options.port}"
        index, verify = len(self.sessions), self.options.verify
        if self.options.transport == "sse":
            tier = f"&tier={self.options.tier}" if self.options.tier else ""
            path = f"/v1/events?quotes={','.join(self._names(index))}{tier}"
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode())
        else:
            sock.sendall(
                f"GET {self.options.path} HTTP/1.1\r\nHost: {where}\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: bWFya2V0ZmVlZC1wZXJmLg==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            )
        sock.setblocking(False)
        session = Session(sock, index, verified=bool(verify) and index % verify == 0)
        self.sessions.append(session)
        self.poll.register(sock, selectors.EVENT_READ, session)

    def _names(self, index: int) -> list[str]:
        options = self.options
        rng = random.Random(options.seed * 100_003 + index)
        return [f"{options.prefix}{i:04d}" for i in rng.sample(range(options.universe), options.symbols)]

    def _subscribe(self, session: Session) -> None:
        options = self.options
        names = self._names(session.index)
        if options.dialect == "nats":
            subs = "".join(f"SUB {name} {sid}\r\n" for sid, name in enumerate(names, 1))
            send(session.sock, 2, b'CONNECT {"verbose":false,"pedantic":false}\r\n' + subs.encode())
            return
        request = {"action": "subscribe", "quotes": names} | ({"tier": options.tier} if options.tier else {})
        request |= {"encoding": "binary"} if options.transport == "binary" else {}
        send(session.sock, 1, json.dumps(request).encode())

    def _step(self) -> None:
        for key, _ in self.poll.select(0.02):
            session: Session = key.data
            try:
                data = session.sock.recv(READ_BYTES)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError:
                data = b""
            if not data:
                self._drop(session)
                continue
            if self.measuring:
                self.bytes += len(data)
            self._read(session, session.rest + data if session.rest else data)

    def _read(self, session: Session, data: bytes) -> None:  # noqa: C901 - one loop, no call a frame
        now_us, at, size = time.time_ns() // 1000, 0, len(data)
        if not session.open:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                session.rest = data
                return
            if (b" 200" if self.options.transport == "sse" else b" 101") not in data[:16]:
                self._drop(session)
                return
            session.open, at = True, end + 4
            self.open += 1
            if self.options.transport == "sse":
                data, at, size = data[at:], 0, size - at
            else:
                self._subscribe(session)
        if self.options.transport == "sse":
            self._read_events(session, data, now_us)
            return
        while size - at >= 2:
            length, body = data[at + 1] & 127, at + 2
            if length == 126:
                body, length = at + 4, int.from_bytes(data[at + 2 : at + 4]) if size >= at + 4 else size
            elif length == 127:
                body, length = at + 10, int.from_bytes(data[at + 2 : at + 10]) if size >= at + 10 else size
            if body + length > size:
                break
            opcode = data[at] & 15
            at = body + length
            if opcode == 2 and self.options.transport == "binary":
                self._message(session, data[body:at], now_us)
            elif opcode < 3:
                if session.verified:
                    self._check(session, data[body:at])
                if self.measuring:
                    self._count(data, body, at, now_us)
            elif opcode == 9:
                send(session.sock, 10, data[body:at])
            elif opcode == 8:
                self._drop(session)
                return
        session.rest = data[at:]

    def _read_events(self, session: Session, data: bytes, now_us: int) -> None:
        at = 0
        while (end := data.find(b"\n\n", at)) >= 0:
            if data[at] != ord(":"):  # an SSE comment
                if session.verified:
                    self._check(session, data[at:end])
                if self.measuring:
                    self._count(data, at, end, now_us)
            at = end + 2
        session.rest = data[at:]

    def _count(self, data: bytes, start: int, end: int, now_us: int) -> None:
        ticks = data.count(b"{", start, end)
        self.frames += 1
        self.ticks += ticks
        if data.find(b"l", start, end) >= 0:  # synthetic quotes contain no "l"; one memchr replaces searches
            self._notices(data[start:end])
        first = data.find(b'"r":', start, end)
        if first < 0:
            return
        stop = data.find(b",", first, end)
        last = data.rfind(b'"r":', start, end)
        stop_last = data.find(b",", last, end)
        if stop < 0 or stop_last < 0:
            return
        self.samples.extend(
            (
                now_us - int(data[first + 4 : stop]),
                (ticks + 1) // 2,
                now_us - int(data[last + 4 : stop_last]),
                ticks // 2,
            )
        )

    def _message(self, session: Session, message: bytes, now_us: int) -> None:
        """Parse a binary message: frames of a 16-byte header and a payload."""
        at = 0
        while len(message) - at >= HEADER.size:
            _, kind, _, length, _ = HEADER.unpack_from(message, at)
            at += HEADER.size
            payload = message[at : at + length]
            at += length
            if kind == 4 and session.verified:
                self._check(session, payload)
            if kind == 4 and self.measuring:
                self._notices(payload)
            if kind != 2 or not length:
                continue
            quotes = np.frombuffer(payload, QUOTE_DTYPE)
            if session.verified:
                self._check_records(session, quotes)
            if self.measuring:
                self.ticks += len(quotes)
                first, last = (now_us - int(quotes["ts_recv"][i]) // 1000 for i in (0, -1))
                self.samples.extend((first, (len(quotes) + 1) // 2, last, len(quotes) // 2))
        self.frames += self.measuring

    def _check_records(self, session: Session, quotes: np.ndarray) -> None:
        if int(quotes["g"][-1]) > self.top_g:
            self.top_g, self.top_r = int(quotes["g"][-1]), int(quotes["ts_recv"][-1]) // 1000
        for symbol, number, flags in quotes[["symbol", "n", "flags"]].tolist():
            before = session.last_n.get(symbol)
            if before is not None and not flags & 1:
                self.checked += 1
                if number <= before:
                    self.doubled += 1
                    continue
                session.missing += number - before - 1
            session.last_n[symbol] = number

    def _notices(self, payload: bytes) -> None:
        self.lags += payload.count(b'"T":"lag","on":true')
        self.conflated += sum(map(int, CONFLATED.findall(payload)))
        told = LOST.findall(payload)
        self.gaps += len(told)
        self.lost += sum(map(int, told))

    def _check(self, session: Session, payload: bytes) -> None:
        text = session.tail + payload
        whole = text.rfind(b"}") + 1
        session.tail = text[whole:]
        for name, r, n, g, snap, lag, conflated, lost in QUOTE.findall(text, 0, whole):
            if lag:
                session.lagging = lag == b"true"
                session.told += int(conflated or 0)
            elif lost:
                session.told += int(lost)
            else:
                number = int(n)
                if int(g) > self.top_g:
                    self.top_g, self.top_r = int(g), int(r)
                before = session.last_n.get(name)
                if before is not None and b"snap" not in snap:
                    self.checked += 1
                    if number <= before:
                        self.doubled += 1
                        continue
                    session.missing += number - before - 1
                session.last_n[name] = number

    def _drop(self, session: Session) -> None:
        self.poll.unregister(session.sock)
        session.sock.close()
        self.open -= session.open
        self.closed += 1

    def _fold(self) -> None:
        pairs = np.frombuffer(self.samples, np.int64).reshape(-1, 2)
        us = np.maximum(pairs[:, 0], 0)
        slots = np.minimum(np.where(us < FINE, us, FINE + (us - FINE) // 1000), FINE + COARSE - 1)
        self.bins += np.bincount(slots, pairs[:, 1], FINE + COARSE).astype(np.int64)
        self.samples = array("q")

    def _percentile_ms(self, q: float) -> float:
        sums = np.cumsum(self.bins)
        if not sums[-1]:
            return 0.0
        slot = int(np.searchsorted(sums, q * sums[-1]))
        return slot / 1000 if slot < FINE else FINE / 1000 + slot - FINE


def send(sock: socket.socket, opcode: int, payload: bytes) -> None:
    """Send one frame, masked with zeros and small enough for the socket; independent of the engine's code."""
    size = len(payload)
    short, rest = (
        (size, b"") if size < 126 else (126, size.to_bytes(2)) if size < 65536 else (127, size.to_bytes(8))
    )
    head = bytes((0x80 | opcode, 0x80 | short)) + rest
    sock.setblocking(True)
    sock.sendall(head + bytes(4) + payload)
    sock.setblocking(False)


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(json.dumps(Load(arguments()).run()))
