"""The writer of a mirror's rings: ticks with the ``g`` and ``n`` that another engine, the origin, assigned.

    frames of the origin ──► write_given: checked, published as they are
    state of the origin  ──► adopt: the newest tick of every symbol, and ``base`` over what is missing

Rings that were fed with every tick equal those of the origin byte for byte, except for the stamps and the
times of first ticks, which depend on how ticks were divided into batches. If ticks are gone for good, the
mirror adopts a state; core/rings.py says how readers are told of the hole. Cost: perf/rings.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

import numpy as np

from marketfeed.core.details import details_fault, has_details
from marketfeed.core.publisher import Placed, Publisher
from marketfeed.core.records import BUY, CHANNELS, QUOTES, SELL, TRADES, UNKNOWN_SIDE, Records, stamps_of
from marketfeed.errors import MirrorError

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.core.rings import Indices, Rings

_SIZES: Final = (("bid_sz", "ask_sz"), ("size",))
_U4: Final = 2**32 - 1
_BEHIND: Final = 2**31  # a distance of n modulo 2**32 from here on is that of an older tick


class MirrorWriter:
    """Writer of a mirror's rings, exactly one per block. Continues where an earlier one stopped.

    If the earlier one died during a publication, it has to adopt a state first. Symbols have the ids of the
    origin, and their names are in the rings before their first tick.
    """

    def __init__(self, rings: Rings, wall_ns: Callable[[], int] | None = None) -> None:
        """``wall_ns`` is the clock of the stamps."""
        self.rings = rings
        self._publisher = Publisher(rings, wall_ns)
        view = rings.view
        self._published, self._base, self._first_ns = view.published, view.base, view.first_ns
        self._torn = (
            self._publisher.inherited
            or self._publisher.next_g > rings.head() + 1
            or bool((self._base > self._published).any())
        )
        self._publisher.next_g = rings.head() + 1

    @property
    def next_g(self) -> int:
        """Return the ``g`` of the next tick: one above the head."""
        return self._publisher.next_g

    def write_given(self, quotes: Records, trades: Records, first_g: int, last_g: int) -> None:
        """Publish the ticks ``first_g <= g <= last_g``; in several parts, as RingWriter does.

        ``quotes``, shape ``(q,)``, and ``trades``, ``(t,)``, are in order of ``g`` and remain unchanged.
        Raises MirrorError, and publishes nothing, if they are not exactly these ticks, do not follow on the
        head or on what is published of their symbols, or are not what an engine publishes.
        """
        if self._torn:
            raise MirrorError("an earlier writer died during a publication: a state has to be adopted")
        if first_g != self.next_g:
            raise MirrorError(f"ticks from g = {first_g} on do not follow: the next g is {self.next_g}")
        _check_range(quotes, trades, first_g, last_g)
        self._check_records(quotes, trades)
        placed = self._publisher.place(quotes, trades)
        for p in placed:
            other = p.records["n"] != p.ns.astype(np.uint32)
            if np.count_nonzero(other):
                at = int(other.argmax())
                self._refuse(p.channel, p.records[at], f"does not follow on n = {int(p.ns[at]) - 1}")
        if placed:
            self._publisher.publish(placed, last_g + 1)

    def adopt(self, quotes: Records, trades: Records, head: int, first_ns: Indices | None = None) -> None:
        """Publish the newest tick of every symbol as of ``head``, where it is not published yet.

        ``quotes``, shape ``(q,)``, and ``trades``, ``(t,)``, are in any order, at most one of a symbol each.
        ``first_ns``, shape ``(k,)``, are the times of the first ticks of the first ``k`` symbols, as
        :meth:`Rings.first_ns` of the origin returns them; without it, or where it is 0, the adopted tick's
        time of receipt takes the place of an unknown one.

        Readers are told that the ticks between are lost. A symbol that has lost none keeps its history.
        Raises MirrorError, and publishes nothing, if any tick or ``head`` is older than what is published, if
        a published symbol is missing, or if a tick is not what an engine publishes.
        """
        if head < self.rings.head():
            raise MirrorError(f"a state as of g = {head} is older than the head, {self.rings.head()}")
        self._check_records(quotes, trades)
        stamps = np.concatenate([stamps_of(quotes), stamps_of(trades)])
        if len(stamps) and not (stamps.min() > 0 and stamps.max() <= head):
            raise MirrorError(f"a state as of g = {head} has ticks from g = {stamps.min()} to {stamps.max()}")
        if len(np.unique(stamps)) < len(stamps):
            raise MirrorError(f"a state as of g = {head} has two ticks with one g")
        placed = [self._newer(QUOTES, quotes), self._newer(TRADES, trades)]
        self._note_firsts(placed, first_ns)
        # Before the publication; core/rings.py says why.
        for p in placed:
            hole = p.ns > self._published[p.channel][p.symbols] + 1
            self._base[p.channel][p.symbols[hole]] = p.ns[hole] - 1
        self._publisher.publish([p for p in placed if len(p.ns)], head + 1)
        self._torn = False

    def _newer(self, channel: int, records: Records) -> Placed:
        """Return the places of those ``records`` that are not published yet, in order of ``g``."""
        symbols = records["symbol"].astype(np.int64)
        published = self._published[channel]
        # The base is higher if an earlier writer died while it adopted a state.
        reached = np.maximum(published, self._base[channel])
        missing = reached > 0
        missing[symbols] = False
        if np.count_nonzero(missing):
            self._refuse_symbol(channel, int(missing.argmax()), "is missing in the state")
        if len(np.unique(symbols)) < len(symbols):
            self._refuse_symbol(channel, int(np.bincount(symbols).argmax()), "is in the state twice")
        before = reached[symbols]
        ahead = (records["n"] - before) & _U4
        slots = self.rings.slots(channel)
        stamps, held = stamps_of(records), (ahead == 0) & (before > 0)
        newest = stamps_of(slots)[symbols, (before - 1) & (self.rings.depth - 1)]
        wrong = np.where(
            held, (stamps != newest) | (published[symbols] < before), stamps <= self.rings.head()
        )
        wrong |= (ahead >= _BEHIND) & (before > 0)
        if np.count_nonzero(wrong):
            at = int(wrong.argmax())
            self._refuse(channel, records[at], f"contradicts what is published up to n = {before[at]}")
        order = np.flatnonzero(~held)
        order = order[stamps[order].argsort()]
        # Of a symbol without a tick, n = 0 is 2**32.
        ns = before[order] + np.where(ahead[order] == 0, _U4 + 1, ahead[order])
        symbols = symbols[order]
        places = symbols * self.rings.depth + ((ns - 1) & (self.rings.depth - 1))
        return Placed(channel, records[order], symbols, np.ones(len(order), np.int64), ns, ns, places)

    def _note_firsts(self, placed: list[Placed], first_ns: Indices | None) -> None:
        """Record the times of first ticks that are not known yet."""
        if first_ns is not None:
            unknown = np.flatnonzero(self._first_ns[: len(first_ns)] == 0)
            self._first_ns[unknown] = first_ns[unknown]
        for p in placed:
            unknown = np.flatnonzero(self._first_ns[p.symbols] == 0)
            self._first_ns[p.symbols[unknown]] = p.records["ts_recv"][unknown]

    def _check_records(self, quotes: Records, trades: Records) -> None:
        """Raise MirrorError for records that the fan-out cannot encode, and for symbols without a name."""
        known = int(self.rings.view.named[0])
        for channel, records in enumerate((quotes, trades)):
            if not len(records):
                continue
            if records["symbol"].max() >= known:
                text = f"a tick of symbol {records['symbol'].max()}, but {known} symbols are known"
                raise MirrorError(f"{CHANNELS[channel]}: {text}")
            fault = _fault(channel, records)
            if fault is not None:
                raise MirrorError(f"{CHANNELS[channel]}: {fault}")

    def _refuse(self, channel: int, record: np.void, text: str) -> NoReturn:
        self._refuse_symbol(channel, int(record["symbol"]), f"n = {record['n']} (g = {record['g']}) {text}")

    def _refuse_symbol(self, channel: int, symbol: int, text: str) -> NoReturn:
        name = self.rings.names.names[symbol].decode("ascii")
        raise MirrorError(f"{CHANNELS[channel]} of {name}: {text}")


def _check_range(quotes: Records, trades: Records, first_g: int, last_g: int) -> None:
    """Raise MirrorError unless the ``g`` of both are together ``first_g`` to ``last_g``, each in order."""
    total = len(quotes) + len(trades)
    if total != last_g - first_g + 1:
        raise MirrorError(f"{total} ticks for g = {first_g} to {last_g}")
    columns = [stamps_of(records) for records in (quotes, trades) if len(records)]
    for stamps in columns:
        if not (stamps[1:] > stamps[:-1]).all() or int(stamps[0]) < first_g or int(stamps[-1]) > last_g:
            raise MirrorError(f"ticks that are not in order between g = {first_g} and {last_g}")
    if len(columns) > 1:  # one column that ascends and has their number has them all
        found = np.zeros(total, bool)
        for stamps in columns:
            found[(stamps - np.uint64(first_g)).astype(np.int64)] = True
        if not found.all():
            raise MirrorError(f"ticks that have a g between {first_g} and {last_g} twice")


def _fault(channel: int, records: Records) -> str | None:
    """Return why ``records``, at least one, are not what an engine publishes, else None."""
    for name in _SIZES[channel]:
        sizes = records[name]
        if not (sizes.min() >= 0 and sizes.max() < np.inf):  # also of NaN
            return f"{name} is not a finite number of at least 0"
    if channel == TRADES:
        side = records["side"]
        if not ((side == BUY) | (side == SELL) | (side == UNKNOWN_SIDE)).all():
            return "a side that is not b, s or -"
        if has_details(records):
            return "a kind that is not 0" if records["kind"].any() else details_fault(records)
    return None
