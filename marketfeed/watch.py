"""``marketfeed watch``: one session over a WebSocket, kept up, shown by marketfeed/board.py."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import orjson
import trio
import trio_websocket
from rich.console import Console
from rich.live import Live

from marketfeed import __version__
from marketfeed.board import Board, line_of, notice_of, table_of
from marketfeed.core.binary import FrameParser, Kind
from marketfeed.errors import CloseCode, ConfigError, FeedProtocolError

REDRAW_S: Final = 0.2
FIRST_RETRY_S: Final = 0.5
MAX_RETRY_S: Final = 10.0
HANDSHAKE_S: Final = 10.0
CLOSE_S: Final = 2.0  # for the engine's half of the close handshake
AGENT: Final = [(b"User-Agent", f"marketfeed-cli/{__version__}".encode("ascii"))]
MESSAGE_BYTES: Final = 64 << 20
RECEIVE_BYTES: Final = 1 << 16
FIRST_FINAL_CODE: Final = 4500  # close codes from here on: do not come back


class _FinalError(Exception):
    """The engine refused, for good, what the command asked for."""


class _InterruptedError(Exception):
    """Ctrl-C."""


class _PipeClosedError(Exception):
    """Nobody reads our standard output any more, as with ``| head``."""


# What ends a session, and in return what one run of the command has to deal with.
_OUR_ENDS: Final = (_FinalError, _PipeClosedError)
_THEIR_ENDS: Final = (
    trio_websocket.ConnectionClosed,
    trio_websocket.HandshakeError,
    trio.TooSlowError,
    trio.BrokenResourceError,
    OSError,
)
Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class Watch:
    """One run of the command."""

    def __init__(
        self,
        url: str,
        symbols: list[str],
        tier: str | None,
        token: str | None,
        console: Console | None = None,
    ) -> None:
        """Prepare to watch; raises ConfigError if ``url`` is not one of a WebSocket."""
        self._url = url
        self._parts = parsed_url(url)
        query = f"?{self._parts.query}" if self._parts.query else ""
        self._resource = (self._parts.path or "/") + query
        self._requests: list[dict[str, Any]] = []
        if token is not None:
            self._requests.append({"action": "auth", "token": token, "id": "auth"})
        names = {"quotes": symbols, "trades": symbols}
        self._requests.append({"action": "subscribe", **names, "encoding": "json", "id": "watch"})
        if tier is not None:
            self._requests[-1]["tier"] = tier
        self._board = Board()
        self._console = console or Console()
        self._plain = not self._console.is_terminal
        self._retry_s = FIRST_RETRY_S
        self._reading: trio.CancelScope | None = None

    async def run(self) -> int:
        """Watch until interrupted; return the exit status."""
        status = 0
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._wait_interrupt, signals, nursery.cancel_scope)
                if self._plain:
                    status = await self._follow()
                else:
                    with Live(console=self._console, auto_refresh=False) as live:
                        nursery.start_soon(self._redraw, live)
                        status = await self._follow()
                nursery.cancel_scope.cancel()
        return status

    async def _wait_interrupt(self, signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
        await anext(signals)
        # Only the reading, where there is one: the connection is closed as it should be.
        (self._reading or everything).cancel()

    async def _redraw(self, live: Live) -> None:
        while True:
            rows = max(self._console.height - 6, 5)
            live.update(table_of(self._board, self._url, time.time(), rows), refresh=True)
            await trio.sleep(REDRAW_S)

    async def _follow(self) -> int:
        """Connect, and again after each end that permits it; return the exit status."""
        connected = False
        while True:
            match await self._session():
                case _InterruptedError():
                    return 0
                case _PipeClosedError():
                    # Or the interpreter would complain when it flushes at its end.
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                    return 0
                case _FinalError() as error:
                    return self._give_up(str(error))
                case trio_websocket.ConnectionClosed() as closed:
                    connected = True
                    code, why = _reason(closed)
                    if code >= FIRST_FINAL_CODE:
                        return self._give_up(f"closed {code}: {why}")
                    self._say(f"closed {code} ({why})")
                case error:
                    if not connected:
                        return self._give_up(f"cannot connect to {self._url}: {plainly(error)}")
                    self._say(plainly(error))
            # Many clients may have lost the same engine: not all at once.
            await trio.sleep(self._retry_s * random.uniform(0.5, 1.0))
            self._retry_s = min(self._retry_s * 2, MAX_RETRY_S)

    async def _session(self) -> BaseException:
        """Run one session to its end; return why it ended."""
        ended: BaseException = _InterruptedError()
        # Over a stream of our own: open_websocket_url leaves its socket open when the server closes first.
        try:
            async with await connect(self._parts) as stream, trio.open_nursery() as nursery:
                with trio.fail_after(HANDSHAKE_S):
                    ws = await trio_websocket.wrap_client_stream(
                        nursery,
                        stream,
                        self._parts.netloc,
                        self._resource,
                        extra_headers=AGENT,
                        max_message_size=MESSAGE_BYTES,
                        receive_buffer_size=RECEIVE_BYTES,
                    )
                try:
                    for request in self._requests:
                        await ws.send_message(orjson.dumps(request).decode())
                    with trio.CancelScope() as self._reading:
                        await self._read(ws)
                finally:
                    self._reading = None
                    with trio.move_on_after(CLOSE_S):
                        await ws.aclose()
        except* (*_OUR_ENDS, *_THEIR_ENDS) as group:
            ended = group
            while isinstance(ended, BaseExceptionGroup):
                ended = ended.exceptions[0]
        return ended

    async def _read(self, ws: trio_websocket.WebSocketConnection) -> None:
        """Show what comes until the connection ends, which raises ConnectionClosed."""
        while True:
            frame = await ws.get_message()
            now_s = time.time()
            try:
                messages = _messages(frame)
            except (orjson.JSONDecodeError, FeedProtocolError):
                raise _FinalError(f"{self._url} does not speak marketfeed's protocol") from None
            for message in messages:
                self._take(message, now_s)
            if self._plain:
                _print(*filter(None, map(line_of, messages)))

    def _take(self, message: dict[str, Any], now_s: float) -> None:
        match message:
            case {"T": "error", "id": _}:  # the answer to one of our requests: again would be the same
                raise _FinalError(f"error {message['code']}: {message['msg']}")
            case {"T": "subscription"}:
                self._retry_s = FIRST_RETRY_S
            case {"T": "closing", "retry_ms": retry_ms}:
                self._retry_s = retry_ms / 1000
        self._board.fold(message, now_s)
        notice = notice_of(message)
        if self._plain and notice is not None:
            print(f"marketfeed watch: {notice}", file=sys.stderr)

    def _say(self, ended: str) -> None:
        self._board.status = f"{ended}, reconnecting"
        if self._plain:
            print(f"marketfeed watch: {self._board.status}", file=sys.stderr)

    def _give_up(self, why: str) -> int:
        self._board.status = "ended"
        print(f"marketfeed watch: {why}", file=sys.stderr)
        return 1


def _messages(frame: str | bytes) -> list[dict[str, Any]]:
    """Return the messages of ``frame``; those before our request may come in the engine's binary frames."""
    if isinstance(frame, str):
        messages: list[dict[str, Any]] = orjson.loads(frame)
        return messages
    parser = FrameParser()
    parser.feed(frame)
    return [message for part in parser if part.kind is Kind.MESSAGES for message in part.messages()]


async def connect(parts: SplitResult) -> Stream:
    """Return a connection to where ``parts`` point, encrypted for wss; raises OSError."""
    host, port = parts.hostname or "", parts.port
    if parts.scheme == "ws":
        return await trio.open_tcp_stream(host, port or 80)
    return await trio.open_ssl_over_tcp_stream(host, port or 443, https_compatible=True)


def parsed_url(url: str, option: str = "--url ") -> SplitResult:
    """Return the parts of a WebSocket's URL; raises ConfigError for any other, given by ``option``."""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0:
            return parts
    except ValueError as error:
        raise ConfigError(f"{option}{url}: {error}") from None
    raise ConfigError(f"{option}{url}: written as ws://HOST:PORT/v1/stream, or wss://")


def _print(*lines: str) -> None:
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        raise _PipeClosedError from None


def _reason(closed: trio_websocket.ConnectionClosed) -> tuple[int, str]:
    """Return the close code and its text."""
    if closed.reason is None:
        return CloseCode.ABNORMAL, "connection lost"
    return closed.reason.code, closed.reason.reason or closed.reason.name.lower().replace("_", " ")


def plainly(error: BaseException) -> str:
    """Return why there is no connection, for people."""
    if isinstance(error, trio_websocket.ConnectionRejected):
        body = (error.body or b"").decode("utf-8", "replace").strip()
        return f"refused with HTTP status {error.status_code}{': ' if body else ''}{body[:200]}"
    if isinstance(error, trio.TooSlowError):
        return "no answer"
    while error.__cause__ is not None:  # trio's "all attempts failed" stands above the reason
        error = error.__cause__
    if isinstance(error, BaseExceptionGroup):  # one for each address of the host
        error = error.exceptions[0]
    if isinstance(error, ConnectionRefusedError):
        return "connection refused, is the engine running?"
    return " ".join(str(error).split()) or type(error).__name__
