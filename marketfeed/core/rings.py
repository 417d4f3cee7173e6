"""Lock-free rings: the newest ``depth`` ticks of every symbol, per channel.

Theory of operation. One block of bytes (heap, mmap or memfd) has the layout of core/layout.py: a header,
three counters per symbol and channel and, per channel, an array of 64-byte records of shape ``(max_symbols,
depth)``. Tick ``n`` of a symbol (1, 2, 3 …) is in slot ``(n - 1) % depth``. There is one writer. It

    raises ``claimed`` → scatters the records → raises ``published`` → stores ``published_g``

There can be any number of readers. A reader

    loads ``published_g`` → copies → loads ``claimed``.

A copied tick is valid if and only if ``n > max(claimed - depth, base)``, the *floor* of its symbol, because
the writer raises ``claimed`` before it writes a slot. Ticks that fail this test count as lost. Ticks with
``g > published_g`` are left for the next read; otherwise a reader could deliver one symbol's g=105 before
another's g=103 is visible. Neither side waits. A writer that dies at any point leaves the rings readable, and
another one can continue: ``claimed`` never decreases, and no ``g`` is assigned twice. Between processes this
requires the memory order of x86-64: stores become visible in program order, and loads are executed in program
order.

``base`` is 0 in the rings of an engine that numbers its ticks itself. A mirror (core/mirror.py) writes ticks
that another engine has numbered. If some of them are gone for good, it continues with the newest tick ``n``
of each symbol. The slots of the ticks between, the *hole*, hold older ticks or nothing, and a search by ``g``
would take them for ticks of the hole. So the mirror raises ``base`` to ``n - 1`` before it publishes:

    raises ``base`` → raises ``claimed`` → scatters → raises ``published`` → stores ``published_g``

A reader that sees any of these stores sees those before it. So whoever finds ``published`` or a stamp beyond
the hole, and loads ``base`` after it, finds the hole; and a copy that passes the test was made before the
scatter. Until ``published`` is raised, the floor is above it: the symbol has no valid tick.
:meth:`Rings.between` does not need ``base``: it checks the ``g`` of every record, and the index has no valid
entry for a ``g`` of the hole. A reader that already has a position is told of the hole; one that takes its
first position between the stores may start behind it.

The writers are core/writer.py and core/mirror.py, both over core/publisher.py; the correctness of either side
depends on the other. Both use the arrays of core/layout.py's View. Cost: perf/rings.py.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketfeed.core.cursor import EPOCH
from marketfeed.core.few import FewReader
from marketfeed.core.layout import Block, View, block_bytes, lay_out
from marketfeed.core.records import QUOTES, TRADES, Records, stamps_of
from marketfeed.core.sequence import Sequence
from marketfeed.core.stamps import Stamps
from marketfeed.core.symbols import MAX_SYMBOLS, NameArea

Indices = NDArray[np.int64]

FEW_SYMBOLS: Final = 16  # whose positions are found one by one in less time

_FUTURE_WRITE: Final = 0x0010  # F_SEAL_FUTURE_WRITE of linux/fcntl.h, which Python 3.11's fcntl lacks
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _FUTURE_WRITE | fcntl.F_SEAL_SEAL
_U4: Final = 2**32 - 1


class Ticks(NamedTuple):
    """Result of a read: the ticks, and the position after it of each requested symbol."""

    records: Records  # (m,) QUOTE or TRADE, in the order of the request, then by n; copies
    counts: Indices  # (k,) ticks of each requested symbol in ``records``
    lost: Indices  # (k,) ticks that were overwritten before they were read
    seen: Indices  # (k,) the highest n that has been read or lost


class Rings:
    """Reader of the rings; any number of instances may share one block.

    Reads never wait and never fail; ticks that could not be read are counted.
    """

    def __init__(self, block: Block) -> None:
        """Open existing rings in ``block``; raises ValueError if there are none."""
        self.view = view = View.of(block)
        self.max_symbols, self.depth, self.epoch = view.max_symbols, view.depth, view.epoch
        self.fd = -1  # the memfd that holds the block; -1: none
        self.names = NameArea(view.names, view.named)
        self.stamps = Stamps(view.stamps, view.noted)
        self.sequence = Sequence(view.sequence)
        self.few = FewReader(view)
        self._mask = self.depth - 1
        self._published_g, self._first_ns = view.published_g, view.first_ns
        self._claimed, self._published, self._records = view.claimed, view.published, view.records
        self._base = view.base
        self._g = tuple(stamps_of(records) for records in self._records)

    @classmethod
    def create(cls, block: Block, max_symbols: int, depth: int, epoch: str | None = None) -> Rings:
        """Create empty rings in ``block``, which must be zeroed.

        ``depth`` is a power of two, at least 4; ``epoch`` is 1 to 32 letters and digits (None: random).
        Raises ValueError for other values and for a block that is too short.
        """
        if depth < 4 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two, at least 4, not {depth}")
        if not 0 < max_symbols <= MAX_SYMBOLS:
            raise ValueError(f"max_symbols must be 1 to {MAX_SYMBOLS}, not {max_symbols}")
        if epoch is not None and not EPOCH.fullmatch(epoch):
            raise ValueError(f"an epoch must be 1 to 32 letters and digits, not {epoch[:40]!r}")
        lay_out(block, max_symbols, depth, epoch or secrets.token_hex(6))
        return cls(block)

    @classmethod
    def private(cls, max_symbols: int, depth: int, epoch: str | None = None) -> Rings:
        """Create empty rings in private memory; pages are allocated as symbols are used."""
        return cls.create(mmap.mmap(-1, block_bytes(max_symbols, depth)), max_symbols, depth, epoch)

    @classmethod
    def shared(cls, max_symbols: int, depth: int, epoch: str | None = None) -> Rings:
        """Create empty rings in a sealed memfd, ``fd``: other processes can map it read-only.

        There is no name to clean up: the memory is freed with its last process.
        Raises OSError, OverflowError or ValueError if the machine has too little memory.
        """
        size = block_bytes(max_symbols, depth)
        # Check the size: the kernel refuses an anonymous mapping larger than the machine at once, but the
        # pages of a memfd only on access, with SIGBUS.
        mmap.mmap(-1, size).close()
        fd = os.memfd_create("marketfeed-rings", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size)
            rings = cls.create(mmap.mmap(fd, size), max_symbols, depth, epoch)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(fd)
            raise
        rings.fd = fd
        return rings

    @classmethod
    def attach(cls, fd: int) -> Rings:
        """Map the rings in the memfd ``fd`` read-only; raises ValueError if there are none."""
        rings = cls(mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ))
        rings.fd = fd
        return rings

    def slots(self, channel: int) -> Records:
        """Return a view of the records in the block, unchecked, shape ``(max_symbols, depth)``."""
        records: Records = self._records[channel].reshape(self.max_symbols, self.depth)
        return records

    def head(self) -> int:
        """Return the highest ``g`` that may be read now."""
        return int(self._published_g[0])

    def published(self, channel: int, count: int | None = None) -> Indices:
        """Return the highest published ``n`` of the first ``count`` symbols (None: of all), a copy."""
        ns: Indices = self._published[channel, :count].copy()
        return ns

    def published_of(self, channel: int, symbols: Indices) -> Indices:
        """Return the highest published ``n`` of each of ``symbols``, shape ``(k,)``."""
        ns: Indices = self._published[channel].take(symbols)
        return ns

    def first_ns(self, count: int | None = None) -> Indices:
        """Return the time of the first tick of each of the first ``count`` symbols, a copy.

        It is the ``ts_recv`` of the first tick on either channel, kept after the tick is overwritten; 0 if
        there was none.
        """
        return self._first_ns[:count].copy()

    def read(self, channel: int, symbols: Indices, after: Indices, upto: Indices, head: int) -> Ticks:
        """Return the ticks ``after < n <= upto`` of each symbol, without those with ``g > head``.

        All arrays have shape ``(k,)``; ``head`` is from :meth:`head`, loaded before ``upto``. Ticks that were
        overwritten before or while they were copied are counted in ``lost``; ``after + lost + counts`` is
        ``seen`` for each symbol.
        """
        first = np.maximum(after, self._floor(channel, symbols))
        spans = np.maximum(upto - first, 0)
        # If ``upto`` itself is overwritten, ticks above it are not counted.
        lost = np.minimum(first, np.maximum(upto, after)) - after
        ends = spans.cumsum()
        total = int(ends[-1]) if len(ends) else 0
        ns = (first - ends + spans).repeat(spans)
        ns += np.arange(1, total + 1)
        slots = (symbols * self.depth).repeat(spans)
        slots += (ns - 1) & self._mask
        copied = self._records[channel].take(slots, mode="clip")
        safe = self._survived(channel, symbols, spans, ns, copied)
        keep = safe & (copied["g"] <= head)
        if keep.all():
            return Ticks(copied, spans, lost, after + lost + spans)
        owner = np.arange(len(symbols)).repeat(spans)
        counts = np.bincount(owner[keep], minlength=len(symbols))
        # A slot that is being overwritten has no valid g: the tick is lost.
        lost += np.bincount(owner[~safe], minlength=len(symbols))
        return Ticks(copied[keep], counts, lost, after + lost + counts)

    def between(self, after: int, head: int) -> list[tuple[Records, Indices]] | None:
        """Return all ticks ``after < g <= head`` and their ``n``, for each channel in order of ``g``.

        ``head`` is at most a value that :meth:`head` has returned. Returns None if there are too many, or
        some of them are overwritten; then :meth:`read` returns the ticks by symbol.
        """
        places = self.sequence.places(after, head)
        if places is None:
            return None
        gs = np.arange(after + 1, head + 1, dtype=np.uint64)
        channels, slots = places
        if not channels.any():
            parts = [(gs, slots), (gs[:0], slots[:0])]
        else:
            parts = [(gs[chosen], slots[chosen]) for chosen in (channels == QUOTES, channels == TRADES)]
        found: list[tuple[Records, Indices]] = []
        for channel, (wanted, places_) in enumerate(parts):
            copied = self._records[channel].take(places_, mode="clip")
            claimed = self._claimed[channel].take(copied["symbol"], mode="clip")
            behind = claimed - copied["n"]
            behind &= _U4  # a record's n is modulo 2**32
            # As in _survived: the writer may have written these slots meanwhile.
            if not ((copied["g"] == wanted).all() and (behind < self.depth).all()):
                return None
            found.append((copied, claimed - behind))
        return found

    def _survived(
        self, channel: int, symbols: Indices, spans: Indices, ns: Indices, copied: Records
    ) -> NDArray[np.bool_]:
        """Return which of the records ``copied`` are valid copies of the ticks ``ns``."""
        # `claimed`, not `published`, and loaded after the copy: the writer may have written these slots
        # meanwhile.
        safe: NDArray[np.bool_] = ns > self._floor(channel, symbols).repeat(spans)
        safe &= copied["n"] == ns.astype(np.uint32)
        return safe

    def latest(self, channel: int, symbols: Indices, head: int) -> tuple[Records, Indices]:
        """Return the newest tick with ``g <= head`` of each symbol that has one.

        ``symbols`` has shape ``(k,)``. The records have shape ``(m,)``, m ≤ k, in the order of the request;
        the second value, shape ``(k,)``, is each symbol's ``n``, 0 if there is no tick or it is overwritten.
        """
        upto = self.published_of(channel, symbols)
        ticks = self.read(channel, symbols, np.maximum(upto - 1, 0), upto, head)
        found = np.where(ticks.counts > 0, upto, 0)
        missing = np.flatnonzero((ticks.counts == 0) & (upto > 0))
        if not len(missing):
            return ticks.records, found
        # Published, but newer than head: find an older one.
        older = self.position(channel, symbols[missing], head)
        again = self.read(channel, symbols[missing], np.maximum(older - 1, 0), older, head)
        found[missing] = np.where(again.counts > 0, older, 0)
        records = np.concatenate([ticks.records, again.records])
        owners = np.concatenate([np.flatnonzero(ticks.counts), missing[again.counts > 0]])
        return records[np.argsort(owners, kind="stable")], found

    def position(self, channel: int, symbols: Indices, g: int) -> Indices:
        """Return the highest ``n`` of each symbol whose tick is at or before ``g``, or is overwritten.

        Shape ``(k,)``, at most what is published; compare with :meth:`oldest`. A writer that advances
        meanwhile never makes the result too low. Bisection over all symbols at once, unless they are few.
        """
        if len(symbols) <= FEW_SYMBOLS:
            ns = [self.few.position(channel, symbol, g) for symbol in symbols.tolist()]
            return np.array(ns, np.int64)
        low = self._floor(channel, symbols)
        high = self.published_of(channel, symbols)
        np.minimum(low, high, out=low)
        first = symbols * self.depth
        stamps = self._g[channel]
        while True:
            open_ = low < high
            if not open_.any():
                return low
            middle = (low + high + 1) >> 1
            before = stamps[first + ((middle - 1) & self._mask)] <= g
            # Loaded after the stamp: a slot that was overwritten meanwhile holds the stamp of a newer tick.
            before |= middle <= self._floor(channel, symbols)
            before &= open_
            low = np.where(before, middle, low)
            high = np.where(open_ & ~before, middle - 1, high)

    def oldest(self, channel: int, symbols: Indices) -> Indices:
        """Return the lowest ``n`` of each symbol that is not overwritten or in a hole, shape ``(k,)``."""
        return self._floor(channel, symbols) + 1

    def _floor(self, channel: int, symbols: Indices) -> Indices:
        """Return the highest ``n`` of each symbol that may be overwritten or in a hole, 0 if none is."""
        floor: Indices = self._claimed[channel].take(symbols)
        floor -= self.depth
        np.maximum(floor, self._base[channel].take(symbols), out=floor)
        return floor
