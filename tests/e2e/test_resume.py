"""Clients cut at random bytes, again and again, who fall back from one transport to the next.

What each puts together is exactly what was published, or the engine told it what is missing. With
MARKETFEED_PROVE=1 (make prove) 500 clients are cut 100 times each, else a few of them.
"""

from __future__ import annotations

import json
import os
import random
import socket
import struct
from collections import Counter
from urllib.parse import quote

import trio

from tests.support.bench import Decoder, Follower
from tests.support.process import engine

PROVE = bool(os.environ.get("MARKETFEED_PROVE"))
CLIENTS, CUTS = (500, 100) if PROVE else (25, 20)
# For ten minutes the test cannot read as fast as for some seconds.
DEPTH, RATE = (2048, 2000) if PROVE else (1024, 4000)
AT_ONCE = (
    25  # the test itself is what can serve no more; with more, cuts last longer than the rings reach back
)
TRANSPORTS = ("json", "binary", "sse", "poll")
CONFIG = f"""
[engine]
ring_depth = {DEPTH}
resume_ticks = 10000
[limits]
requests_per_s = 100000
[[feeds]]
name = "demo"
type = "synthetic"
symbols = 50
rate = {RATE}
trades = 0.2
"""
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a RST, and what is under way is lost
HANDSHAKE = (
    "GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Wire:
    """One connection over one transport: bytes in, whole frames, events or answers out."""

    def __init__(self, transport: str, names: list[str], follower: Follower) -> None:
        self.transport = transport
        self._names = names
        self._follower = follower
        self._decoder = Decoder(follower.epoch)
        self._decoder.id = follower.cursor
        self._data = b""
        self._opened = False

    def opening(self) -> bytes:
        """Return what the client sends first."""
        if self.transport in ("json", "binary"):
            return HANDSHAKE.encode()
        names = ",".join(self._names)
        last = f"Last-Event-ID: {self._follower.cursor}\r\n" if self._follower.cursor else ""
        if self.transport == "sse":
            target = f"/v1/events?quotes={names}&trades={names}"
            return f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{last}\r\n".encode()
        return self._poll()

    def _poll(self) -> bytes:
        names = ",".join(self._names)
        after = f"&after={quote(self._follower.cursor)}" if self._follower.cursor else ""
        return (
            f"GET /v1/poll?quotes={names}&trades={names}{after} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )

    def _subscribe(self) -> bytes:
        names = {"quotes": self._names, "trades": self._names}
        after = {"after": self._follower.cursor} if self._follower.cursor else {}
        request = {"action": "subscribe", **names, **after, "encoding": self.transport}
        text = json.dumps(request).encode()
        return struct.pack("!BBHI", 0x81, 0x80 | 126, len(text), 0) + text  # masked with zeros

    def feed(self, data: bytes, seen: Counter[str]) -> bytes:
        """Take ``data``; return what to send now."""
        self._data += data
        if self.transport == "poll":
            return self._feed_polls(seen)
        if not self._opened:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return b""
            assert head.split()[1] in (b"101", b"200"), head
            self._opened, self._data = True, rest
            if self.transport != "sse":
                return self._subscribe() + self.feed(b"", seen)
        for frame in self._frames():
            messages = self._decoder.decode(frame)
            for message in messages:
                if message["T"] in ("gap", "lag") or (
                    message["T"] == "subscription" and "resumed" in message
                ):
                    seen[message["T"]] += 1
                    seen["reset"] += bool(message.get("reset"))
                assert message["T"] != "error", message
            self._follower.follow(messages)
        return b""

    def _frames(self) -> list[bytes]:
        frames: list[bytes] = []
        while True:
            if self.transport == "sse":
                end = self._data.find(b"\n\n") + 2
                if end < 2:
                    return frames
            else:
                if len(self._data) < 10:  # shorter than any frame that we are sent, or not known yet
                    return frames
                length, start = self._data[1], 2
                if length == 126:
                    length, start = int.from_bytes(self._data[2:4], "big"), 4
                elif length == 127:
                    length, start = int.from_bytes(self._data[2:10], "big"), 10
                end = start + length
                if len(self._data) < end:
                    return frames
            frames.append(self._data[:end])
            self._data = self._data[end:]

    def _feed_polls(self, seen: Counter[str]) -> bytes:
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end:
            return b""
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", b"0"))
        if len(rest) < length:
            return b""
        self._data = rest[length:]
        assert head.split()[1] in (b"200", b"204"), head
        if not length:
            seen["204"] += 1
            return self._poll()
        body = json.loads(rest[:length])
        seen["poll"] += 1
        seen["reset"] += bool(body["reset"])
        self._follower.polled(body)
        return self._poll()


async def live(port: int, number: int, epoch: str, truth: dict, seen: Counter[str]) -> None:
    """Be cut CUTS times, and look at everything that came."""
    rng = random.Random(number)
    names = [f"SY{i:04d}" for i in rng.sample(range(50), 8)]
    follower = Checked(truth, epoch)
    for turn in range(CUTS + 1):
        wire = Wire(rng.choice(TRANSPORTS), names, follower)
        bytes_left = int(10 ** rng.uniform(1, 4.8)) if turn < CUTS else 20_000
        seen[wire.transport + " session"] += 1
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        try:
            await stream.send_all(wire.opening())
            while bytes_left > 0 or (turn == CUTS and not follower.count):
                data = await stream.receive_some(max(1, min(bytes_left, 65536)))
                assert data, f"the engine ended the {wire.transport} session of client {number}"
                bytes_left -= len(data)
                answer = wire.feed(data, seen)
                if answer:
                    await stream.send_all(answer)
        finally:
            if rng.random() < 0.5:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            await trio.aclose_forcefully(stream)
        follower.cut()
        if rng.random() < 0.03:
            await trio.sleep(rng.uniform(0, 6))  # away for so long that the rings may have come round
    assert follower.count
    seen["ticks"] += follower.count


class Checked(Follower):
    """A follower that compares each tick with what any other client got under its number."""

    def __init__(self, truth: dict, epoch: str) -> None:
        super().__init__(every=True, epoch=epoch)
        self._truth = truth

    def follow(self, messages: list[dict]) -> None:
        super().follow(messages)
        for m in messages:
            if m["T"] in ("q", "t"):
                assert self._truth.setdefault((m["T"], m["S"], m["n"]), m["g"]) == m["g"]


def test_clients_cut_at_random_bytes_miss_nothing_untold_and_get_nothing_twice(tmp_path):
    seen: Counter[str] = Counter()

    async def all_of_them(port: int, epoch: str) -> None:
        truth: dict = {}
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def in_turn(number: int) -> None:
            async with limiter:
                await live(port, number, epoch, truth, seen)

        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(in_turn, number)

    with engine(CONFIG, tmp_path) as running:
        epoch = running.ready.rpartition("epoch=")[2]
        trio.run(all_of_them, running.port, epoch)
        assert running.stop() == 0
    assert [entry for entry in running.log if entry["level"] == "error"] == []
    # The rings reach back over nearly every cut: this is about resuming, not about being told of a reset.
    assert seen["reset"] < seen["subscription"] / 2
    assert seen["subscription"] > CLIENTS * CUTS / 10
