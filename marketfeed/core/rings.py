"""Lock-free rings: the newest ``depth`` ticks of every symbol, per channel.

Theory of operation. One block of bytes, of any origin (heap, mmap, memfd),
holds what core/layout.py shows: a header, two counters per symbol and channel
and, per channel, an array of 64-byte records of shape ``(max_symbols, depth)``.
Tick ``n`` of a symbol (1, 2, 3 …) lies in slot ``(n - 1) % depth``. There is one writer; it

    raises ``claimed`` → scatters the records → raises ``published`` → stores ``published_g``

and any number of readers, which

    load ``published_g`` → copy → load ``claimed``.

A copied tick is valid if and only if ``n > claimed - depth``: the writer
raises ``claimed`` before it touches a slot. What fails this is counted as
lost. A tick with ``g > published_g`` is left for the next time; otherwise a
reader could deliver one symbol's g=105 before another's g=103 is visible.
Nobody waits for anybody, and a writer that dies anywhere leaves the rings
readable, and its successor goes on: ``claimed`` never falls, and no ``g`` is
given twice. Between processes this leans on x86-64's order of stores and loads
(stores are seen in program order, loads are done in program order).

The writer's side is core/writer.py; each is only right against the other. Both work on the arrays of
core/layout.py's View. Cost: perf/rings.py.
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
from marketfeed.core.layout import Block, View, block_bytes, lay_out
from marketfeed.core.records import QUOTES, TRADES, Records, stamps_of
from marketfeed.core.sequence import Sequence
from marketfeed.core.stamps import Stamps
from marketfeed.core.symbols import MAX_SYMBOLS, NameArea

Indices = NDArray[np.int64]

_FUTURE_WRITE: Final = 0x0010  # F_SEAL_FUTURE_WRITE of linux/fcntl.h, which Python 3.11's fcntl lacks
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _FUTURE_WRITE | fcntl.F_SEAL_SEAL
_U4: Final = 2**32 - 1


class Ticks(NamedTuple):
    """What a read brought: the ticks, and how far it got for each symbol asked for."""

    records: Records  # (m,) QUOTE or TRADE, by symbol as asked, then by n; copies
    counts: Indices  # (k,) ticks in ``records`` of each symbol asked for
    lost: Indices  # (k,) ticks overwritten before they could be read
    seen: Indices  # (k,) the highest n that is now read or lost


class Rings:
    """The readers' side; any number of instances over one block.

    Reads never wait and never fail; what could not be read is counted.
    """

    def __init__(self, block: Block) -> None:
        """Look at existing rings in ``block``; raises ValueError if there are none."""
        self.view = view = View.of(block)
        self.max_symbols, self.depth, self.epoch = view.max_symbols, view.depth, view.epoch
        self.fd = -1  # of the memfd that holds the block, where one does
        self.names = NameArea(view.names, view.named)
        self.stamps = Stamps(view.stamps, view.noted)
        self.sequence = Sequence(view.sequence)
        self._mask = self.depth - 1
        self._published_g, self._first_ns = view.published_g, view.first_ns
        self._claimed, self._published, self._records = view.claimed, view.published, view.records
        self._g = tuple(stamps_of(records) for records in self._records)

    @classmethod
    def create(cls, block: Block, max_symbols: int, depth: int, epoch: str | None = None) -> Rings:
        """Lay out empty rings in ``block``, which must be zeroed.

        ``depth`` is a power of two from 4; ``epoch`` is one that a cursor can
        name, and without it a fresh one is drawn. Raises ValueError for
        anything else, and for a block too short.
        """
        if depth < 4 or depth & (depth - 1):
            raise ValueError(f"depth is a power of two from 4, not {depth}")
        if not 0 < max_symbols <= MAX_SYMBOLS:
            raise ValueError(f"max_symbols is 1 to {MAX_SYMBOLS}, not {max_symbols}")
        if epoch is not None and not EPOCH.fullmatch(epoch):
            raise ValueError(f"an epoch is 1 to 32 letters and digits, not {epoch[:40]!r}")
        lay_out(block, max_symbols, depth, epoch or secrets.token_hex(6))
        return cls(block)

    @classmethod
    def private(cls, max_symbols: int, depth: int, epoch: str | None = None) -> Rings:
        """Make empty rings in this process's own memory; pages are taken as symbols are used."""
        return cls.create(mmap.mmap(-1, block_bytes(max_symbols, depth)), max_symbols, depth, epoch)

    @classmethod
    def shared(cls, max_symbols: int, depth: int, epoch: str | None = None) -> Rings:
        """Make empty rings in a memfd, ``fd``: whoever is handed it can look, and only we can write.

        There is no name to clean up: the memory goes with its last process.
        Raises OSError, OverflowError or ValueError where the machine has no room for it.
        """
        size = block_bytes(max_symbols, depth)
        # Asked for in vain: the kernel refuses an anonymous mapping larger than the
        # machine, but a memfd's pages one by one, with SIGBUS.
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
        """Look, read-only, at the rings in the memfd ``fd``; raises ValueError if there are none."""
        rings = cls(mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ))
        rings.fd = fd
        return rings

    def slots(self, channel: int) -> Records:
        """Return the records as they lie in the block, live and unchecked, shape ``(max_symbols, depth)``."""
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
        """Return when the first tick of each of the first ``count`` symbols came, a copy.

        Its ``ts_recv``, on either channel, however long overwritten; 0 where none has come.
        """
        return self._first_ns[:count].copy()

    def read(self, channel: int, symbols: Indices, after: Indices, upto: Indices, head: int) -> Ticks:
        """Return the ticks ``after < n <= upto`` of each symbol, those with ``g > head`` left out.

        All arrays have shape ``(k,)``; ``head`` is from :meth:`head`, loaded
        before ``upto`` was. Ticks that the writer overwrote, before or while
        they were copied, are counted in ``lost``; ``after + lost + counts``
        is ``seen`` for each symbol.
        """
        first = np.maximum(after, self._floor(channel, symbols))
        spans = np.maximum(upto - first, 0)
        # Where even ``upto`` is overwritten, what lies above it is not ours to count.
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
        # A slot that is being overwritten holds no g to go by: it is lost.
        lost += np.bincount(owner[~safe], minlength=len(symbols))
        return Ticks(copied[keep], counts, lost, after + lost + counts)

    def between(self, after: int, head: int) -> list[tuple[Records, Indices]] | None:
        """Return all ticks ``after < g <= head`` and their ``n``, for each channel in order of ``g``.

        ``head`` is at most what :meth:`head` has returned. None if some of
        them cannot be had in this way, being too many or overwritten; then
        :meth:`read` tells what is there of each symbol.
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
            # As in _survived: the writer may have been in these very slots.
            if not ((copied["g"] == wanted).all() and (behind < self.depth).all()):
                return None
            found.append((copied, claimed - behind))
        return found

    def _survived(
        self, channel: int, symbols: Indices, spans: Indices, ns: Indices, copied: Records
    ) -> NDArray[np.bool_]:
        """Tell which of the records just ``copied`` are whole and are the ticks ``ns``."""
        # `claimed`, not `published`, and after the copy: the writer may have
        # been scattering into these very slots.
        safe: NDArray[np.bool_] = ns > self._floor(channel, symbols).repeat(spans)
        safe &= copied["n"] == ns.astype(np.uint32)
        return safe

    def latest(self, channel: int, symbols: Indices, head: int) -> tuple[Records, Indices]:
        """Return the newest tick with ``g <= head`` of each symbol that has one.

        ``symbols`` has shape ``(k,)``. The records have shape ``(m,)``, m ≤ k,
        in the order asked; the second value, shape ``(k,)``, is each symbol's
        ``n``, 0 where there is no tick or the writer has already gone round.
        """
        upto = self.published_of(channel, symbols)
        ticks = self.read(channel, symbols, np.maximum(upto - 1, 0), upto, head)
        found = np.where(ticks.counts > 0, upto, 0)
        missing = np.flatnonzero((ticks.counts == 0) & (upto > 0))
        if not len(missing):
            return ticks.records, found
        # Published, but newer than head: look further back.
        older = self.position(channel, symbols[missing], head)
        again = self.read(channel, symbols[missing], np.maximum(older - 1, 0), older, head)
        found[missing] = np.where(again.counts > 0, older, 0)
        records = np.concatenate([ticks.records, again.records])
        owners = np.concatenate([np.flatnonzero(ticks.counts), missing[again.counts > 0]])
        return records[np.argsort(owners, kind="stable")], found

    def position(self, channel: int, symbols: Indices, g: int) -> Indices:
        """Return the highest ``n`` of each symbol whose tick is at or before ``g``, or is no longer held.

        Shape ``(k,)``; compare with :meth:`oldest`. Never less than is at or before ``g``,
        however far the writer comes meanwhile. Bisection over all symbols at once.
        """
        low = self._floor(channel, symbols)
        high = np.maximum(self.published_of(channel, symbols), low)
        base = symbols * self.depth
        stamps = self._g[channel]
        while True:
            open_ = low < high
            if not open_.any():
                return low
            middle = (low + high + 1) >> 1
            before = stamps[base + ((middle - 1) & self._mask)] <= g
            # After the look: a slot that was written over meanwhile holds the stamp of a newer tick.
            before |= middle <= self._floor(channel, symbols)
            before &= open_
            low = np.where(before, middle, low)
            high = np.where(open_ & ~before, middle - 1, high)

    def oldest(self, channel: int, symbols: Indices) -> Indices:
        """Return the lowest ``n`` still held of each symbol, shape ``(k,)``; 1 while none is overwritten."""
        return self._floor(channel, symbols) + 1

    def _floor(self, channel: int, symbols: Indices) -> Indices:
        """Return the highest ``n`` of each symbol that may be overwritten, 0 if none may."""
        floor: Indices = self._claimed[channel].take(symbols)
        floor -= self.depth
        return np.maximum(floor, 0, out=floor)
