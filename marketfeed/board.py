"""What ``marketfeed watch`` shows: messages folded into rows, rows drawn as a table or as lines. Pure."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

RATE_WINDOW_S: Final = 5
NOTICES: Final = 3
COLUMNS: Final = ("symbol", "bid size", "bid", "ask", "ask size", "last", "size", "rate/s", "age")
Message = dict[str, Any]


class Rate:
    """Ticks a second over the last RATE_WINDOW_S; a count for each second, whatever the rate."""

    __slots__ = ("_counts", "_first_s")

    def __init__(self) -> None:
        self._counts: deque[list[int]] = deque(maxlen=RATE_WINDOW_S + 1)  # [second, ticks]
        self._first_s: float | None = None

    def add(self, now_s: float) -> None:
        """Count one tick."""
        if self._first_s is None:
            self._first_s = now_s
        if self._counts and self._counts[-1][0] == int(now_s):
            self._counts[-1][1] += 1
        else:
            self._counts.append([int(now_s), 1])

    def per_s(self, now_s: float) -> float:
        """Return the rate; over at least one second, so that a first tick is not a flood."""
        if self._first_s is None:
            return 0.0
        from_s = int(now_s) - RATE_WINDOW_S
        ticks = sum(count for second, count in self._counts if second >= from_s)
        return ticks / max(now_s - max(from_s, self._first_s), 1.0)


@dataclass(slots=True)
class Row:
    """What is known of one symbol. Prices are None while that side, or a trade, is missing."""

    bid: float | None = None
    ask: float | None = None
    bid_size: float = 0.0
    ask_size: float = 0.0
    last: float | None = None
    last_size: float = 0.0
    side: str = "-"
    direction: int = 0  # of the last change of the middle: 1, -1, or 0 before the first
    received_s: float = 0.0
    rate: Rate = field(default_factory=Rate)


class Board:
    """The table's state: messages folded in, in order."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.tier = "?"
        self.status = "connecting"
        self.notices: deque[str] = deque(maxlen=NOTICES)
        self.rate = Rate()

    def fold(self, message: Message, now_s: float) -> None:
        """Take in one message of the stream that arrived at ``now_s`` (Unix time)."""
        match message["T"]:
            case "q":
                self._quote(self._row(message, now_s), message)
            case "t":
                row = self._row(message, now_s)
                row.last, row.last_size, row.side = message["p"], message["s"], message["d"]
            case "subscription":
                self.tier, self.status = message["tier"], "live"
            case _:
                notice = notice_of(message)
                if notice is not None:
                    self.notices.append(notice)

    def _row(self, message: Message, now_s: float) -> Row:
        row = self.rows.setdefault(message["S"], Row())
        row.received_s = message["r"] / 1e6
        if "snap" not in message:
            row.rate.add(now_s)
            self.rate.add(now_s)
        return row

    @staticmethod
    def _quote(row: Row, message: Message) -> None:
        bid = message["bp"] if message["bs"] else None
        ask = message["ap"] if message["as"] else None
        if None not in (bid, ask, row.bid, row.ask):
            change = (bid + ask) - (row.bid + row.ask)  # type: ignore[operator]
            row.direction = (change > 0) - (change < 0) or row.direction
        row.bid, row.ask, row.bid_size, row.ask_size = bid, ask, message["bs"], message["as"]


def notice_of(message: Message) -> str | None:
    """Return what a person should be told of a message that is no tick, None for everyday ones."""
    match message:
        case {"T": "gap"}:
            return (
                f"{message['S']}: {message['lost']} {message['channel']} were lost, next is n={message['n']}"
            )
        case {"T": "lag", "on": True}:
            return "this connection fell behind: only the latest quote of each symbol for now"
        case {"T": "lag"}:
            return f"caught up: {message['conflated']} older quotes were left out"
        case {"T": "error" | "closing"}:
            return f"{message['T']} {message['code']}: {message['msg']}"
    return None


def line_of(message: Message) -> str | None:
    """Return a tick as one plain line, None for any other message."""
    match message["T"]:
        case "q":
            bid = f"{_size(message['bs'])} x {_price(message['bp'])}" if message["bs"] else "-"
            ask = f"{_price(message['ap'])} x {_size(message['as'])}" if message["as"] else "-"
            text = f"quote {message['S']} {bid}  {ask}"
        case "t":
            size, price = _size(message["s"]), _price(message["p"])
            text = f"trade {message['S']} {size} @ {price} {message['d']}"
        case _:
            return None
    stamp = time.strftime("%H:%M:%S", time.gmtime(message["r"] // 1_000_000))
    return f"{stamp}.{message['r'] % 1_000_000:06d} {text} n={message['n']}"


def table_of(board: Board, url: str, now_s: float, most_rows: int) -> Group:
    """Return the board as something rich can print, at most ``most_rows`` symbols of it."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in COLUMNS:
        table.add_column(title, justify="left" if title == "symbol" else "right", no_wrap=True)
    names = sorted(board.rows)
    for name in names[:most_rows]:
        table.add_row(*_cells(name, board.rows[name], now_s))
    rate = board.rate.per_s(now_s)
    parts: list[RenderableType] = [
        Text(f"{url}  ·  {board.tier}  ·  {board.status}  ·  {rate:,.0f} ticks/s", style="dim"),
        table,
    ]
    if len(names) > most_rows:
        parts.append(Text(f"… and {len(names) - most_rows} more symbols", style="dim"))
    parts += [Text(notice, style="yellow") for notice in board.notices]
    return Group(*parts)


def _cells(name: str, row: Row, now_s: float) -> list[Text]:
    moved = {1: "green", -1: "red"}.get(row.direction, "")
    hit = {"b": "green", "s": "red"}.get(row.side, "")
    return [
        Text(name, style="bold"),
        Text(_size(row.bid_size) if row.bid is not None else ""),
        Text(_price(row.bid), style=moved),
        Text(_price(row.ask), style=moved),
        Text(_size(row.ask_size) if row.ask is not None else ""),
        Text(_price(row.last), style=hit),
        Text(_size(row.last_size) if row.last is not None else ""),
        Text(f"{row.rate.per_s(now_s):,.1f}"),
        Text(_age(now_s - row.received_s)),
    ]


def _price(price: float | None) -> str:
    """Return all digits, without an exponent however small it is."""
    return "" if price is None else format(Decimal(repr(price)), "f")


def _size(size: float) -> str:
    """Return all digits, and none after the point of a whole number."""
    return format(Decimal(repr(size)), "f").removesuffix(".0")


def _age(age_s: float) -> str:
    if age_s < 1:
        return f"{max(age_s, 0) * 1000:.0f} ms"
    return f"{age_s:.1f} s" if age_s < 60 else f"{age_s / 60:.0f} min"
