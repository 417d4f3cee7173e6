"""State of ``marketfeed watch``: messages folded into rows, which screen.py draws; ticks as lines. Pure."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from marketfeed.client import messages
from marketfeed.client.unknown_symbols import unmatched
from marketfeed.core.counts import amount

if TYPE_CHECKING:
    from marketfeed.client.messages import Message, Quote, Trade

    Tick = Quote | Trade

RATE_WINDOW_S: Final = 5
NOTICES: Final = 3
MOST_DECIMALS: Final = 9  # prices are whole multiples of 1e-9


class Rate:
    """Ticks per second over the last RATE_WINDOW_S, from one count per second: memory is constant."""

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

    def copy(self) -> Rate:
        """Return a copy that later ticks do not change."""
        other = Rate()
        other._first_s = self._first_s
        other._counts.extend([second, count] for second, count in self._counts)
        return other

    def per_s(self, now_s: float) -> float:
        """Return the rate, averaged over at least one second, so that the first ticks do not inflate it."""
        if self._first_s is None:
            return 0.0
        from_s = int(now_s) - RATE_WINDOW_S
        ticks = sum(count for second, count in self._counts if second >= from_s)
        return ticks / max(now_s - max(from_s, self._first_s), 1.0)


@dataclass(slots=True)
class BoardRow:
    """Latest quote and trade of one symbol. Prices are None while that side, or a trade, is missing.

    ``decimals`` and ``size_decimals`` are the most decimals of any price and size so far.
    """

    bid: float | None = None
    ask: float | None = None
    bid_size: float = 0.0
    ask_size: float = 0.0
    last: float | None = None
    last_size: float = 0.0
    side: str = "-"
    direction: int = 0  # of the last change of the mid price: 1, -1, or 0 before the first
    received_s: float = 0.0
    decimals: int = 0
    size_decimals: int = 0
    first_mid: float | None = None  # the first mid price that was shown
    rate: Rate = field(default_factory=Rate)

    @property
    def mid(self) -> float | None:
        """The mid price, None while a side is missing."""
        return None if self.bid is None or self.ask is None else (self.bid + self.ask) / 2

    @property
    def move(self) -> float | None:
        """The change of the mid price since the first one, in percent."""
        mid, first = self.mid, self.first_mid
        return None if mid is None or not first else (mid - first) / abs(first) * 100

    @property
    def spread_bps(self) -> float | None:
        """The spread, in 1/10,000 of the mid price."""
        mid = self.mid
        if self.bid is None or self.ask is None or not mid:
            return None
        return (self.ask - self.bid) / abs(mid) * 1e4

    def copy(self) -> BoardRow:
        """Return a copy that later ticks do not change."""
        return replace(self, rate=self.rate.copy())


class Board:
    """State of the table, updated by messages in order."""

    def __init__(self) -> None:
        self.rows: dict[str, BoardRow] = {}
        self._names: list[str] = []
        self.unknown: dict[str, str] = {}  # names that match no symbol, and the message for each
        self.tier = "?"
        self.status = "connecting"
        self.notices: deque[str] = deque(maxlen=NOTICES)
        self.rate = Rate()

    def copy(self) -> Board:
        """Return a board with the same rows, which later messages do not change."""
        other = Board()
        other.rows = {name: row.copy() for name, row in self.rows.items()}
        return other

    def names(self) -> list[str]:
        """Return the symbols in order of their names."""
        if len(self._names) != len(self.rows):
            self._names = sorted(self.rows)
        return self._names

    def fold(self, message: Message, now_s: float) -> None:
        """Apply one message of the stream, which arrived at ``now_s`` (Unix time)."""
        match message:
            case messages.Quote():
                self._quote(self._row(message, now_s), message)
            case messages.Trade():
                row = self._row(message, now_s)
                row.last, row.last_size, row.side = message.p, message.s, message.d
                _widen(row, (row.last,), (row.last_size,))
            case messages.Subscription():
                self.tier, self.status = message.tier, "live"
            case _:
                notice = notice_of(message)
                if notice is not None:
                    self.notices.append(notice)

    def _row(self, tick: Tick, now_s: float) -> BoardRow:
        row = self.rows.get(tick.S)
        if row is None:
            row = self.rows[tick.S] = BoardRow()
            self._meet(tick.S)
        row.received_s = tick.r / 1e6
        if tick.snap != 1:
            row.rate.add(now_s)
            self.rate.add(now_s)
        return row

    def _meet(self, symbol: str) -> None:
        """Drop the messages about unknown names that ``symbol`` matches."""
        for name in [name for name in self.unknown if not unmatched([name], [symbol])]:
            del self.unknown[name]

    @staticmethod
    def _quote(row: BoardRow, quote: Quote) -> None:
        # A missing side has size 0; its price is null, or 0.0 from engines before 0.1.
        bid = quote.bp if quote.bs else None
        ask = quote.ap if quote.as_ else None
        before = row.mid
        row.bid, row.ask, row.bid_size, row.ask_size = bid, ask, quote.bs, quote.as_
        if row.mid is not None and before is not None:
            row.direction = (row.mid > before) - (row.mid < before) or row.direction
        if row.first_mid is None:
            row.first_mid = row.mid
        _widen(row, (bid, ask), (row.bid_size, row.ask_size))


def _widen(row: BoardRow, prices: tuple[float | None, ...], sizes: tuple[float, ...]) -> None:
    """Raise the row's numbers of decimals to what these prices and sizes need."""
    for price in prices:
        if price is not None and (needed := decimals_of(price)) > row.decimals:
            row.decimals = needed
    for size in sizes:
        if (needed := decimals_of(size)) > row.size_decimals:
            row.size_decimals = needed


def decimals_of(number: float) -> int:
    """Return how many decimals ``number`` needs, at most MOST_DECIMALS."""
    if number == int(number):
        return 0
    text = format(Decimal(repr(number)), "f")
    return min(len(text) - text.index(".") - 1, MOST_DECIMALS)


def notice_of(message: Message) -> str | None:
    """Return the notice for a message that users should see; None for ticks and routine messages."""
    match message:
        case messages.Gap(lost=lost):
            was = "was" if lost == 1 else "were"
            return f"{message.S}: {amount(lost, message.channel)} {was} lost, next is n={message.n}"
        case messages.Lag(on=True):
            return "this connection fell behind: only the latest quote of each symbol until it catches up"
        case messages.Lag(conflated=int(conflated)):
            was = "was" if conflated == 1 else "were"
            return f"caught up: {amount(conflated, 'older quotes')} {was} left out"
        case messages.Reset(cause="epoch"):
            return "the engine was restarted: what came in between is missing"
        case messages.Reset(cause="overwritten", symbols=symbols):
            return f"ticks of {amount(len(symbols), 'symbols')} are missing since the connection was lost"
        case messages.Error() | messages.Closing():
            kind = "error" if isinstance(message, messages.Error) else "closing"
            return f"{kind} {message.code}: {message.msg}"
    return None


def line_of(message: Message) -> str | None:
    """Return a tick as one line of text, None for any other message."""
    match message:
        case messages.Quote():
            bid = f"{_size(message.bs)} x {_price(message.bp)}" if message.bs else "-"
            ask = f"{_price(message.ap)} x {_size(message.as_)}" if message.as_ else "-"
            text = f"quote {message.S} {bid}  {ask}"
        case messages.Trade():
            text = f"trade {message.S} {_size(message.s)} @ {_price(message.p)} {message.d}"
        case _:
            return None
    stamp = time.strftime("%H:%M:%S", time.gmtime(message.r // 1_000_000))
    return f"{stamp}.{message.r % 1_000_000:06d} {text} n={message.n}"


def _price(price: float | None) -> str:
    """Return all digits, without an exponent."""
    return format(Decimal(repr(price)), "f")


def _size(size: float) -> str:
    """Return all digits, and no decimal point for whole numbers."""
    return format(Decimal(repr(size)), "f").removesuffix(".0")
