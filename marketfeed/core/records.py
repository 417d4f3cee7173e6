"""Quotes and trades as 64-byte records, and batches of them.

The layout is public: it is the format of binary frames, of recordings and of the shared rings.
``tests/core/test_records.py`` pins every offset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Records = NDArray[np.void]

QUOTE: Final = np.dtype(
    [
        ("ts_event", "<i8"),  # venue's time, ns since the Unix epoch; 0 = not sent
        ("ts_recv", "<i8"),  # our arrival time, same clock; 0 = the engine fills it in
        ("g", "<u8"),  # position among all ticks of this epoch; the rings' writer sets it
        ("bid_px", "<i8"),  # 1e-9 of the quote currency, of any sign; 0 where the side is missing
        ("ask_px", "<i8"),
        ("bid_sz", "<f8"),  # 0 = this side is missing, the only sign of it
        ("ask_sz", "<f8"),
        ("n", "<u4"),  # position in the symbol's ring, modulo 2**32; the rings' writer sets it
        ("symbol", "<u2"),  # id in the symbol table
        ("feed", "u1"),  # id of the feed it came from
        ("flags", "u1"),  # FLAG_* below
    ]
)

TRADE: Final = np.dtype(
    [
        ("ts_event", "<i8"),
        ("ts_recv", "<i8"),
        ("g", "<u8"),
        ("price", "<i8"),  # 1e-9 of the quote currency, of any sign
        ("trade_id", "<u8"),  # the venue's; 0 = not sent
        ("size", "<f8"),
        ("side", "u1"),  # aggressor: ord("b"), ord("s") or ord("-")
        ("kind", "u1"),  # KIND_* below
        ("cond", "S4"),  # up to four conditions, one letter of the venue each; 0 = none
        ("unused", "V2"),  # 0
        ("n", "<u4"),
        ("symbol", "<u2"),
        ("feed", "u1"),
        ("flags", "u1"),
    ]
)

assert QUOTE.itemsize == TRADE.itemsize == 64  # one cache line

RECORD: Final = np.dtype("V64")  # either kind, for copies

QUOTES: Final = 0  # channel numbers: indices into everything kept per channel
TRADES: Final = 1
CHANNELS: Final = ("quotes", "trades")
DTYPES: Final = (QUOTE, TRADE)

FLAG_SNAPSHOT: Final = 1
FLAG_STALE: Final = 2
FLAG_CROSSED: Final = 4  # bid at or above ask, both sides present
FLAG_TIME_BACK: Final = 8  # venue time went back within this symbol

BUY: Final = ord("b")
SELL: Final = ord("s")
UNKNOWN_SIDE: Final = ord("-")
SIDES: Final = (BUY, SELL, UNKNOWN_SIDE)

KIND_TRADE: Final = 0
KIND_CANCEL: Final = 1  # cancels an earlier trade
KIND_CORRECTION: Final = 2  # replaces an earlier trade

NO_QUOTES: Final[Records] = np.empty(0, QUOTE)
NO_TRADES: Final[Records] = np.empty(0, TRADE)


def stamps_of(records: Records) -> NDArray[np.uint64]:
    """Return the ``g`` column of QUOTE or TRADE records, shape ``(k,)``, a view."""
    column: NDArray[Any] = records["g"]
    return column


@dataclass(frozen=True, slots=True)
class Batch:
    """Ticks that a feed publishes in one call; the engine owns the arrays afterwards.

    ``quotes`` has shape ``(q,)`` and dtype QUOTE, ``trades`` ``(t,)`` and TRADE;
    each is in order of arrival. ``channels``, shape ``(q + t,)`` and dtype u1,
    is the channel of each tick in order (QUOTES or TRADES);
    None means all quotes, then all trades.

    The feed sets ``ts_event``, prices, sizes, ``side``, ``trade_id``, ``symbol``, ``cond`` if its source has
    conditions, and ``ts_recv`` if its source has a time of receipt. The engine sets ``g``, ``n``, ``feed``
    and ``flags``. ``kind`` must be 0: the engine drops other trades.
    """

    quotes: Records = field(default_factory=lambda: NO_QUOTES)
    trades: Records = field(default_factory=lambda: NO_TRADES)
    channels: NDArray[np.uint8] | None = None
    # Of cut(): the number of trades before each tick.
    _trades_before: memoryview | None = field(default=None, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.quotes) + len(self.trades)

    def cut(self, start: int, end: int) -> Batch:
        """Return ticks ``start`` to ``end`` of the whole sequence, as views; needs ``channels``."""
        if self.channels is None:
            raise ValueError("a batch without channels cannot be cut")
        if self._trades_before is None:
            # TRADES is 1 and QUOTES is 0, so sums are numbers of trades.
            sums = np.zeros(len(self) + 1, np.int64)
            np.cumsum(self.channels, out=sums[1:])
            object.__setattr__(self, "_trades_before", sums.data)
        assert self._trades_before is not None
        before, upto = self._trades_before[start], self._trades_before[end]
        # Without the checks of __post_init__, which cost as much as all else of a short piece.
        piece = object.__new__(Batch)
        for name, part in (
            ("quotes", self.quotes[start - before : end - upto]),
            ("trades", self.trades[before:upto]),
            ("channels", self.channels[start:end]),
            ("_trades_before", None),
        ):
            object.__setattr__(piece, name, part)
        return piece

    def only(self, quotes: NDArray[np.bool_], trades: NDArray[np.bool_]) -> Batch:
        """Return the ticks for which the masks, of shapes ``(q,)`` and ``(t,)``, are true; copies."""
        channels = self.channels
        if channels is not None:
            keep = np.empty(len(channels), bool)
            keep[channels == QUOTES] = quotes
            keep[channels == TRADES] = trades
            channels = channels[keep]
        return Batch(self.quotes[quotes], self.trades[trades], channels)

    def __post_init__(self) -> None:
        """Raise ValueError for arrays that do not match."""
        if self.quotes.dtype != QUOTE or self.trades.dtype != TRADE:
            raise ValueError(
                f"a batch holds QUOTE and TRADE records, not {self.quotes.dtype} and {self.trades.dtype}"
            )
        if self.channels is not None:
            counts = [int(np.count_nonzero(self.channels == channel)) for channel in (QUOTES, TRADES)]
            if len(self.channels) != len(self) or counts != [len(self.quotes), len(self.trades)]:
                raise ValueError("channels does not match the ticks of the batch")
