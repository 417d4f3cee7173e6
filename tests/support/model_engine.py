"""A small model of an engine's stream, as docs/protocol.md describes it, without I/O; wsproto frames it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Request,
    TextMessage,
)

from marketfeed.core.binary import HEADER, Kind, messages_frame, quotes_frame, symbols_frame, trades_frame
from marketfeed.core.records import FLAG_SNAPSHOT, QUOTE, TRADE
from marketfeed.core.symbols import MAX_SYMBOLS

if TYPE_CHECKING:
    import random

CHANNELS = ("quotes", "trades")
SYMBOLS = ("A", "AB", "B", "C")
NOW_NS = 1_700_000_000_000_000_000
Key = tuple[int, str]  # channel, symbol
Tick = tuple[int, Key, int]  # g, whose, n


def matches(name: str, symbol: str) -> bool:
    return symbol.startswith(name[:-1]) if name.endswith("*") else symbol == name


def corrupted(frame: bytes) -> bytes:
    """Return a frame of the WebSocket with ticks, the last of which has a symbol that it cannot have."""
    data = bytearray(frame)
    at = data.rfind(b'"S":"')
    if at >= 0:
        data[at + 5] = ord(" ")
        return bytes(data)
    begin = 2 if frame[1] < 126 else 4
    while begin < len(frame):
        _, kind, _, length, _ = HEADER.unpack_from(frame, begin)
        begin += HEADER.size + length
    dtype = QUOTE if kind == Kind.QUOTES else TRADE
    np.frombuffer(data, dtype, 1, len(data) - dtype.itemsize)["symbol"] = MAX_SYMBOLS - 1
    return bytes(data)


class Model:
    """The rings: all ticks of an epoch, of which the last ``depth`` of each symbol can be read."""

    def __init__(self, depth: int = 8, most: int = 40) -> None:
        self.depth, self.most = depth, most  # most: ticks that a resume may replay
        self.lives = 0
        self.restart()

    def restart(self) -> None:
        self.lives += 1
        self.epoch = f"e{self.lives}"
        self.g = 0
        self.ticks: dict[Key, list[int]] = {}  # g by n - 1

    def publish(self, channel: int, symbol: str) -> None:
        self.g += 1
        self.ticks.setdefault((channel, symbol), []).append(self.g)

    def count(self, key: Key) -> int:
        return len(self.ticks.get(key, ()))

    def oldest(self, key: Key) -> int:
        """Return the number of the oldest tick that can be read."""
        return max(self.count(key) - self.depth, 0) + 1

    def position(self, key: Key, g: int) -> int:
        """Return the number of the newest tick up to ``g``."""
        return sum(one <= g for one in self.ticks.get(key, ()))


@dataclass
class Session:
    """The engine's side of one connection. Frames wait in ``frames`` until they are sent."""

    model: Model
    rng: random.Random
    binary_default: bool = False
    frames: list[bytes] = field(default_factory=list)  # of the WebSocket, in order; ticks only where marked
    ticks_only: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ws = WSConnection(ConnectionType.SERVER)
        self._seen: dict[Key, int] = {}
        self._fresh: list[Key] = []
        self._names: tuple[list[str], list[str]] = ([], [])
        self._open: list[Any] = []
        self._encoding = "binary" if self.binary_default else "json"
        self._tier = "vip"
        self._announced: set[str] = set()
        self._lag = False
        self._conflated = 0
        self.closed = False
        self.gaps: set[tuple[str, str, int, int]] = set()  # symbol, channel, lost, next number

    @property
    def every(self) -> bool:
        return self._tier == "vip"

    # Input.

    def receive(self, data: bytes) -> None:
        self._ws.receive_data(data)
        for event in self._ws.events():
            match event:
                case Request():
                    self._frame(self._ws.send(AcceptConnection()))
                    self._say(
                        {"T": "success", "msg": "connected", "protocol": 1, "epoch": self.model.epoch}
                        | {"session": "s", "tiers": {"vip": "every", "basic": "latest"}, "new": [1]}
                    )
                case TextMessage():
                    self._request(json.loads(event.data))
                case Ping():
                    self._frame(self._ws.send(event.response()))
                case CloseConnection():
                    self._frame(self._ws.send(event.response()))
                    self.closed = True

    def _request(self, request: dict[str, Any]) -> None:
        if request["action"] == "ping":
            self._say({"T": "pong", "id": request["id"]})
        elif request["action"] == "unsubscribe":
            for kept, gone in zip(self._names, (request["quotes"], request["trades"]), strict=True):
                kept[:] = [name for name in kept if name not in gone]
            self._seen = {key: n for key, n in self._seen.items() if self._wants(key)}
            self._fresh = [key for key in self._fresh if self._wants(key)]
            self._answer(request["id"])
        else:
            assert request["action"] == "subscribe"
            self._subscribe(request)

    def _wants(self, key: Key) -> bool:
        return any(matches(name, key[1]) for name in self._names[key[0]])

    def _subscribe(self, request: dict[str, Any]) -> None:
        model = self.model
        before = {
            (channel, symbol) for channel in (0, 1) for symbol in SYMBOLS if self._wants((channel, symbol))
        }
        names = (request.get("quotes", []), request.get("trades", []))
        for kept, more in zip(self._names, names, strict=True):
            kept += [name for name in more if name not in kept]
        wanted = {
            (channel, symbol) for channel in (0, 1) for symbol in SYMBOLS if self._wants((channel, symbol))
        }
        self._tier = request.get("tier", self._tier)
        self._encoding = request.get("encoding", self._encoding)
        added = sorted(wanted - before)
        told: dict[str, Any] = {}
        fresh = set(added)
        if after := request.get("after"):
            epoch, _, g = after.rpartition(":")
            assert epoch
            fresh, reset = self._resume(added, epoch, int(g))
            if epoch != model.epoch:
                every_name = {*names[0], *names[1]}
                reset |= {
                    name for name in every_name if not any(matches(name, symbol) for _, symbol in model.ticks)
                }
            told = {"resumed": not reset, "reset": sorted(reset)}
        self._fresh += sorted(key for key in fresh if model.count(key))
        for key in fresh:
            self._seen[key] = model.count(key)
        self._answer(request["id"], told)
        self._open.append(request["id"])

    def _resume(self, added: list[Key], epoch: str, g: int) -> tuple[set[Key], set[str]]:
        """Set positions; return the symbols that get a snapshot, and the names of those that are reset."""
        model = self.model
        if epoch != model.epoch or g > model.g:
            fresh = set(added)
            return fresh, {symbol for _, symbol in added if any(symbol == s for _, s in model.ticks)}
        at = {key: model.position(key, g) for key in added}
        broken = {key[1] for key in added if at[key] + 1 < model.oldest(key)}
        left = [key for key in added if key[1] not in broken]
        if sum(model.count(key) - at[key] for key in left) > model.most:
            broken |= {key[1] for key in left if model.count(key) > at[key]}
        for key in added:
            if key[1] not in broken:
                self._seen[key] = at[key]
        return {key for key in added if key[1] in broken}, broken

    def _answer(self, number: Any, more: dict[str, Any] | None = None) -> None:
        self._say(
            {
                "T": "subscription",
                "quotes": list(self._names[0]),
                "trades": list(self._names[1]),
                "alerts": [],
            }
            | {"tier": self._tier, "encoding": self._encoding, "id": number, "new": {"x": 1}}
            | (more or {})
        )

    # Output.

    def flush(self, most: int = 1000) -> None:
        """Send snapshots, then up to ``most`` of the missing ticks in order of ``g``, then `synced`.

        Some of the snapshots may come later than ticks of other symbols.
        """
        if self._fresh:
            size = self.rng.choice([len(self._fresh), len(self._fresh), 1, 0])
            snaps, self._fresh = self._fresh[:size], self._fresh[size:]
            self._seen.update((key, self.model.count(key)) for key in snaps)
            self._send_ticks(
                [(self.model.ticks[key][self._seen[key] - 1], key, self._seen[key]) for key in snaps], 1
            )
        ticks, gaps = self._missing()
        ticks.sort()
        sent = ticks[:most]
        for key, lost in gaps.items():
            self._seen[key] += lost
            gap = (key[1], CHANNELS[key[0]], lost, self._seen[key] + 1)
            self.gaps.add(gap)
            self._say({"T": "gap", **dict(zip(("S", "channel", "lost", "n"), gap, strict=True))})
        self._send_ticks(sent, 0)
        for _, key, n in sent:
            if self._lag and key[0] == 0:
                self._conflated += n - self._seen[key] - 1
            self._seen[key] = n
        if len(sent) == len(ticks) and not self._fresh:
            cursor = f"{self.model.epoch}:{self.model.g}"
            size = self.rng.choice([len(self._open), 1])
            for number in self._open[:size]:
                self._say({"T": "synced", "cursor": cursor, "id": number})
            del self._open[:size]
            if self._lag:
                self._say({"T": "lag", "on": False, "conflated": self._conflated})
                self._lag, self._conflated = False, 0

    def lag(self) -> None:
        """Fall behind, until a flush has sent everything."""
        if self.every and not self._lag and not self._open:
            self._lag = True
            self._say({"T": "lag", "on": True})

    def _missing(self) -> tuple[list[Tick], dict[Key, int]]:
        model = self.model
        ticks: list[Tick] = []
        gaps: dict[Key, int] = {}
        for key in [(channel, symbol) for channel in (0, 1) for symbol in SYMBOLS]:
            if not self._wants(key) or key in self._fresh:
                continue
            seen, upto = self._seen.setdefault(key, 0), model.count(key)
            if upto == seen:
                continue
            begin = seen + 1
            if not self.every or (self._lag and key[0] == 0):
                begin = upto
            elif begin < model.oldest(key):
                gaps[key] = model.oldest(key) - begin
                begin = model.oldest(key)
            ticks += [(model.ticks[key][n - 1], key, n) for n in range(begin, upto + 1)]
        return ticks, gaps

    def _send_ticks(self, ticks: list[Tick], snap: int) -> None:
        while ticks:
            size = self.rng.randint(1, 6)
            self._send_some(ticks[:size], snap)
            ticks = ticks[size:]

    def _send_some(self, ticks: list[Tick], snap: int) -> None:
        if self._encoding == "json":
            text = json.dumps([_json(tick, snap) for tick in ticks], separators=(",", ":"))
            self._frame(self._ws.send(TextMessage(text)), True)
            return
        data = b""
        new = {key[1]: SYMBOLS.index(key[1]) for _, key, _ in ticks if key[1] not in self._announced}
        if new:
            self._announced |= new.keys()
            data += symbols_frame(new, NOW_NS)
        for channel, dtype, frame in ((0, QUOTE, quotes_frame), (1, TRADE, trades_frame)):
            chosen = [tick for tick in ticks if tick[1][0] == channel]
            if chosen:
                records = np.zeros(len(chosen), dtype)
                records["g"] = [g for g, _, _ in chosen]
                records["n"] = [n for _, _, n in chosen]
                records["symbol"] = [SYMBOLS.index(key[1]) for _, key, _ in chosen]
                records["flags"] = FLAG_SNAPSHOT if snap else 0
                records["ts_recv"] = NOW_NS
                data += frame(records, NOW_NS)
        if not self.closed:
            self._frame(self._ws.send(BytesMessage(data)), not new)

    def _say(self, *messages: dict[str, Any]) -> None:
        if self.closed:
            return
        text = json.dumps([*messages, {"T": "news of a later version", "x": [1]}])
        if self._encoding == "json":
            self._frame(self._ws.send(TextMessage(text)))
        else:
            self._frame(self._ws.send(BytesMessage(messages_frame([text[1:-1].encode()], NOW_NS))))

    def _frame(self, data: bytes, ticks: bool = False) -> None:
        self.frames.append(bytes(data))
        self.ticks_only.append(ticks)

    def take(self) -> bytes:
        """Return all frames as bytes."""
        data = b"".join(self.frames)
        self.frames.clear()
        self.ticks_only.clear()
        return data


def _json(tick: Tick, snap: int) -> dict[str, Any]:
    g, (channel, symbol), n = tick
    message: dict[str, Any] = (
        {"T": "q", "S": symbol, "bp": 1.5, "bs": 1.0, "ap": None, "as": 0.0}
        if channel == 0
        else {"T": "t", "S": symbol, "p": 1.5, "s": 2.0, "d": "b", "i": 0}
    )
    message |= {"t": 0, "r": NOW_NS // 1000, "n": n, "g": g, "later": True}
    return message | ({"snap": 1} if snap else {})
