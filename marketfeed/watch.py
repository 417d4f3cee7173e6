"""``marketfeed watch``: quotes and trades live, as a table on a terminal, as lines otherwise."""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import trio
import trio_websocket
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

REDRAW_S: Final = 0.2
RATE_WINDOW_S: Final = 5.0
FIRST_RETRY_S: Final = 0.5
MAX_RETRY_S: Final = 10.0
MUST_NOT_RECONNECT: Final = 4500  # close codes from here on


@dataclass(slots=True)
class Row:
    """What is known of one symbol."""

    bid: float | None = None
    ask: float | None = None
    bid_size: float = 0.0
    ask_size: float = 0.0
    last: float | None = None
    last_size: float = 0.0
    side: str = "-"
    direction: int = 0  # of the last change of the middle
    received_s: float = 0.0
    arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=2000))

    def rate(self, now_s: float) -> float:
        """Return ticks a second over the last RATE_WINDOW_S."""
        while self.arrivals and now_s - self.arrivals[0] > RATE_WINDOW_S:
            self.arrivals.popleft()
        return len(self.arrivals) / RATE_WINDOW_S


class Board:
    """The table's state: messages folded in, in order."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.tier = "?"
        self.status = "connecting"
        self.notices: deque[str] = deque(maxlen=3)
        self.ticks = 0

    def fold(self, message: dict[str, Any], now_s: float) -> None:
        """Take in one message of the stream."""
        match message["T"]:
            case "q":
                self._quote(self._row(message, now_s), message)
            case "t":
                row = self._row(message, now_s)
                row.last, row.last_size, row.side = message["p"], message["s"], message["d"]
            case "subscription":
                self.tier, self.status = message["tier"], "live"
            case "gap":
                self.notices.append(f"{message['S']}: {message['lost']} {message['channel']} were lost")
            case "lag" if message["on"]:
                self.notices.append("this connection fell behind; quotes are conflated")
            case "lag":
                self.notices.append(f"caught up; {message['conflated']} quotes were left out")
            case "error" | "closing":
                self.notices.append(f"{message['T']} {message['code']}: {message['msg']}")

    def _row(self, message: dict[str, Any], now_s: float) -> Row:
        row = self.rows.setdefault(message["S"], Row())
        row.received_s = message["r"] / 1e6
        if "snap" not in message:
            row.arrivals.append(now_s)
            self.ticks += 1
        return row

    @staticmethod
    def _quote(row: Row, message: dict[str, Any]) -> None:
        bid = message["bp"] if message["bs"] else None
        ask = message["ap"] if message["as"] else None
        if None not in (bid, ask, row.bid, row.ask):
            change = (bid + ask) - (row.bid + row.ask)  # type: ignore[operator]
            row.direction = (change > 0) - (change < 0) or row.direction
        row.bid, row.ask, row.bid_size, row.ask_size = bid, ask, message["bs"], message["as"]


def line_of(message: dict[str, Any]) -> str | None:
    """Return a tick as one plain line, None for any other message."""
    match message["T"]:
        case "q":
            bid, ask = f"{message['bs']:g} x {message['bp']!r}", f"{message['ap']!r} x {message['as']:g}"
            text = f"quote {message['S']} {bid}  {ask}"
        case "t":
            text = f"trade {message['S']} {message['s']:g} @ {message['p']!r} {message['d']}"
        case _:
            return None
    stamp = time.strftime("%H:%M:%S", time.gmtime(message["r"] // 1_000_000))
    return f"{stamp}.{message['r'] % 1_000_000:06d} {text} n={message['n']}"


def table_of(board: Board, url: str, now_s: float, most_rows: int) -> Group:
    """Return the board as something rich can print, at most ``most_rows`` symbols of it."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("symbol", "bid size", "bid", "ask", "ask size", "last", "size", "rate/s", "age"):
        table.add_column(title, justify="left" if title == "symbol" else "right")
    names = sorted(board.rows)
    for name in names[:most_rows]:
        row = board.rows[name]
        colour = {1: "green", -1: "red", 0: ""}[row.direction]
        table.add_row(
            Text(name, style="bold"),
            f"{row.bid_size:g}" if row.bid is not None else "",
            Text(_price(row.bid), style=colour),
            Text(_price(row.ask), style=colour),
            f"{row.ask_size:g}" if row.ask is not None else "",
            Text(_price(row.last), style={"b": "green", "s": "red"}.get(row.side, "")),
            f"{row.last_size:g}" if row.last is not None else "",
            f"{row.rate(now_s):.1f}",
            _age(now_s - row.received_s),
        )
    more = len(names) - most_rows
    parts: list[Any] = [
        Text(f"{url}  ·  {board.tier}  ·  {board.status}  ·  {board.ticks:,} ticks", style="dim")
    ]
    parts.append(table)
    if more > 0:
        parts.append(Text(f"… and {more} more symbols", style="dim"))
    parts += [Text(notice, style="yellow") for notice in board.notices]
    return Group(*parts)


def _price(price: float | None) -> str:
    return "" if price is None else repr(price)


def _age(age_s: float) -> str:
    if age_s < 1:
        return f"{max(age_s, 0) * 1000:.0f} ms"
    return f"{age_s:.1f} s" if age_s < 60 else f"{age_s / 60:.0f} min"


class Watch:
    """One run of the command."""

    def __init__(self, url: str, symbols: list[str], tier: str | None, token: str | None) -> None:
        self._url = url
        self._token = token
        self._request: dict[str, Any] = {"action": "subscribe", "quotes": symbols, "trades": symbols}
        if tier is not None:
            self._request["tier"] = tier
        self._board = Board()
        self._console = Console()
        self._connected_once = False

    async def run(self) -> int:
        """Watch until interrupted; return the exit status."""
        if not self._console.is_terminal:
            return await self._follow()
        status = 0
        async with trio.open_nursery() as nursery:
            with Live(console=self._console, screen=False, auto_refresh=False, transient=False) as live:
                nursery.start_soon(self._redraw, live)
                status = await self._follow()
                nursery.cancel_scope.cancel()
        return status

    async def _redraw(self, live: Live) -> None:
        while True:
            rows = max(self._console.height - 6, 5)
            live.update(table_of(self._board, self._url, time.time(), rows), refresh=True)
            await trio.sleep(REDRAW_S)

    async def _follow(self) -> int:
        """Connect, and again after an end that permits it; return the exit status."""
        delay_s = FIRST_RETRY_S
        while True:
            try:
                async with trio_websocket.open_websocket_url(self._url, max_message_size=64 << 20) as ws:
                    self._connected_once, delay_s = True, FIRST_RETRY_S
                    if self._token:
                        await ws.send_message(orjson.dumps({"action": "auth", "token": self._token}).decode())
                    await ws.send_message(orjson.dumps(self._request).decode())
                    if not await self._read(ws):
                        return 1
            except trio_websocket.ConnectionClosed as closed:
                code = closed.reason.code if closed.reason else 1006
                why = (closed.reason.reason if closed.reason else None) or "connection lost"
                if code >= MUST_NOT_RECONNECT:
                    return self._give_up(f"closed {code}: {why}")
                self._board.status = f"closed {code} ({why}), reconnecting"
            except (trio_websocket.HandshakeError, OSError) as error:
                if not self._connected_once:
                    return self._give_up(f"cannot connect to {self._url}: {_plainly(error)}")
                self._board.status = f"{_plainly(error)}, reconnecting"
            await trio.sleep(delay_s)
            delay_s = min(delay_s * 2, MAX_RETRY_S)

    async def _read(self, ws: trio_websocket.WebSocketConnection) -> bool:
        """Show what comes; False if the engine refused the subscription."""
        plain = not self._console.is_terminal
        while True:
            messages = orjson.loads(await ws.get_message())
            now_s = time.time()
            for message in messages:
                if message["T"] == "error":
                    self._give_up(f"error {message['code']}: {message['msg']}")
                    return False
                self._board.fold(message, now_s)
                line = line_of(message) if plain else None
                if line is not None:
                    print(line)
            if plain:
                sys.stdout.flush()

    def _give_up(self, why: str) -> int:
        print(f"marketfeed watch: {why}", file=sys.stderr)
        return 1


def _plainly(error: BaseException) -> str:
    if isinstance(error, trio_websocket.ConnectionRejected):
        return f"refused with HTTP status {error.status_code}"
    cause = error.__cause__ or error
    return str(cause) or type(error).__name__
