"""Clients whose connections are cut at random bytes resume over any transport without loss or duplicates.

Each client reads up to a random byte, is cut, and resumes from its cursor, perhaps over another transport.
Every tick that it does not get is announced by `gap`, `lag` or `reset`, and no tick comes twice.
MARKETFEED_PROVE=1 (`make prove`) cuts 500 clients 100 times each.
"""

from __future__ import annotations

import json
import os
import random
import socket
import struct
from collections import Counter
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import trio

from tests.support.bench import Decoder, Follower
from tests.support.conformance import check_request
from tests.support.process import engine
from tests.support.ws_frames import masked, split_frame

pytestmark = pytest.mark.alone

PROVE = bool(os.environ.get("MARKETFEED_PROVE"))
CLIENTS, CUTS = (500, 100) if PROVE else (40, 10)
SYMBOLS = 50
AT_ONCE = 25  # with more, the test reads so slowly that the rings no longer reach back to the cursors
TRANSPORTS = ("json", "binary", "sse", "poll")
VISIT_S = 0.5  # the most that a connection of a client with a cursor lasts; some symbols tick rarely
CONFIG = f"""
[engine]
ring_depth = 2048
resume_ticks = 10000
[limits]
requests_per_s = 100000
[[feeds]]
name = "demo"
type = "synthetic"
symbols = {SYMBOLS}
rate = 2000
trades = 0.2
"""
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST, which discards unsent bytes
HANDSHAKE = (
    "GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

Truth = dict[tuple[str, str, int], int]  # `g` of each (type, symbol, n) that any client got


class Checked(Follower):
    """A follower that also compares each tick with what any other client got under its number."""

    def __init__(self, truth: Truth, epoch: str, tier: str) -> None:
        super().__init__(every=tier == "vip", epoch=epoch)
        self._truth = truth

    def follow(self, messages: list[dict[str, Any]]) -> None:
        before = self.cursor
        super().follow(messages)
        for message in messages:
            assert message["T"] not in ("error", "closing"), message
            if message["T"] in ("q", "t"):
                key = (message["T"], message["S"], message["n"])
                assert self._truth.setdefault(key, message["g"]) == message["g"]
        if before is not None:
            assert self.cursor is not None
            assert int(self.cursor.partition(":")[2]) >= int(before.partition(":")[2])


class Subscription:
    """The names and the tier that a client subscribes to."""

    def __init__(self, rng: random.Random) -> None:
        names = [f"SY{i:04d}" for i in rng.sample(range(SYMBOLS), 8)]
        self.channels: dict[str, list[str]] = rng.choice(
            (
                {"quotes": names, "trades": names},
                {"quotes": names, "trades": names},
                {"quotes": ["*"], "trades": ["*"]},
                {"quotes": ["SY000*"], "trades": names[:2]},
                {"quotes": names[:3]},
                {"trades": ["*"]},
            )
        )
        self.tier = rng.choice(("vip", "vip", "premium"))

    def request(self, encoding: str, after: str | None) -> bytes:
        """Return the WebSocket frame that subscribes, masked with zeros."""
        request = {"action": "subscribe", "tier": self.tier, "encoding": encoding, **self.channels}
        text = json.dumps(request | ({"after": after} if after else {})).encode()
        check_request(text)
        return masked(0x81, text)

    def get(self, path: str, after: str | None, header: bool) -> bytes:
        """Return the HTTP request that subscribes; the cursor is in the query, or in Last-Event-ID."""
        query = {channel: ",".join(names) for channel, names in self.channels.items()}
        query |= {"tier": self.tier} | ({"after": after} if after and not header else {})
        last = f"Last-Event-ID: {after}\r\n" if after and header else ""
        target = f"{path}?{urlencode(query, quote_via=quote, safe='*,')}"
        return f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{last}\r\n".encode()


class Wire:
    """One connection over one transport: takes bytes, feeds the follower, returns bytes to send."""

    def __init__(self, rng: random.Random, wanted: Subscription, follower: Checked) -> None:
        self.transport = rng.choice(TRANSPORTS)
        self._last_event_id = rng.random() < 0.5
        self._wanted = wanted
        self._follower = follower
        self._decoder = Decoder(follower.epoch)
        self._decoder.id = follower.cursor
        self._data = b""
        self._opened = False

    def opening(self) -> bytes:
        """Return what the client sends first."""
        if self.transport == "sse":
            return self._wanted.get("/v1/events", self._follower.cursor, self._last_event_id)
        return self._poll() if self.transport == "poll" else HANDSHAKE.encode()

    def _poll(self) -> bytes:
        return self._wanted.get("/v1/poll", self._follower.cursor, header=False)

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
                request = self._wanted.request(self.transport, self._follower.cursor)
                return request + self.feed(b"", seen)
        for frame in self._frames():
            messages = self._decoder.decode(frame)
            for message in messages:
                if message["T"] == "subscription" and "resumed" in message:
                    seen["resumption"] += 1
                    seen["reset"] += bool(message.get("reset"))
            self._follower.follow(messages)
        return b""

    def _frames(self) -> list[bytes]:
        """Return the whole WebSocket frames or events received, and keep the rest."""
        frames: list[bytes] = []
        while True:
            if self.transport == "sse":
                end = self._data.find(b"\n\n") + 2
                if end < 2:
                    return frames
            else:
                whole = split_frame(self._data)
                if whole is None:
                    return frames
                end = len(self._data) - len(whole[2])
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
        if length:
            body = json.loads(rest[:length])
            seen["reset"] += bool(body["reset"])
            self._follower.polled(body)
        return self._poll()


async def live(port: int, number: int, epoch: str, truth: Truth, seen: Counter[str]) -> None:
    """Connect and be cut CUTS times, then once more read until ticks have come."""
    rng = random.Random(number)
    wanted = Subscription(rng)
    follower = Checked(truth, epoch, wanted.tier)
    for visit in range(CUTS + 1):
        wire = Wire(rng, wanted, follower)
        seen[wire.transport] += 1
        last = visit == CUTS
        left_bytes = 20_000 if last else int(10 ** rng.uniform(0, 4.8))
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        try:
            await stream.send_all(wire.opening())
            until_s = trio.current_time() + VISIT_S
            while left_bytes > 0 or (last and not follower.count):
                needed = follower.cursor is None or (last and not follower.count)
                with trio.move_on_at(float("inf") if needed else until_s) as reading:
                    data = await stream.receive_some(65536 if last else min(left_bytes, 65536))
                if reading.cancelled_caught:
                    break
                assert data, f"the engine ended the {wire.transport} session of client {number}"
                left_bytes -= len(data)
                answer = wire.feed(data, seen)
                if answer:
                    await stream.send_all(answer)
        finally:
            if rng.random() < 0.5:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            await trio.aclose_forcefully(stream)
        follower.cut()
        if rng.random() < 0.03:
            await trio.sleep(rng.uniform(0, 6))  # long enough for the rings to overwrite some of the ticks
    assert follower.cursor is not None
    assert follower.count
    seen["ticks"] += follower.count


def test_clients_cut_at_random_bytes_miss_nothing_unannounced_and_get_nothing_twice(tmp_path):
    seen: Counter[str] = Counter()

    async def all_of_them(port: int, epoch: str) -> None:
        truth: Truth = {}
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def limited(number: int) -> None:
            async with limiter:
                await live(port, number, epoch, truth, seen)

        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(limited, number)

    with engine(CONFIG, tmp_path) as running:
        epoch = running.ready.rpartition("epoch=")[2]
        trio.run(all_of_them, running.port, epoch)
        assert running.stop() == 0
    assert [entry for entry in running.log if entry["level"] == "error"] == []
    # The rings reach back over nearly every cut: most connections resume, and few are reset.
    assert seen["reset"] < seen["resumption"] / 2
    assert seen["resumption"] > CLIENTS * CUTS / 10
    assert seen["ticks"] > CLIENTS * CUTS
    assert all(seen[transport] for transport in TRANSPORTS)
