"""Received messages as batches: ticks without those that came twice, gaps in their place, and counters.

text, bytes ──► decoded ──► numbers checked ──► Batch        newest tick of each symbol, latencies
└──► messages about the session, to ``control`` (dialogue.py), in order
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from marketfeed.client.batch import Batch
from marketfeed.client.binary import contents_of
from marketfeed.client.continuity import NamedNumbers, RecordNumbers
from marketfeed.client.messages import Gap, Quote, Trade, decode
from marketfeed.client.newest import Newest
from marketfeed.client.statistics import Counters
from marketfeed.core.compressed import inflated, is_compressed
from marketfeed.core.records import FLAG_SNAPSHOT, NO_QUOTES, NO_TRADES, QUOTES, TRADES, Records
from marketfeed.core.units import US
from marketfeed.errors import FeedProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from marketfeed.client.messages import Lag, Subscription


class Now(NamedTuple):
    """A moment: ``s`` by a monotonic clock, ``unix_ns`` by the wall clock."""

    s: float
    unix_ns: int


class Intake:
    """The way of received messages, over all connections of a feed.

    ``control(message, into)`` takes each message that is not a tick, and appends it and what follows from it
    to ``into``. ``advance(g)`` is told how far the ticks have come.

    If a message breaks the protocol after some of its ticks were taken, these are returned all the same,
    since their numbers are not accepted again. ``broken`` is the error then: drop the connection.
    """

    def __init__(self, control: Callable[[Any, list[Any]], None], advance: Callable[[int], None]) -> None:
        self.counters = Counters()
        self.newest = Newest()
        self.tier = ""  # as the engine last told it
        self.tiers: dict[str, str] = {}  # whether they send `every` tick or the `latest`
        self.live = False  # whether ticks come as they arise: their latency counts
        self.broken: FeedProtocolError | None = None
        self._control, self._advance = control, advance
        self._named, self._records = NamedNumbers(), RecordNumbers()
        self._binary = False
        self._whole: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())  # names so far

    # The session.

    def epoch(self) -> None:
        """Begin with an engine of another epoch: numbers and ids start again."""
        self._named, self._records = NamedNumbers(), RecordNumbers()
        self.newest = Newest()

    def cut(self) -> None:
        """The connection is lost."""
        self.live = False
        for numbers in (self._named, self._records):
            numbers.cut()

    def resume_elsewhere(self) -> None:
        """Take the first tick of a symbol with any number: the cursor is another client's."""
        self._named.lenient, self._records.lenient = [True, True], [True, True]

    def subscribed(self, answer: Subscription, *, complete: bool) -> None:
        """Take the subscription, and whether its tier sends every tick.

        ``complete``: all requests are answered, so symbols that it does not match are not subscribed.
        """
        self.tier = answer.tier
        self._binary = answer.encoding == "binary"
        for numbers in (self._named, self._records):
            numbers.every = self.tiers.get(answer.tier) == "every"
        if complete:
            self.left(answer.quotes, answer.trades)
        else:
            self._whole = (self._whole[0].union(answer.quotes), self._whole[1].union(answer.trades))

    def left(self, quotes: Iterable[str], trades: Iterable[str]) -> None:
        """Take the whole subscription: symbols that it does not match begin anew when they come again."""
        whole = (frozenset(quotes), frozenset(trades))
        for channel, names, before in zip((QUOTES, TRADES), whole, self._whole, strict=True):
            if not before <= names:
                self._named.retain(channel, names)
                self._records.retain(channel, names)
        self._whole = whole

    def excuse(self, symbols: Iterable[str]) -> None:
        """Take a reset of ``symbols``, which may be patterns."""
        names = list(symbols)
        self.counters.resets += 1
        for numbers in (self._named, self._records):
            numbers.excuse(names)

    def lag(self, lag: Lag) -> None:
        """Take the beginning or the end of lag."""
        self._named.lagging = self._records.lagging = lag.on
        self.counters.lags += lag.on
        self.counters.conflated += lag.conflated or 0

    def gap(self, gap: Gap, into: list[Any]) -> None:
        """Take a gap that the engine announced."""
        told = (self._records if self._binary else self._named).gap(gap)
        for one in told:
            if one.announced:
                self.counters.gaps += 1
                self.counters.lost += one.lost
        into.extend(told)

    # Messages.

    def text(self, data: str, now: Now) -> Batch:
        """Take a text message. Raises FeedProtocolError if nothing of it can be taken."""
        try:
            messages, unknown = decode(data)
        except (msgspec.DecodeError, RecursionError) as error:
            raise FeedProtocolError(f"a message is not a JSON array: {error}") from None
        self.counters.messages += 1
        self.counters.unknown += unknown
        into: list[Any] = []
        self._take(messages, into, now)
        return Batch(into, now.unix_ns, data)

    def _take(self, messages: Iterable[Any], into: list[Any], now: Now) -> None:
        take, quotes, trades = self._named.take, self.newest.quotes, self.newest.trades
        g = count = snaps = 0
        received_us: list[int] = []
        try:
            for message in messages:
                kind = type(message)
                if kind is Quote or kind is Trade:
                    if not take(message, into):
                        continue
                    (quotes if kind is Quote else trades)[message.S] = message
                    count += kind is Quote
                    if message.snap == 1:
                        snaps += 1
                        continue
                    received_us.append(message.r)
                    if message.g > g:
                        g = message.g
                else:
                    if g:
                        self._advance(g)
                    self._control(message, into)
                    take = self._named.take  # of another epoch, perhaps
                    quotes, trades = self.newest.quotes, self.newest.trades
        except FeedProtocolError as error:
            self.broken = error
        if g:
            self._advance(g)
        self._count(received_us, count, snaps, now)

    def _count(self, received_us: Sequence[int], count: int, snaps: int, now: Now) -> None:
        """Count ``snaps`` of snapshots and live ticks, of which together ``count`` are quotes."""
        counters = self.counters
        ticks = len(received_us) + snaps
        counters.quotes += count
        counters.trades += ticks - count
        counters.snapshots += snaps
        if self.live and received_us:
            counters.arrived(np.array(received_us, np.int64) * US, now.unix_ns)
        self._count_numbers()

    def binary(self, data: bytes, now: Now) -> Batch:
        """Take a binary message. Raises FeedProtocolError if nothing of it can be taken."""
        if is_compressed(data):
            return self.text(inflated(data), now)
        contents = contents_of(data)
        counters = self.counters
        counters.messages += 1
        counters.unknown += contents.unknown
        into: list[Any] = []
        if contents.messages:
            self._take(contents.messages, into, now)
        quotes, trades = NO_QUOTES, NO_TRADES
        if self.broken is None:
            try:
                if contents.symbols:
                    self._records.announce(contents.symbols)
                quotes, quotes_g = self._ticks(QUOTES, contents.quotes, into, now)
                trades, trades_g = self._ticks(TRADES, contents.trades, into, now)
                if g := max(quotes_g, trades_g):
                    self._advance(g)
            except FeedProtocolError as error:
                self.broken = error
        counters.quotes += len(quotes)
        counters.trades += len(trades)
        self._count_numbers()
        names, sent_ns = self._records.names, contents.sent_ns
        return Batch(into, now.unix_ns, data, quotes, trades, names, sent_ns, contents.symbols)

    def _ticks(self, channel: int, records: Records, into: list[Any], now: Now) -> tuple[Records, int]:
        """Return the records to keep, and the highest ``g`` that is not of a snapshot, 0 without any."""
        if not len(records):
            return records, 0
        kept = self._records.take(channel, records, into)
        self.newest.take(channel, kept, self._records)
        fresh, snaps = kept, kept["flags"] & FLAG_SNAPSHOT
        if snaps.any():
            fresh = kept[snaps == 0]
            self.counters.snapshots += len(kept) - len(fresh)
        if not len(fresh):
            return kept, 0
        if self.live:
            self.counters.arrived(fresh["ts_recv"], now.unix_ns)
        return kept, int(fresh["g"][-1])  # they are in order of g

    def _count_numbers(self) -> None:
        named, records = self._named, self._records
        if named.duplicates or records.duplicates or named.holes or records.holes:
            for numbers in (named, records):
                self.counters.duplicates += numbers.duplicates
                self.counters.silently_lost += numbers.lost
                self.counters.gaps += numbers.holes
                numbers.duplicates = numbers.lost = numbers.holes = 0
