"""A shard over real rings, driven cycle by cycle, with sinks whose capacity the test controls."""

from __future__ import annotations

import json
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import trio
import trio.testing

from marketfeed.core.binary import FrameParser, Kind
from marketfeed.core.compressed import inflated, is_compressed
from marketfeed.core.cursor import Cursor, parse_cursor
from marketfeed.core.records import FLAG_SNAPSHOT, QUOTE, QUOTES, TRADE, TRADES, Batch
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.units import MS
from marketfeed.core.writer import RingWriter
from marketfeed.fanout import compression
from marketfeed.fanout.change import SubscriptionChange
from marketfeed.fanout.interest import Names
from marketfeed.fanout.keepalive import Timing
from marketfeed.fanout.shard import Shard
from marketfeed.fanout.tiers import Tier
from marketfeed.fanout.wire import JSON, Encoding
from marketfeed.gateway import protocol
from marketfeed.latency.recorder import LatencyRecorder
from tests.support.conformance import check_event, check_messages, check_poll
from tests.support.ws_frames import split_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from marketfeed.errors import CloseCode
    from marketfeed.fanout.resume import Resumption
    from marketfeed.fanout.subscriber import Subscriber

S = 1_000_000_000
VIP = Tier("vip", 0, True, 65536)
PREMIUM = Tier("premium", 100 * MS, False, 65536)
BASIC = Tier("basic", 500 * MS, False, 65536)
SLOW_EVERY = Tier("archive", 100 * MS, True, 65536)


def kinds(messages: list[dict[str, Any]]) -> list[str]:
    """Return the type of each message."""
    return [message["T"] for message in messages]


@contextmanager
def everything_packed() -> Iterator[None]:
    """Have sessions with compression get every frame of a group compressed that becomes shorter by it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "COMPRESS_BYTES", 1)
        patch.setattr(compression, "COMPRESS_MEMBERS", 1)
        yield


class Decoder:
    """Decodes the frames of one connection in any encoding into messages in the form of JSON."""

    def __init__(self, epoch: str = "e1") -> None:
        self.epoch = epoch
        self.names: dict[int, str] = {}  # announced
        self.id: str | None = None  # of the last SSE event with an id

    def decode(self, frame: bytes) -> list[dict[str, Any]]:
        """Return the messages of one complete frame or event; pings and comments have none."""
        if frame[:2] == b": " or frame[:6] == b"retry:":
            return []
        if frame[:3] == b"id:" or frame[:5] == b"data:":
            return self._event(frame)
        whole = split_frame(frame)
        assert whole is not None
        first, payload, rest = whole
        assert not rest
        if first == 0x89:
            return []
        if first == 0x82 and is_compressed(payload):
            first, payload = 0x81, inflated(payload).encode()
        if first == 0x81:
            messages: list[dict[str, Any]] = json.loads(payload)
            check_messages(messages)
            return messages
        assert first == 0x82
        return self._step(payload)

    def _event(self, event: bytes) -> list[dict[str, Any]]:
        assert event.endswith(b"\n\n")
        fields = dict(line.split(": ", 1) for line in event.decode().strip().split("\n"))
        self.id = fields.get("id", self.id)
        messages: list[dict[str, Any]] = json.loads(fields["data"])
        check_event(messages)
        ticks = [message for message in messages if message["T"] in ("q", "t")]
        if ticks and "id" in fields:
            assert fields["id"] == f"{self.epoch}:{ticks[-1]['g']}"
            assert "snap" not in ticks[-1]
        return messages

    def _step(self, payload: bytes) -> list[dict[str, Any]]:
        parser = FrameParser()
        parser.feed(payload)
        messages: list[dict[str, Any]] = []
        ticks: list[dict[str, Any]] = []
        for frame in parser:
            assert frame.sent_ns >= 1_700_000_000 * S
            match frame.kind:
                case Kind.SYMBOLS:
                    self.names.update({number: name for name, number in frame.symbols().items()})
                case Kind.MESSAGES:
                    assert not ticks
                    messages += frame.messages()
                case Kind.HEARTBEAT:
                    messages.append({"T": "heartbeat", "t": frame.sent_ns // 1000})
                case Kind.QUOTES | Kind.TRADES:
                    kind = "q" if frame.kind is Kind.QUOTES else "t"
                    ticks += [self._tick(kind, record) for record in frame.records()]
        assert not parser.pending_bytes
        return messages + sorted(ticks, key=lambda tick: int(tick["g"]))

    def _tick(self, kind: str, record: Any) -> dict[str, Any]:
        tick = {
            "T": kind,
            "S": self.names[int(record["symbol"])],
            "n": int(record["n"]),
            "g": int(record["g"]),
        }
        return tick | ({"snap": 1} if record["flags"] & FLAG_SNAPSHOT else {})


def frames_of(data: bytes) -> list[bytes]:
    """Return the frames or events in ``data``, which were offered together."""
    if data[:1] in b":dir":
        return [event + b"\n\n" for event in data.split(b"\n\n")[:-1]]
    found = []
    while data:
        whole = split_frame(data)
        assert whole is not None
        rest = whole[2]
        found.append(data[: len(data) - len(rest)])
        data = rest
    return found


class Socket:
    """A sink that accepts ``room`` offers (None: any number), then no more."""

    def __init__(self) -> None:
        self.room: int | None = None
        self.frames: list[bytes] = []
        self.decoder = Decoder()
        self.tail: deque[bytes] = deque()
        self.received = 0
        self.acked = 0
        self.ended: CloseCode | None = None
        self.paced: list[int] = []

    def offer(self, frame: bytes) -> bool:
        if self.tail or self.room == 0:
            self.tail.append(frame)
            return False
        if self.room is not None:
            self.room -= 1
        self.frames += frames_of(frame)
        return True

    def acknowledged(self) -> int:
        return self.acked

    def unsent(self) -> int:
        return 0

    def pace(self, send_buffer_bytes: int) -> None:
        self.paced.append(send_buffer_bytes)

    def end(self, code: CloseCode) -> None:
        self.ended = self.ended or code

    def messages(self) -> list[dict[str, Any]]:
        return [message for frame in self.frames for message in self.decoder.decode(frame)]

    def take(self) -> list[dict[str, Any]]:
        """Return the messages received since the last call."""
        messages = self.messages()
        self.frames.clear()
        return messages


class Bench:
    """One shard, one writer, any sessions. Time is trio's; use under a MockClock."""

    def __init__(
        self,
        depth: int = 64,
        max_symbols: int = 64,
        resume_ticks: int = 100_000,
        heartbeat_s: float = 20.0,
        wall_ns: Callable[[], int] = lambda: 1_700_000_000 * S,
    ) -> None:
        self.rings = Rings.private(max_symbols, depth, epoch="e1")
        self.writer = RingWriter(self.rings, wall_ns)
        self.recorder = LatencyRecorder(self.rings.stamps, max_symbols, top_symbols=2)
        self.symbols = SymbolTable(max_symbols)
        timing = Timing(int(heartbeat_s * S), 60 * S, 10 * S)
        self.shard = Shard(self.rings, self.symbols, timing, resume_ticks, wall_ns, self.recorder)
        self.published: dict[tuple[str, str], list[int]] = {}

    def publish(self, *ticks: tuple[str, str]) -> None:
        """Publish one tick for each (channel letter, symbol), in this order, as one batch."""
        kinds = np.array([QUOTES if kind == "q" else TRADES for kind, _ in ticks], np.uint8)
        quotes = np.zeros(int((kinds == QUOTES).sum()), QUOTE)
        trades = np.zeros(int((kinds == TRADES).sum()), TRADE)
        quotes["symbol"] = [self.symbols.intern(name) for kind, name in ticks if kind == "q"]
        trades["symbol"] = [self.symbols.intern(name) for kind, name in ticks if kind == "t"]
        quotes["bid_sz"] = quotes["ask_sz"] = 1.0
        quotes["bid_px"], quotes["ask_px"] = 101_250_000_000, 101_270_000_000
        trades["price"], trades["size"], trades["side"] = 101_260_000_000, 5.0, ord("b")
        self.writer.write(Batch(quotes, trades, kinds))
        for kind, name in ticks:
            held = self.published.setdefault((kind, name), [])
            held.append(len(held) + 1)

    def enter(self, id: str = "s1", tier: Tier = VIP, encoding: Encoding = JSON) -> tuple[Subscriber, Socket]:
        socket = Socket()
        return self.shard.enter(id, socket, tier, encoding), socket

    async def subscribe(
        self,
        member: Subscriber,
        quotes: str = "",
        trades: str = "",
        tier: Tier | None = None,
        request_id: int | None = None,
        encoding: Encoding | None = None,
        after: str | None = None,
    ) -> None:
        names = member.names.plus(Names(tuple(quotes.split()), tuple(trades.split())))
        cursor = parse_cursor(after) if after else None
        await self.rename(member, names, tier, True, request_id, encoding, cursor)

    async def unsubscribe(self, member: Subscriber, quotes: str = "", trades: str = "") -> None:
        names = member.names.minus(Names(tuple(quotes.split()), tuple(trades.split())))
        await self.rename(member, names, None, False, None)

    async def rename(
        self,
        member: Subscriber,
        names: Names,
        tier: Tier | None,
        synced: bool,
        request_id: int | None,
        encoding: Encoding | None = None,
        after: Cursor | None = None,
    ) -> None:
        def answer(resumption: Resumption | None) -> bytes:
            told = protocol.subscription(names, member.tier.name, "json", request_id, resumption)
            return member.encoding.messages(told, 1_700_000_000 * S)

        encoding = encoding or member.encoding
        change = SubscriptionChange(
            member, names, tier or member.tier, encoding, answer, synced, request_id, after
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.shard.change, change)
            await trio.testing.wait_all_tasks_blocked()
            await self.cycle()

    async def ask(self, member: Subscriber, quotes: str) -> None:
        """Subscribe without running a cycle."""
        names = Names(tuple(quotes.split()))
        answer = member.encoding.messages(protocol.subscription(names, "vip", "json", None), 0)
        await self.shard.change(
            SubscriptionChange(member, names, member.tier, member.encoding, lambda _: answer, True)
        )

    async def cycle(self, times: int = 1) -> None:
        """Run the due work of the shard."""
        for _ in range(times):
            await self.shard.cycle(int(trio.current_time() * S))

    def open(self, member: Subscriber, socket: Socket, room: int | None = None) -> None:
        """Flush waiting frames, and accept ``room`` more."""
        socket.room = room
        if socket.tail:
            socket.frames += [frame for offered in socket.tail for frame in frames_of(offered)]
            socket.tail.clear()
            self.shard.drained(member)

    def balanced(self) -> None:
        """Assert that every session's ledger adds up."""
        for member in self.shard.members:
            for tier, ledger in self.shard.figures.ledgers(member).items():
                assert ledger.difference == 0, (member.id, tier, ledger)


class Follower:
    """A client that checks n and g of every tick, and holes against announced losses."""

    def __init__(self, every: bool, epoch: str = "e1") -> None:
        self.every = every
        self.epoch = epoch
        self.last: dict[tuple[str, str], int] = {}
        self.g = 0
        self.lagging = False
        self.told: dict[tuple[str, str], int] = {}
        self.count = 0
        # State at the cursor, which survives a disconnect.
        self.cursor: str | None = None
        self._moves = False
        self._anchor: dict[tuple[str, str], int] = {}

    def follow(self, messages: list[dict[str, Any]]) -> None:
        """Check messages in order; raises AssertionError for a duplicate, a silent hole or a wrong order."""
        for message in messages:
            kind = message["T"]
            if kind == "lag":
                self.lagging = message["on"]
            elif kind == "subscription":
                self._answered(message)
            elif kind == "synced":
                self._moves = True
                self._anchored(message["cursor"])
            elif kind == "gap":
                key = ("q" if message["channel"] == "quotes" else "t", message["S"])
                if key in self.last:
                    # A gap may follow another: the next tick has been overwritten meanwhile.
                    last = max(self.last[key], self.told.get(key, 0) - 1)
                    assert message["lost"] == message["n"] - last - 1
                self.told[key] = message["n"]
            elif kind in ("q", "t"):
                self._tick((kind, message["S"]), message)

    def cut(self) -> None:
        """Lose the connection, and all ticks after the cursor."""
        self.last = dict(self._anchor)
        self._moves = self.lagging = False
        self.told.clear()
        self.g = 0 if self.cursor is None else int(self.cursor.partition(":")[2])

    def polled(self, body: dict[str, Any]) -> None:
        """Check the answer of a long poll."""
        check_poll(body)
        self._answered({"reset": body["reset"]})
        self.follow(body["messages"])
        self._anchored(body["cursor"])
        self.g = int(body["cursor"].partition(":")[2])

    def _answered(self, message: dict[str, Any]) -> None:
        self._moves = message.get("resumed", self._moves)
        for name in message.get("reset", ()):
            for kind in "qt":
                self.last.pop((kind, name), None)

    def _anchored(self, cursor: str) -> None:
        self.cursor = cursor
        self._anchor = dict(self.last)

    def _tick(self, key: tuple[str, str], message: dict[str, Any]) -> None:
        n, last = message["n"], self.last.get(key, 0)
        if "snap" in message:
            assert n >= last
            self.last[key] = n
            return
        self.count += 1
        assert n > last, f"{key}: {n} after {last}"
        assert message["g"] > self.g
        self.g = message["g"]
        if self.every and n != last + 1:
            assert self.told.get(key) == n or (self.lagging and key[0] == "q"), (
                f"{key}: {last} → {n} silently"
            )
        self.last[key] = n
        if self._moves:
            self._anchored(f"{self.epoch}:{self.g}")
