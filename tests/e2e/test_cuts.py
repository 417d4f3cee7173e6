"""Clients whose connections are cut at random bytes go on by any transport, and never miss a tick untold.

Each client reads what its connection brings, up to a random byte, and comes back with its cursor: by another
transport, perhaps. On `vip`, n follows n but for what `gap`, `lag` or `reset` say; on `premium`, it rises.
"""

from __future__ import annotations

import base64
import json
import os
import random
from typing import TYPE_CHECKING, Any

import trio

from marketfeed.core.binary import FrameParser, Kind
from tests.support.process import Engine, engine

if TYPE_CHECKING:
    from collections.abc import Generator

# In the long form not all at once: the test itself would be too slow for any to get far.
CLIENTS, CUTS, AT_ONCE = (500, 100, 30) if os.environ.get("MARKETFEED_PROVE") else (50, 10, 50)
MOST_BYTES = 16000  # of a connection, before it is cut
FIRST_S = 30.0  # for a first cursor, which is what a cut needs
VISIT_S = 0.5  # that a connection lasts at most; some of what clients want ticks seldom
SYMBOLS = 10
CONFIG = (
    "[limits]\nrequests_per_s = 1000000\n"
    f'[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = {SYMBOLS}\nrate = 5000\ntrades = 0.3\n'
)
WANTS = (
    {"quotes": "*", "trades": "*"},
    {"quotes": "SY000*", "trades": "SY0001,SY0009"},
    {"quotes": "SY0003,SY0007,SY0008"},
    {"trades": "*"},
)


class Client:
    """What one client has, and what it may be sent next."""

    def __init__(self, number: int) -> None:
        self.random = random.Random(number)
        self.want = self.random.choice(WANTS)
        self.tier = self.random.choice(("vip", "vip", "premium"))
        self.cursor = ""
        self.last: dict[tuple[str, str], int] = {}
        self._kept: dict[tuple[str, str], int] = {}  # `last` as of the cursor
        self._lagging = False
        self._skips: dict[tuple[str, str], int] = {}  # told by `gap`: the next n
        self._snapshot: set[str] | None = None  # names whose `n` starts anew
        self.ticks = 0
        self.told = 0

    def begin(self) -> None:
        """Be connected anew: only what the cursor stands for counts."""
        self.last = dict(self._kept)
        self._lagging, self._skips, self._snapshot = False, {}, None

    def move(self, cursor: str) -> None:
        """Have everything up to ``cursor``."""
        assert not self.cursor or int(cursor.split(":")[1]) >= int(self.cursor.split(":")[1])
        self.cursor, self._kept = cursor, dict(self.last)

    def reset(self, names: list[str]) -> None:
        self.told += len(names)
        for name in names:
            self.last.pop(("q", name), None)
            self.last.pop(("t", name), None)

    def take(self, message: dict) -> None:
        """Look at one message; a tick must be the next one, or what lies between was told."""
        match message["T"]:
            case "q" | "t":
                self._tick((message["T"], message["S"]), message["n"], "snap" in message)
            case "gap":
                self.told += message["lost"]
                self._skips["q" if message["channel"] == "quotes" else "t", message["S"]] = message["n"]
            case "lag":
                self._lagging = message["on"]
                self.told += 1
            case "error" | "closing":
                raise AssertionError(message)

    def _tick(self, key: tuple[str, str], n: int, snap: bool) -> None:
        had = self.last.get(key, 0)
        self.last[key] = n
        if snap:
            assert n >= had
            return
        self.ticks += 1
        assert n > had, f"{key} n={n} after n={had}, after {self.cursor}"
        if self.tier == "vip" and not (self._lagging and key[0] == "q"):
            assert n == self._skips.pop(key, had + 1), f"{key} n={n} after n={had}, after {self.cursor}"

    # One connection.

    async def visit(self, port: int) -> None:
        """Connect by some transport and read up to a random byte, or the end of the answer."""
        self.begin()
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        transport = self.random.choice((self._stream, self._stream, self._events, self._poll))
        steps = transport()
        left = self.random.randrange(1, MOST_BYTES)
        async with stream:
            await stream.send_all(next(steps))
            with trio.move_on_after(VISIT_S if self.cursor else FIRST_S) as visit:
                while left > 0 and (data := await stream.receive_some(min(left, 4096))):
                    left -= len(data)
                    try:
                        answer = steps.send(data)
                    except StopIteration:
                        break
                    if answer:
                        await stream.send_all(answer)
                    if self.cursor:
                        visit.deadline = min(visit.deadline, trio.current_time() + VISIT_S)
            if self.random.random() < 0.5:
                stream.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SOL_SOCKET, SO_LINGER: leave by a reset

    def _query(self) -> str:
        query = "&".join(f"{channel}={names}" for channel, names in self.want.items())
        after = f"&after={self.cursor}" if self.cursor else ""
        return f"{query}&tier={self.tier}{after}"

    def _stream(self) -> Generator[bytes, bytes, None]:
        """Speak WebSocket: bytes in, bytes to send out."""
        encoding = self.random.choice(("json", "binary"))
        key = base64.b64encode(b"0123456789abcdef").decode()
        got = yield (
            "GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        while b"\r\n\r\n" not in got:
            got += yield b""
        got = got.partition(b"\r\n\r\n")[2]
        request: dict[str, Any] = {"action": "subscribe", "tier": self.tier, "encoding": encoding}
        request |= {channel: names.split(",") for channel, names in self.want.items()}
        request |= {"after": self.cursor} if self.cursor else {}
        text = json.dumps(request).encode()
        got += yield bytes([0x81, 0xFE]) + len(text).to_bytes(2, "big") + bytes(4) + text
        names: dict[int, str] = {}
        moves = False
        while True:
            while not (frame := _frame(got)):
                got += yield b""
            opcode, payload, got = frame
            if opcode not in (1, 2):
                continue
            messages = json.loads(payload) if opcode == 1 else _unpack(payload, names)
            for message in messages:
                if message["T"] == "subscription":
                    moves = message.get("resumed", False)
                    self.reset(message.get("reset", []))
                self.take(message)
                if message["T"] == "synced":
                    moves = True
                    self.move(message["cursor"])
            gs = [message["g"] for message in messages if "g" in message and "snap" not in message]
            if gs and moves:
                epoch = self.cursor.split(":")[0]
                self.move(f"{epoch}:{max(gs)}")

    def _events(self) -> Generator[bytes, bytes, None]:
        got = yield f"GET /v1/events?{self._query()} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        while b"\r\n\r\n" not in got:
            got += yield b""
        got = got.partition(b"\r\n\r\n")[2]
        while True:
            while b"\n\n" not in got:
                got += yield b""
            event, _, got = got.partition(b"\n\n")
            fields = dict(line.split(b": ", 1) for line in event.split(b"\n") if not line.startswith(b":"))
            for message in json.loads(fields.get(b"data", b"[]")):
                self.reset(message.get("reset", []))
                self.take(message)
            if b"id" in fields:
                self.move(fields[b"id"].decode())

    def _poll(self) -> Generator[bytes, bytes, None]:
        got = yield f"GET /v1/poll?{self._query()} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        while b"\r\n\r\n" not in got:
            got += yield b""
        head, _, body = got.partition(b"\r\n\r\n")
        size = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        while len(body) < size:
            body += yield b""
        answer = json.loads(body)
        self.reset(answer["reset"])
        for message in answer["messages"]:
            self.take(message)
        self.move(answer["cursor"])


def _frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Return opcode, payload and the rest; None while the frame is not whole."""
    if len(data) < 2:
        return None
    length, at = data[1] & 127, 2
    if length >= 126:
        at = 4 if length == 126 else 10
        length = int.from_bytes(data[2:at], "big") if len(data) >= at else len(data)
    return (data[0] & 15, data[at : at + length], data[at + length :]) if len(data) >= at + length else None


def _unpack(payload: bytes, names: dict[int, str]) -> list[dict]:
    """Return a binary message as the JSON messages it stands for, as far as a Client looks at them."""
    messages: list[dict] = []
    parser = FrameParser()
    parser.feed(payload)
    for frame in parser:
        match frame.kind:
            case Kind.SYMBOLS:
                names.update({id_: name for name, id_ in frame.symbols().items()})
            case Kind.MESSAGES:
                messages += frame.messages()
            case Kind.QUOTES | Kind.TRADES:
                kind = "q" if frame.kind == Kind.QUOTES else "t"
                for record in frame.records():
                    snap = {"snap": 1} if record["flags"] & 1 else {}
                    tick = {"T": kind, "S": names[int(record["symbol"])], "n": int(record["n"])}
                    messages.append(tick | {"g": int(record["g"])} | snap)
    return messages


async def cut_again_and_again(client: Client, running: Engine, limiter: trio.CapacityLimiter) -> None:
    async with limiter:
        for _ in range(CUTS):
            await client.visit(running.port)


async def test_no_cut_goes_undetected_and_nothing_comes_twice(tmp_path):
    clients = [Client(number) for number in range(CLIENTS)]
    limiter = trio.CapacityLimiter(AT_ONCE)
    with engine(CONFIG, tmp_path) as running:
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(cut_again_and_again, client, running, limiter)
    assert all(client.cursor for client in clients)
    assert sum(client.ticks for client in clients) > CLIENTS * CUTS
