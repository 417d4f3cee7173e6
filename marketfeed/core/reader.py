"""A position in the rings: what was published since the last look, ticks and gaps.

    rings ──► head ──► what each symbol has published since ──► records in order of g, and gaps

Used by the tap, in other processes, and by the engine's own readers of all ticks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np

from marketfeed.core.records import CHANNELS, NO_QUOTES, NO_TRADES, QUOTES, TRADES, Records, stamps_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.core.rings import Indices, Rings
    from marketfeed.core.symbols import SymbolTable

STEP_TICKS: Final = 1 << 17  # approximate limit of one step: 8 MB of records

Channel = Literal["quotes", "trades"]


class Gap(NamedTuple):
    """Ticks that were overwritten before they were read."""

    channel: Channel
    symbol: str
    lost: int
    n: int  # of the next tick of this symbol that is not lost


class NewTicks(NamedTuple):
    """Ticks since the last step. The records are copies, in order of ``g`` per channel."""

    quotes: Records  # (q,) QUOTE
    trades: Records  # (t,) TRADE
    gaps: list[Gap]
    head: int  # all ticks up to this ``g`` have been read

    def __bool__(self) -> bool:
        """Return whether there are ticks or gaps."""
        return bool(len(self.quotes) or len(self.trades) or self.gaps)


class RingReader:
    """Reads the rings from its own position on. Never waits; for one thread.

    ``g`` is the position: all ticks up to it have been read or reported as lost.
    """

    def __init__(
        self,
        rings: Rings,
        table: Callable[[], SymbolTable],
        names: tuple[str, ...] = ("*",),
        channels: frozenset[int] = frozenset((QUOTES, TRADES)),
        held: bool = False,
        step_ticks: int = STEP_TICKS,
    ) -> None:
        """Start at the head, or with ``held`` at the oldest ticks that the rings hold.

        ``table`` returns the symbol table with all names up to now. ``names`` may contain prefix patterns. A
        step has about ``step_ticks`` ticks at most.
        """
        self._step_ticks = step_ticks
        self._rings, self._table = rings, table
        self._plain = frozenset(name for name in names if not name.endswith("*"))
        self._prefixes = tuple(name[:-1] for name in names if name.endswith("*"))
        self._channels = sorted(channels)
        self._wanted = np.zeros(rings.max_symbols, bool)
        self._known = 0
        self.g = 0 if held else rings.head()
        self._seen = [np.zeros(rings.max_symbols, np.int64) for _ in CHANNELS]
        count = self._learn()
        symbols = np.arange(count)
        for channel in self._channels:
            if held:
                self._seen[channel][:count] = rings.oldest(channel, symbols) - 1
            else:
                self._seen[channel][:count] = rings.position(channel, symbols, self.g)

    def take(self) -> NewTicks:
        """Return the ticks since the last step, possibly none; never waits."""
        # The head before the names: every tick up to the head has a name by then.
        head = self._rings.head()
        gaps: list[Gap] = []
        found: list[Records] = [NO_QUOTES, NO_TRADES]
        if head > self.g:
            count = self._learn()
            upto = [self._rings.published(channel, count) for channel in range(len(CHANNELS))]
            changed = [
                np.flatnonzero((ns != seen[:count]) & self._wanted[:count])
                for ns, seen in zip(upto, self._seen, strict=True)
            ]
            head = self._bound(changed, upto, head)
            for channel in self._channels:
                if len(changed[channel]):
                    found[channel] = self._read(channel, changed[channel], upto[channel], head, gaps)
            self.g = head
        return NewTicks(found[QUOTES], found[TRADES], gaps, self.g)

    def _read(self, channel: int, symbols: Indices, upto: Indices, head: int, gaps: list[Gap]) -> Records:
        ticks = self._rings.read(channel, symbols, self._seen[channel][symbols], upto[symbols], head)
        self._seen[channel][symbols] = ticks.seen
        for i in np.flatnonzero(ticks.lost).tolist():
            next_n = int(ticks.seen[i] - ticks.counts[i]) + 1
            name = self._table().name(int(symbols[i]))
            gaps.append(Gap(CHANNELS[channel], name, int(ticks.lost[i]), next_n))
        return ticks.records.take(stamps_of(ticks.records).argsort(kind="stable"))

    def _bound(self, changed: list[Indices], upto: list[Indices], head: int) -> int:
        """Return the head up to which to read, so that a step is bounded; reduce ``upto`` accordingly."""
        waiting, oldest = 0, head
        for channel in self._channels:
            symbols = changed[channel]
            first = np.maximum(self._seen[channel][symbols], self._rings.oldest(channel, symbols) - 1)
            waiting += int(np.maximum(upto[channel][symbols] - first, 0).sum())
        if waiting <= self._step_ticks:
            return head
        for channel in self._channels:
            if len(symbols := changed[channel]):
                slots = (self._rings.oldest(channel, symbols) - 1) & (self._rings.depth - 1)
                oldest = min(oldest, int(stamps_of(self._rings.slots(channel)[symbols, slots]).min()))
        start = max(self.g, oldest)
        head = start + max((head - start) * self._step_ticks // waiting, 1)
        for channel in self._channels:
            symbols = changed[channel]
            bound = self._rings.position(channel, symbols, head)
            upto[channel][symbols] = np.minimum(bound, upto[channel][symbols])
        return head

    def _learn(self) -> int:
        """Learn new symbols; return how many there are in total."""
        names = self._table().names(self._known)
        for number, name in enumerate(names, self._known):
            self._wanted[number] = name in self._plain or name.startswith(self._prefixes)
        self._known += len(names)
        return self._known
