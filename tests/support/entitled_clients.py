"""Clients whose ticks are compared with the claims of the token that they hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import trio

from marketfeed.core.binary import FrameParser, Kind

if TYPE_CHECKING:
    import trio_websocket


@dataclass
class Held:
    """The claims of one token, in the model."""

    text: str
    symbols: list[str]
    channels: list[str]
    tier: str

    def shows(self, channel: str, symbol: str) -> bool:
        return channel in self.channels and matched(self.symbols, symbol)


def matched(patterns: list[str], symbol: str) -> bool:
    """Return whether a symbol is one of ``patterns``, or begins with one that ends in ``*``."""
    return any(
        symbol == pattern or (pattern.endswith("*") and symbol.startswith(pattern[:-1]))
        for pattern in patterns
    )


class Checks(Protocol):
    """What is asked about each tick and tier that arrives; raises AssertionError."""

    def check(self, held: Held | None, channel: str | None, symbol: str) -> None:
        """Check a symbol on ``channel``, None: on any."""
        ...

    def check_tier(self, held: Held | None, tier: str) -> None:
        """Check the tier of a subscription."""
        ...


class Stream:
    """A session over WebSocket, in JSON or binary: its messages one by one, each tick checked."""

    def __init__(self, ws: trio_websocket.WebSocketConnection, checks: Checks) -> None:
        self.ws, self._checks = ws, checks
        self._messages: list[dict[str, Any]] = []
        self._names: dict[int, str] = {}
        self.held: Held | None = None
        self.presented: dict[Any, Held] = {}  # by the id of the request
        self.cursor: str | None = None

    async def send(self, **request: Any) -> None:
        await self.ws.send_message(json.dumps(request))

    async def next(self) -> dict[str, Any]:
        """Return the next message, checked; raises trio_websocket.ConnectionClosed."""
        while not self._messages:
            frame = await self.ws.get_message()
            self._messages = json.loads(frame) if isinstance(frame, str) else list(self._decoded(frame))
        message = self._messages.pop(0)
        kind = message["T"]
        if kind == "success" and message["msg"] == "authenticated":
            self.held = self.presented.get(message.get("id"), self.held)
        elif kind == "synced":
            self.cursor = message["cursor"]
        elif kind in ("q", "t"):
            self._checks.check(self.held, "quotes" if kind == "q" else "trades", message["S"])
        elif kind == "symbols":
            for name in message["ids"]:
                self._checks.check(self.held, None, name)
        elif kind == "subscription":
            self._checks.check_tier(self.held, message["tier"])
        return message

    def _decoded(self, frame: bytes) -> Any:
        parser = FrameParser()
        parser.feed(frame)
        for part in parser:
            if part.kind is Kind.SYMBOLS:
                self._names |= {number: name for name, number in part.symbols().items()}
                yield {"T": "symbols", "ids": part.symbols()}
            elif part.kind is Kind.MESSAGES:
                yield from part.messages()
            elif part.kind in (Kind.QUOTES, Kind.TRADES):
                kind = "q" if part.kind is Kind.QUOTES else "t"
                for number in part.records()["symbol"].tolist():
                    yield {"T": kind, "S": self._names[number]}

    async def until(self, *kinds: str, id_: Any = None) -> dict[str, Any]:
        """Read up to a message of one of ``kinds``, with this id if there is one."""
        while True:
            message = await self.next()
            if message["T"] in kinds and (id_ is None or message.get("id") == id_):
                return message


class Lines:
    """Lines of a response, b"\\n" alone as their end; None at its end."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream, self._data = stream, b""

    async def next(self) -> Any:
        while b"\n" not in self._data:
            data = await self._stream.receive_some()
            if not data:
                return None
            self._data += data
        line, _, self._data = self._data.partition(b"\n")
        return line.rstrip(b"\r")


def head(method: str, target: str, token: str = "", more: str = "") -> bytes:
    """Return the head of a request."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{authorization}{more}\r\n".encode()


async def request(port: int, method: str, target: str, token: str) -> tuple[int, Any]:
    """Return status and body of a request."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(head(method, target, token, "Connection: close\r\n"))
        answer = b""
        while more := await stream.receive_some():
            answer += more
    assert answer, f"{method} {target}: closed without an answer"
    first, _, body = answer.partition(b"\r\n\r\n")
    return int(first.split()[1]), json.loads(body) if body else None
