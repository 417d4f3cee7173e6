"""Lock-free rings: the newest ``depth`` ticks of every symbol, per channel.

Theory of operation. One block of bytes, of any origin (heap, mmap, memfd),
holds a header, two counters per symbol and channel, and per channel an array
of 64-byte records of shape ``(max_symbols, depth)``. Tick ``n`` of a symbol
(1, 2, 3 …) lies in slot ``(n - 1) % depth``. There is one writer; it

    raises ``claimed`` → scatters the records → raises ``published`` → stores ``published_g``

and any number of readers, which

    load ``published_g`` → copy → load ``claimed``.

A copied tick is valid if and only if ``n > claimed - depth``: the writer
raises ``claimed`` before it touches a slot. What fails this is counted as
lost. A tick with ``g > published_g`` is left for the next time; otherwise a
reader could deliver one symbol's g=105 before another's g=103 is visible.
Nobody waits for anybody, and a writer that dies anywhere leaves the rings
readable. Between processes this leans on x86-64's order of stores and loads
(stores are seen in program order, loads are done in program order).

Cost: perf/rings.py.
"""

from __future__ import annotations

import mmap
import secrets
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketfeed.core.records import DTYPES, QUOTES, RECORD, TRADES, Batch, Records

Block = bytearray | memoryview | mmap.mmap
Counters = NDArray[np.uint64]
Indices = NDArray[np.int64]

HEADER: Final = np.dtype(
    [
        ("magic", "S8"),
        ("version", "<u4"),
        ("max_symbols", "<u4"),
        ("depth", "<u4"),
        ("unused", "<u4"),
        ("epoch", "S32"),
        ("published_g", "<u8"),
    ]
)
MAGIC: Final = b"mfrings\x01"
VERSION: Final = 1
_PAGE: Final = 4096


class Ticks(NamedTuple):
    """What a read brought: the ticks, and how far it got for each symbol asked for."""

    records: Records  # (m,) QUOTE or TRADE, by symbol as asked, then by n; copies
    counts: Indices  # (k,) ticks in ``records`` of each symbol asked for
    lost: Indices  # (k,) ticks overwritten before they could be read
    seen: Indices  # (k,) the highest n that is now read or lost


def block_bytes(max_symbols: int, depth: int) -> int:
    """Return how many bytes the rings of ``max_symbols`` × ``depth`` on both channels take."""
    counters = 2 * 2 * 8 * max_symbols
    return _PAGE + -(-counters // _PAGE) * _PAGE + 2 * max_symbols * depth * RECORD.itemsize


class Rings:
    """The readers' side; any number of instances over one block.

    Reads never wait and never fail; what could not be read is counted.
    """

    def __init__(self, block: Block) -> None:
        """Look at existing rings in ``block``; raises ValueError if there are none."""
        header = np.frombuffer(block, HEADER, 1)[0]
        if header["magic"] != MAGIC.rstrip(b"\0") or header["version"] != VERSION:
            raise ValueError("the block does not hold rings of this version")
        self.max_symbols = int(header["max_symbols"])
        self.depth = int(header["depth"])
        self.epoch = header["epoch"].decode("ascii")
        whole = np.frombuffer(block, np.uint8)
        if len(whole) < block_bytes(self.max_symbols, self.depth):
            raise ValueError("the block is shorter than its header says")
        self._mask = self.depth - 1
        at = HEADER.fields["published_g"][1]  # type: ignore[index]
        self._published_g = whole[at : at + 8].view(np.uint64)
        counters = whole[_PAGE : _PAGE + 32 * self.max_symbols].view(np.uint64)
        shaped = counters.reshape(2, 2, self.max_symbols)
        self._claimed: Counters = shaped[0]  # (channel, symbol)
        self._published: Counters = shaped[1]
        start = block_bytes(self.max_symbols, self.depth) - 2 * self.max_symbols * self.depth * 64
        flat = whole[start : start + 2 * self.max_symbols * self.depth * 64].view(RECORD)
        self._slots = flat.reshape(2, self.max_symbols * self.depth)  # (channel, symbol * depth + slot)
        self._g = tuple(self._slots[c].view(DTYPES[c])["g"] for c in (QUOTES, TRADES))

    @classmethod
    def create(cls, block: Block, max_symbols: int, depth: int, epoch: str | None = None) -> Rings:
        """Lay out empty rings in ``block``, which must be zeroed and long enough.

        ``depth`` is a power of two from 4. Without ``epoch`` a fresh one is drawn.
        """
        if depth < 4 or depth & (depth - 1):
            raise ValueError(f"depth is a power of two from 4, not {depth}")
        header = np.frombuffer(block, HEADER, 1)
        header["version"] = VERSION
        header["max_symbols"] = max_symbols
        header["depth"] = depth
        header["epoch"] = (epoch or secrets.token_hex(6)).encode("ascii")
        header["magic"] = MAGIC
        return cls(block)

    @classmethod
    def private(cls, max_symbols: int, depth: int, epoch: str | None = None) -> Rings:
        """Make empty rings in this process's own memory; pages are taken as symbols are used."""
        return cls.create(mmap.mmap(-1, block_bytes(max_symbols, depth)), max_symbols, depth, epoch)

    def head(self) -> int:
        """Return the highest ``g`` that may be read now."""
        return int(self._published_g[0])

    def published(self, channel: int) -> Indices:
        """Return the highest published ``n`` of every symbol, shape ``(max_symbols,)``, a copy."""
        return self._published[channel].astype(np.int64)

    def published_view(self, channel: int) -> Counters:
        """Return the same counters without a copy; they move while one looks."""
        return self._published[channel]

    def read(self, channel: int, symbols: Indices, after: Indices, upto: Indices, head: int) -> Ticks:
        """Return the ticks ``after < n <= upto`` of each symbol, those with ``g > head`` left out.

        All arrays have shape ``(k,)``; ``head`` is from :meth:`head`, loaded
        before ``upto`` was. Ticks that the writer overwrote, before or while
        they were copied, are counted in ``lost``; ``after + lost + counts``
        is ``seen`` for each symbol.
        """
        first = np.maximum(after, self._floor(channel, symbols))
        spans = np.maximum(upto - first, 0)
        total = int(spans.sum())
        ends = np.cumsum(spans)
        ns = np.arange(1, total + 1) + np.repeat(first - (ends - spans), spans)
        slots = np.repeat(symbols * self.depth, spans) + ((ns - 1) & self._mask)
        copied = self._slots[channel][slots].view(DTYPES[channel])
        # `claimed`, not `published`, and after the copy: the writer may have
        # been scattering into these very slots.
        floor = self._floor(channel, symbols)
        safe = ns > np.repeat(floor, spans)
        safe &= copied["n"] == ns.astype(np.uint32)
        early = copied["g"] <= head
        keep = safe & early
        if keep.all():
            return Ticks(copied, spans, first - after, np.maximum(upto, after))
        owner = np.repeat(np.arange(len(symbols)), spans)
        counts = np.bincount(owner[keep], minlength=len(symbols))
        # A slot that is being overwritten holds no g to go by: it is lost.
        overwritten = np.bincount(owner[~safe], minlength=len(symbols))
        lost = first - after + overwritten
        return Ticks(copied[keep], counts, lost, after + lost + counts)

    def latest(self, channel: int, symbols: Indices, head: int) -> tuple[Records, Indices]:
        """Return the newest tick with ``g <= head`` of each symbol that has one.

        ``symbols`` has shape ``(k,)``. The records have shape ``(m,)``, m ≤ k,
        in the order asked; the second value, shape ``(k,)``, is each symbol's
        ``n``, 0 where there is no tick or the writer has already gone round.
        """
        upto = self._published[channel][symbols].astype(np.int64)
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
        """Return the highest ``n`` of each symbol whose tick is at or before ``g``.

        Shape ``(k,)``. Where every tick still held is newer, this is the
        highest n no longer held; compare with :meth:`oldest`. Bisection over all symbols at once.
        """
        low = self._floor(channel, symbols)
        high = np.maximum(self._published[channel][symbols].astype(np.int64), low)
        base = symbols * self.depth
        stamps = self._g[channel]
        while True:
            open_ = low < high
            if not open_.any():
                return low
            middle = (low + high + 1) >> 1
            before = (stamps[base + ((middle - 1) & self._mask)] <= g) & open_
            low = np.where(before, middle, low)
            high = np.where(open_ & ~before, middle - 1, high)

    def oldest(self, channel: int, symbols: Indices) -> Indices:
        """Return the lowest ``n`` still held of each symbol, shape ``(k,)``; 1 where nothing is overwritten."""
        return self._floor(channel, symbols) + 1

    def _floor(self, channel: int, symbols: Indices) -> Indices:
        """Return the highest ``n`` of each symbol that may be overwritten, 0 if none may."""
        claimed = self._claimed[channel][symbols].astype(np.int64)
        return np.maximum(claimed - self.depth, 0)


class RingWriter:
    """The writers' side; exactly one per block."""

    def __init__(self, rings: Rings) -> None:
        self.rings = rings
        self._next_g = rings.head() + 1
        self._claimed, self._published, self._slots = rings._claimed, rings._published, rings._slots
        self._published_g = rings._published_g
        self._mask = rings.depth - 1
        self._depth = rings.depth
        self._most = rings.depth // 4  # of one symbol in one step; readers keep three quarters

    def write(self, batch: Batch) -> int:
        """Publish the ticks of ``batch``; return the last ``g``.

        Fills in ``g`` and ``n`` of the batch's records. A batch with more
        than depth / 4 ticks of one symbol is published in several steps.
        """
        total = len(batch)
        if not total:
            return self._next_g - 1
        first_g = self._next_g
        self._next_g += total
        quotes, trades = batch.quotes, batch.trades
        if batch.channels is None or not len(quotes) or not len(trades):
            quotes["g"] = np.arange(first_g, first_g + len(quotes), dtype=np.uint64)
            trades["g"] = np.arange(first_g + len(quotes), first_g + total, dtype=np.uint64)
        else:
            quotes["g"] = np.flatnonzero(batch.channels == QUOTES) + first_g
            trades["g"] = np.flatnonzero(batch.channels == TRADES) + first_g
        if total <= self._most:
            self._step(quotes, trades, first_g + total - 1)
        else:
            self._steps(quotes, trades, first_g, total)
        return first_g + total - 1

    def _steps(self, quotes: Records, trades: Records, first_g: int, total: int) -> None:
        """Publish in one step if no symbol has too many ticks, else in as many as it takes."""
        busiest = max(
            int(np.bincount(records["symbol"]).max()) if len(records) else 0 for records in (quotes, trades)
        )
        if busiest <= self._most:
            self._step(quotes, trades, first_g + total - 1)
            return
        quote_gs, trade_gs = quotes["g"], trades["g"]
        for start in range(first_g, first_g + total, self._most):
            end = min(start + self._most, first_g + total)
            q0, q1 = np.searchsorted(quote_gs, [start, end])
            t0, t1 = np.searchsorted(trade_gs, [start, end])
            self._step(quotes[q0:q1], trades[t0:t1], end - 1)

    def _step(self, quotes: Records, trades: Records, last_g: int) -> None:
        placed_quotes = self._place(QUOTES, quotes) if len(quotes) else None
        placed_trades = self._place(TRADES, trades) if len(trades) else None
        # The order of these three loops is the whole protocol.
        for channel, placed in ((QUOTES, placed_quotes), (TRADES, placed_trades)):
            if placed:
                self._claimed[channel][placed[0]] = placed[1]
        for channel, placed, records in (
            (QUOTES, placed_quotes, quotes),
            (TRADES, placed_trades, trades),
        ):
            if placed:
                self._slots[channel][placed[2]] = records.view(RECORD)
        for channel, placed in ((QUOTES, placed_quotes), (TRADES, placed_trades)):
            if placed:
                self._published[channel][placed[0]] = placed[1]
        self._published_g[0] = last_g

    def _place(self, channel: int, records: Records) -> tuple[Indices, Counters, Indices]:
        """Number the records; return the symbols touched, their last ``n``, and every record's slot."""
        symbols = records["symbol"]
        if len(records) == 1:  # a quiet feed's usual batch, at half the cost
            n = self._published[channel][symbols] + np.uint64(1)
            records["n"] = n
            slot = symbols.astype(np.int64) * self._depth + ((n.astype(np.int64) - 1) & self._mask)
            return symbols.astype(np.int64), n, slot
        order = np.argsort(symbols, kind="stable")  # radix sort, as symbols are u2
        by_symbol = symbols[order].astype(np.int64)
        starts = np.flatnonzero(np.concatenate(([True], by_symbol[1:] != by_symbol[:-1])))
        touched = by_symbol[starts]
        counts = np.diff(np.append(starts, len(records)))
        before = self._published[channel][touched].astype(np.int64)
        ns_sorted = np.arange(1, len(records) + 1) + np.repeat(before - starts, counts)
        ns = np.empty(len(records), np.int64)
        ns[order] = ns_sorted
        records["n"] = ns
        slots = symbols.astype(np.int64) * self._depth + ((ns - 1) & self._mask)
        return touched, (before + counts).astype(np.uint64), slots
