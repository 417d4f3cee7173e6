"""Numbers of ticks: drops what comes twice or too late, and finds what is missing.

The ticks of each symbol and channel are numbered 1, 2, 3 … modulo 2^32. A tick continues its symbol if its
number is the next one. A higher number is a hole, unless it was announced:

- a `gap` of the engine says which number is next,
- quotes that are conflated while the session lags, or that were when it was cut,
- the first tick of a symbol after a reset,
- everything on a tier that sends the latest of each symbol.

A number that is not higher comes twice, or late; a hole has been told by then, so the tick is dropped.
:func:`verdict` is this rule for one tick. :class:`NamedNumbers` applies it to messages, and
:class:`RecordNumbers` to arrays, of which those that continue their symbols cost 12 µs and 20 ns a tick. Both
are here because they have to agree, which makes the file longer than 300 lines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from marketfeed.client.messages import Gap, Quote, Trade
from marketfeed.core.records import CHANNELS, FLAG_SNAPSHOT, QUOTES, TRADES, Records
from marketfeed.core.symbol_set import SymbolSet
from marketfeed.core.symbols import MAX_SYMBOLS, is_symbol
from marketfeed.errors import FeedProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_MASK: Final = (1 << 32) - 1
_HALF: Final = 1 << 31
_NEW: Final = -2  # the last number of a symbol without a tick; not one less than a number
_PLACES: Final = np.arange(4096)


class Verdict(NamedTuple):
    """Whether to keep a tick, and how many ticks are missing before it."""

    keep: bool
    lost: int


def verdict(last: int | None, n: int, *, snap: bool, excused: bool, every: bool) -> Verdict:
    """Judge a tick with number ``n`` after ``last``, None if there was none.

    ``excused``: its symbol has been reset, or resumes from a position that this client does not know;
    ``every``: holes count.
    """
    if last is None:
        return Verdict(True, 0 if snap or excused or not every else max(n - 1, 0))
    ahead = (n - last) & _MASK
    if 0 < ahead < _HALF:
        return Verdict(True, 0 if excused or not every else ahead - 1)
    return Verdict(snap and excused and not ahead, 0)


class Numbers(ABC):
    """What both kinds have in common: the state of the session that decides which holes count.

    ``every``: the tier sends every tick, None if unknown. ``lenient``, by channel: the first tick of a
    symbol may have any number, because the session resumed from a cursor of another client, or left out ticks
    before it was cut.
    """

    def __init__(self) -> None:
        self.every: bool | None = None  # None: not told yet
        self.lagging = False
        self.lenient = [False, False]
        self.duplicates = 0  # ticks that were dropped
        self.lost = 0  # ticks in holes that nobody announced
        self.holes = 0  # gaps that the client has told

    def counts(self, channel: int) -> bool:
        """Return whether holes of ``channel`` count now."""
        return self.every is True and not (self.lagging and channel == QUOTES)

    def hole(self, name: str, channel: int, lost: int, n: int, snap: bool = False) -> Gap:
        """Count a hole, and return the message about it. With a snapshot the engine begins a symbol anew."""
        self.lost += 0 if snap else lost
        self.holes += 1
        return Gap(S=name, channel=CHANNELS[channel], lost=lost, n=n, announced=snap)

    def new_in(self, gap: Gap, last: int | None, *, excused: bool) -> list[Gap]:
        """Return what ``gap`` tells of its symbol after the tick ``last``: after a cut it may come again.

        What is missing and not in it is a hole of its own.
        """
        channel = CHANNELS.index(gap.channel)
        counts = last is not None and not excused and self.counts(channel)
        keep, lost = verdict(last, gap.n, snap=False, excused=False, every=counts)
        if not keep or (counts and not lost):
            return []
        if not counts or lost == gap.lost:
            return [gap]
        told = [msgspec.structs.replace(gap, lost=min(gap.lost, lost))]
        if lost > gap.lost:
            told.append(self.hole(gap.S, channel, lost - gap.lost, gap.n))
        return told

    def cut(self) -> None:
        """The connection is lost: what the session left out before is not sent again."""
        for channel in (QUOTES, TRADES):
            if self.every is not None and not self.counts(channel):
                self.lenient[channel] = True
                self.excuse(("*",), (channel,))
        self.lagging = False

    @abstractmethod
    def excuse(self, names: Iterable[str], channels: tuple[int, ...] = (QUOTES, TRADES)) -> None:
        """Let the next tick of each symbol that ``names`` match have any number."""


class NamedNumbers(Numbers):
    """Numbers of ticks by the names of symbols, for messages."""

    def __init__(self) -> None:
        super().__init__()
        self._last: tuple[dict[str, int], dict[str, int]] = ({}, {})
        self._excused: tuple[set[str], set[str]] = (set(), set())

    def retain(self, channel: int, names: Iterable[str]) -> None:
        """Forget the symbols that ``names``, the whole subscription, do not match."""
        kept, last = SymbolSet(names), self._last[channel]
        for name in [name for name in last if name not in kept]:
            del last[name]
            self._excused[channel].discard(name)

    def excuse(self, names: Iterable[str], channels: tuple[int, ...] = (QUOTES, TRADES)) -> None:
        """Let the next tick of each symbol that ``names`` match have any number."""
        symbols = SymbolSet(names)
        for channel in channels:
            self._excused[channel].update(name for name in self._last[channel] if name in symbols)

    def gap(self, gap: Gap) -> list[Gap]:
        """Take a gap that the engine announced; return what it tells that is new."""
        channel, name = CHANNELS.index(gap.channel), gap.S
        last = self._last[channel].get(name)
        told = self.new_in(gap, last, excused=name in self._excused[channel])
        if told:
            self._last[channel][name] = (gap.n - 1) & _MASK
            self._excused[channel].discard(name)
        return told

    def take(self, tick: Quote | Trade, into: list[Any]) -> bool:
        """Append ``tick`` to ``into``, after a gap if there is a hole; return whether it was kept."""
        channel = QUOTES if type(tick) is Quote else TRADES
        last, name, n = self._last[channel], tick.S, tick.n
        before = last.get(name)
        if before is not None and n == before + 1 and name not in self._excused[channel]:
            last[name] = n
            into.append(tick)
            return True
        return self._judge(tick, channel, before, into)

    def _judge(self, tick: Quote | Trade, channel: int, before: int | None, into: list[Any]) -> bool:
        name, n = tick.S, tick.n
        if before is None and not is_symbol(name):
            raise FeedProtocolError(f"a tick of an invalid symbol: {name[:40]!r}")
        excused = name in self._excused[channel] or (before is None and self.lenient[channel])
        keep, lost = verdict(before, n, snap=tick.snap == 1, excused=excused, every=self.counts(channel))
        if not keep:
            self.duplicates += 1
            return False
        if lost:
            into.append(self.hole(name, channel, lost, n, tick.snap == 1))
        self._last[channel][name] = n
        self._excused[channel].discard(name)
        into.append(tick)
        return True


class RecordNumbers(Numbers):
    """Numbers of ticks by the ids of symbols, for arrays; ids belong to one epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.names: NDArray[np.object_] = np.full(MAX_SYMBOLS, None, object)  # by id; None: not announced
        self.ids: dict[str, int] = {}
        self._announced = np.zeros(MAX_SYMBOLS, bool)
        self._last = np.full((len(CHANNELS), MAX_SYMBOLS), _NEW, np.int64)
        self._place = np.zeros(MAX_SYMBOLS, np.int64)  # scratch: where in a batch a symbol was seen last
        self._pardons = False  # whether any symbol is excused
        self._excused = np.zeros((len(CHANNELS), MAX_SYMBOLS), bool)
        # Last numbers of symbols without an id, after gaps, and whether they are excused.
        self._early: dict[tuple[int, str], tuple[int, bool]] = {}

    def announce(self, symbols: dict[str, int]) -> None:
        """Take ids by name. Raises FeedProtocolError if an id or a name changes its partner."""
        for name, number in symbols.items():
            if self.ids.setdefault(name, number) != number or self.names[number] not in (None, name):
                raise FeedProtocolError(f"the id of {name} changes to {number}")
            self.names[number] = name
            self._announced[number] = True
            for channel in (QUOTES, TRADES) if self._early else ():
                if early := self._early.pop((channel, name), None):
                    self._last[channel][number], self._excused[channel][number] = early
                    self._pardons = self._pardons or early[1]

    def retain(self, channel: int, names: Iterable[str]) -> None:
        """Forget the symbols that ``names``, the whole subscription, do not match."""
        kept = SymbolSet(names)
        numbers = [number for name, number in self.ids.items() if name not in kept]
        self._last[channel][numbers] = _NEW
        self._excused[channel][numbers] = False
        self._early = {key: last for key, last in self._early.items() if key[0] != channel or key[1] in kept}

    def excuse(self, names: Iterable[str], channels: tuple[int, ...] = (QUOTES, TRADES)) -> None:
        """Let the next tick of each symbol that ``names`` match have any number."""
        symbols = SymbolSet(names)
        numbers = [number for name, number in self.ids.items() if name in symbols]
        for channel in channels:
            self._excused[channel][numbers] = self._last[channel][numbers] != _NEW
        self._pardons = bool(self._excused.any())
        for (channel, name), (last, _) in self._early.items():
            if channel in channels and name in symbols:
                self._early[channel, name] = (last, True)

    def gap(self, gap: Gap) -> list[Gap]:
        """Take a gap that the engine announced; return what it tells that is new."""
        channel, number = CHANNELS.index(gap.channel), self.ids.get(gap.S)
        if number is None:
            early, excused = self._early.get((channel, gap.S), (None, False))
            told = self.new_in(gap, early, excused=excused)
            if told:
                self._early[channel, gap.S] = ((gap.n - 1) & _MASK, False)
            return told
        before = int(self._last[channel][number])
        told = self.new_in(
            gap, None if before == _NEW else before, excused=bool(self._excused[channel][number])
        )
        if told:
            self._last[channel][number] = (gap.n - 1) & _MASK
            self._excused[channel][number] = False
        return told

    def take(self, channel: int, records: Records, into: list[Any]) -> Records:
        """Return the ``records`` to keep, all of them without a copy; append gaps to ``into``.

        Raises FeedProtocolError if an id was not announced.
        """
        last, symbols, ns = self._last[channel], records["symbol"], records["n"]
        place, places = self._place, _PLACES[: len(records)]
        # The common case first: each symbol once, with its next number.
        if len(ns) == len(places) and not self._pardons and (ns - last[symbols] == 1).all():
            place[symbols] = places
            if (place[symbols] == places).all():
                last[symbols] = ns
                return records
        return self._sorted(channel, records, into) if len(records) else records

    def _sorted(self, channel: int, records: Records, into: list[Any]) -> Records:
        """Do what :meth:`take` does, for any records."""
        last, symbols = self._last[channel], records["symbol"]
        if not self._announced[symbols].all():
            raise FeedProtocolError("a record of a symbol that was not announced")
        order = np.argsort(symbols, kind="stable")
        sorted_symbols = symbols[order]
        ns = records["n"][order].astype(np.int64)
        first = np.ones(len(ns), bool)
        np.not_equal(sorted_symbols[1:], sorted_symbols[:-1], out=first[1:])
        before = np.empty_like(ns)
        before[1:] = ns[:-1]
        before[first] = last[sorted_symbols[first]]
        excused = self._excused[channel][sorted_symbols]
        ahead = (ns - before) & _MASK
        new = before == _NEW
        if new.any():
            any_number = (records["flags"][order] & FLAG_SNAPSHOT > 0) | self.lenient[channel]
            ahead[new] = np.where(any_number[new], 1, np.maximum(ns[new], 1))
        if not ((ahead > 0) & (ahead < _HALF)).all():
            return self._one_by_one(channel, records, into)
        if self.counts(channel):
            for i in np.flatnonzero((ahead > 1) & ~(excused & first)).tolist():
                snap = bool(records["flags"][order[i]] & FLAG_SNAPSHOT)
                name = self.names[sorted_symbols[i]]
                into.append(self.hole(name, channel, int(ahead[i]) - 1, int(ns[i]), snap))
        if self._pardons:
            self._excused[channel][sorted_symbols] = False
            self._pardons = bool(self._excused.any())
        last[sorted_symbols] = ns  # of equal symbols the last one counts
        return records

    def _one_by_one(self, channel: int, records: Records, into: list[Any]) -> Records:
        """Judge ticks of which some come twice or late, in order of arrival."""
        last, excused = self._last[channel], self._excused[channel]
        keep = np.zeros(len(records), bool)
        every = self.counts(channel)
        rows = zip(records["symbol"].tolist(), records["n"].tolist(), records["flags"].tolist(), strict=True)
        for i, (symbol, n, flags) in enumerate(rows):
            before = int(last[symbol])
            pardoned = bool(excused[symbol]) or (before == _NEW and self.lenient[channel])
            keep[i], lost = verdict(
                None if before == _NEW else before,
                n,
                snap=bool(flags & FLAG_SNAPSHOT),
                excused=pardoned,
                every=every,
            )
            if not keep[i]:
                self.duplicates += 1
                continue
            if lost:
                into.append(self.hole(self.names[symbol], channel, lost, n, bool(flags & FLAG_SNAPSHOT)))
            last[symbol] = n
            excused[symbol] = False
        return records[keep]
