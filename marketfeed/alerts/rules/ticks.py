"""Quotes and trades of one batch as columns, computed once and shared by all rules.

Rules measure time by arrival: ``at_ns`` of a tick is the highest ``ts_recv`` up to it, so that it never goes
back. Ticks that tell what was and not what happens (flags snapshot and stale source, cancels and
corrections) are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from marketfeed.core.records import FLAG_SNAPSHOT, FLAG_STALE, KIND_TRADE, Records, stamps_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Cause = tuple[int, int, int, int]  # g, ts_event, ts_recv and the venue's id (0 = none) of a tick

_PAST: Final = FLAG_SNAPSHOT | FLAG_STALE
_WIDE: Final = 1 << 62  # sums and differences of prices below it fit int64: ±4.6e9 of the currency


class once(Generic[T]):  # noqa: N801 - a decorator
    """functools.cached_property without the lock of Python 3.11, which takes as long as a column."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute, self._name = compute, compute.__name__
        self.__doc__ = compute.__doc__

    def __get__(self, owner: Any, kind: type) -> T:
        # Later look-ups find the value in the object itself and do not come here.
        value = owner.__dict__[self._name] = self._compute(owner)
        return value


class Side:
    """Ticks of one channel, in order of ``g``."""

    def __init__(self, records: Records, symbols: Ints, at_ns: Ints) -> None:
        self.records = records  # (k,) QUOTE or TRADE
        self.symbols = symbols  # (k,)
        self.at_ns = at_ns  # (k,) time of arrival, never decreasing

    def __len__(self) -> int:
        return len(self.records)

    def causes(self, indices: Ints) -> list[Cause]:
        """Return the causes of alerts that the ticks at ``indices`` are."""
        records, names = self.records, self.records.dtype.names or ()
        columns = [records[name][indices].tolist() for name in ("g", "ts_event", "ts_recv")]
        ids = records["trade_id"][indices].tolist() if "trade_id" in names else [0] * len(indices)
        return list(zip(*columns, ids, strict=True))

    def part(self, indices: Ints) -> Part:
        """Return the ticks at ``indices``."""
        return Part(self, indices)


class Quotes(Side):
    """Quotes. Prices are integers of 1e-9; a quote with a price beyond ±4.6e9 counts as one without sides."""

    @once
    def bid(self) -> Ints:
        """Bid prices, shape ``(k,)``; 0 where the side is missing."""
        return _column(self.records, "bid_px")

    @once
    def ask(self) -> Ints:
        """Ask prices, shape ``(k,)``; 0 where the side is missing."""
        return _column(self.records, "ask_px")

    @once
    def both(self) -> Mask | None:
        """Mask of the quotes that have both sides; None if all have."""
        mask: Mask = np.minimum(self.records["bid_sz"], self.records["ask_sz"]) > 0
        # The sums are negative where they wrap around: for prices of ±2**62 and beyond.
        mask &= ((self.bid + _WIDE) | (self.ask + _WIDE)) >= 0
        return None if np.count_nonzero(mask) == len(mask) else mask

    @once
    def spread(self) -> Ints:
        """Ask minus bid in 1e-9; meaningless without both sides."""
        return self.ask - self.bid

    @once
    def mid(self) -> Floats:
        """(bid + ask) / 2 in 1e-9; NaN without both sides, and where it is not positive."""
        total = self.bid + self.ask
        mid = total.astype(np.float64)
        mid *= 0.5
        good = total > 0
        if self.both is not None:
            good &= self.both
        self._all_priced = np.count_nonzero(good) == len(good)
        if not self._all_priced:
            mid[~good] = np.nan
        return mid

    @once
    def priced(self) -> tuple[Side | Part, Floats]:
        """The quotes with a mid, and their mids."""
        mid = self.mid
        return (self, mid) if self._all_priced else measured(self, mid)

    @once
    def spread_bps(self) -> Floats:
        """Spread / mid × 10,000; NaN where there is no mid."""
        bps: Floats = self.spread / self.mid * 1e4
        return bps


class Trades(Side):
    """Trades. Prices are integers of 1e-9."""

    @once
    def price(self) -> Ints:
        """Prices, shape ``(k,)``."""
        return _column(self.records, "price")

    @once
    def positive(self) -> Floats:
        """Prices in 1e-9 as floats; NaN where they are not positive."""
        price = self.price.astype(np.float64)
        bad = price <= 0
        if np.count_nonzero(bad):
            price[bad] = np.nan
        return price

    @once
    def priced(self) -> tuple[Side | Part, Floats]:
        """The trades with a positive price, and these prices in 1e-9 as floats."""
        return measured(self, self.positive)

    @once
    def size(self) -> Floats:
        """Sizes, shape ``(k,)``."""
        return np.ascontiguousarray(self.records["size"])


class Ticks:
    """One batch: ``quotes``, ``trades``, and the columns of both in order of ``g``."""

    def __init__(self, quotes: Records, trades: Records, clock_ns: int) -> None:
        """Take QUOTE and TRADE records, each in order of ``g``; ``clock_ns`` is the time before them."""
        quotes, trades = _live(quotes), _live(trades)
        if len(trades):
            cancels = trades["kind"] != KIND_TRADE
            trades = trades[~cancels] if np.count_nonzero(cancels) else trades
        count = len(quotes) + len(trades)
        self._trade_places = stamps_of(quotes).searchsorted(stamps_of(trades)) + np.arange(len(trades))
        self._is_quote = np.ones(count, bool)
        self._is_quote[self._trade_places] = False
        self._quote_places = self._is_quote.nonzero()[0]
        at_ns = self._merged(quotes["ts_recv"], trades["ts_recv"])
        # The check takes a seventh of what is hardly ever needed.
        if np.count_nonzero(at_ns[1:] < at_ns[:-1]):
            np.maximum.accumulate(at_ns, out=at_ns)
        if count and at_ns[0] < clock_ns:
            np.maximum(at_ns, clock_ns, out=at_ns)
        self.at_ns = at_ns  # (k,)
        q = quotes["symbol"].astype(np.int64)
        t = trades["symbol"].astype(np.int64)
        self.quotes = Quotes(quotes, q, at_ns[self._quote_places])
        self.trades = Trades(trades, t, at_ns[self._trade_places])
        self.symbols = self._merged(q, t)  # (k,)
        self.clock_ns = int(at_ns[-1]) if count else clock_ns

    def __len__(self) -> int:
        return len(self.at_ns)

    @once
    def feeds(self) -> Ints:
        """Number of the feed of each tick, shape ``(k,)``."""
        return self._merged(self.quotes.records["feed"], self.trades.records["feed"])

    @once
    def quote_before(self) -> Ints:
        """Index of the last quote of the symbol before each trade, shape ``(t,)``; -1: none in this batch."""
        order = self.quotes.records["symbol"].argsort(kind="stable")  # of 16 bits: by radix
        keys = (self.quotes.symbols << 40 | self._quote_places)[order]
        before = keys.searchsorted(self.trades.symbols << 40 | self._trade_places) - 1
        found = before >= 0
        found[found] = keys[before[found]] >> 40 == self.trades.symbols[found]
        indices = np.full(len(before), -1)
        indices[found] = order[before[found]]
        return indices

    def causes(self, indices: Ints) -> list[Cause]:
        """Return the causes of alerts that the ticks at ``indices`` of both are."""
        of_quotes = self._is_quote[indices]
        quotes = iter(self.quotes.causes(self._quote_places.searchsorted(indices[of_quotes])))
        trades = iter(self.trades.causes(self._trade_places.searchsorted(indices[~of_quotes])))
        return [next(quotes) if of_quote else next(trades) for of_quote in of_quotes.tolist()]

    def _merged(self, quotes: NDArray[Any], trades: NDArray[Any]) -> Ints:
        """Return the columns of both channels as one, in order of ``g``."""
        column = np.empty(len(self._is_quote), np.int64)
        if len(trades):
            column[self._is_quote] = quotes  # for writing, a mask is faster than indices
            column[self._trade_places] = trades
        else:
            column[:] = quotes
        return column


class Part:
    """Some ticks of a side: those at ``indices``, in order."""

    def __init__(self, side: Side, indices: Ints) -> None:
        self._side, self._indices = side, indices
        self.symbols = side.symbols[indices]
        self.at_ns = side.at_ns[indices]

    def causes(self, indices: Ints) -> list[Cause]:
        """Return the causes of alerts that the ticks at ``indices`` of the part are."""
        return self._side.causes(self._indices[indices])

    def part(self, indices: Ints) -> Part:
        """Return the ticks at ``indices`` of this part."""
        return Part(self._side, self._indices[indices])


def measured(side: Side, values: Floats) -> tuple[Side | Part, Floats]:
    """Return the ticks of ``side`` whose value, of shape ``(k,)``, is not NaN, and these values."""
    good = values == values
    if np.count_nonzero(good) == len(good):
        return side, values
    indices = np.flatnonzero(good)
    return Part(side, indices), values[indices]


def cut(side: Side | Part, stretch: slice) -> Side | Part:
    """Return the ``stretch`` of the ticks, ``side`` itself if that is all of them."""
    if stretch == slice(0, len(side.at_ns)):
        return side
    return side.part(np.arange(stretch.start, stretch.stop))


def spans(at_ns: Ints, length_ns: int) -> Iterator[tuple[int, slice]]:
    """Cut ``at_ns`` at multiples of ``length_ns``; yield each part's number since 1970 and its indices.

    A tick at a multiple belongs to the part that begins there.
    """
    start = 0
    while start < len(at_ns):
        number = int(at_ns[start]) // length_ns
        end = len(at_ns)
        if int(at_ns[-1]) // length_ns != number:
            end = int(at_ns.searchsorted((number + 1) * length_ns))
        yield number, slice(start, end)
        start = end


def priced(ticks: Ticks, of: str) -> tuple[Side | Part, Floats]:
    """Return the ticks that have a positive price, and these prices in 1e-9.

    ``of`` is ``"mid"``: mids of quotes, or ``"trade"``: prices of trades.
    """
    return ticks.quotes.priced if of == "mid" else ticks.trades.priced


def _column(records: Records, name: str) -> Ints:
    """Return a contiguous copy of a column."""
    column: Ints = records[name].copy()
    return column


def _live(records: Records) -> Records:
    if not np.count_nonzero(records["flags"]):
        return records
    past = (records["flags"] & _PAST) != 0
    return records[~past] if np.count_nonzero(past) else records
