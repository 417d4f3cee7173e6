"""The rings for a few ticks at a time, in Python integers instead of arrays.

A call of numpy costs as much for one tick as for a hundred, and several times as much in a quiet process,
whose code and data have left the caches. So up to FEW ticks are written and read one by one. Writer and
reader follow the protocol of core/rings.py to the letter; tests/core/test_few.py compares both with
core/writer.py and ``Rings.between``. Cost: perf/quiet.py.
"""

from __future__ import annotations

import struct
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from marketfeed.core.records import DTYPES, QUOTE, QUOTES, RECORD, TRADE, TRADES, Batch
from marketfeed.core.sequence import CHANNEL_SHIFT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from marketfeed.core.layout import View

FEW: Final = 8  # ticks, up to which integers cost less than arrays

BYTES: Final = RECORD.itemsize
# By channel. Of both: ts_event, ts_recv, g first, and n, symbol, feed, flags last; of quotes bid_px, ask_px,
# bid_sz, ask_sz between; of trades price, trade_id, size and the eight bytes of core/details.py.
FIELDS: Final = (struct.Struct("<qqQqqddIHBB"), struct.Struct("<qqQqQdQIHBB"))
_G_AT: Final = QUOTE.fields["g"][1]  # type: ignore[index]
_N_AT: Final = QUOTE.fields["n"][1]  # type: ignore[index]
FEED_AT: Final = QUOTE.fields["feed"][1]  # type: ignore[index]
_SYMBOL_AT: Final = QUOTE.fields["symbol"][1]  # type: ignore[index]
_G: Final = struct.Struct("<Q")
_SYMBOL: Final = struct.Struct("<H")
_N: Final = struct.Struct("<I")
_U4: Final = 2**32 - 1

assert all(fields.size == BYTES for fields in FIELDS)
assert all(TRADE.fields[name][1] == QUOTE.fields[name][1] for name in ("g", "n", "symbol", "feed"))  # type: ignore[index]


class Tick(NamedTuple):
    """One tick that was read from the rings."""

    channel: int
    symbol: int
    n: int  # not modulo 2**32
    fields: tuple[Any, ...]  # of the record, as FIELDS of the channel orders them
    record: bytes


def scalars(array: NDArray[Any]) -> memoryview:
    """Return a view of a one-dimensional array whose items are Python numbers."""
    return array.data


def few_of(batch: Batch) -> list[tuple[int, bytearray]]:
    """Return channel and record of each tick of ``batch``, in order; copies."""
    if len(batch) == 1:  # the usual batch of a quiet feed
        return [
            (TRADES, bytearray(batch.trades.tobytes()))
            if len(batch.trades)
            else (QUOTES, bytearray(batch.quotes.tobytes()))
        ]
    found = [
        (channel, bytearray(raw[at : at + BYTES]))
        for channel, records in enumerate((batch.quotes, batch.trades))
        if len(records)
        for raw in (records.tobytes(),)
        for at in range(0, len(raw), BYTES)
    ]
    if batch.channels is None or len(batch.quotes) == 0 or len(batch.trades) == 0:
        return found
    quotes, trades = iter(found[: len(batch.quotes)]), iter(found[len(batch.quotes) :])
    # As in Batch, everything else is a quote.
    return [next(trades if channel == TRADES else quotes) for channel in batch.channels.tolist()]


def batch_of(few: list[tuple[int, bytearray]]) -> Batch:
    """Return the batch of these ticks: what :func:`few_of` takes apart."""
    quotes, trades = (
        np.frombuffer(b"".join(record for kind, record in few if kind == channel), dtype).copy()
        for channel, dtype in enumerate(DTYPES)
    )
    return Batch(quotes, trades, np.array([channel for channel, _ in few], np.uint8))


_Placed = tuple[int, int, int, int, bytearray]  # channel, symbol, n, slot, record
_new = tuple.__new__  # a NamedTuple's own is Python code


class FewWriter:
    """The writer's side. At most one of it and of :class:`RingWriter` writes at a time."""

    def __init__(self, view: View) -> None:
        self.claimed = [scalars(counts) for counts in view.claimed]
        self.published = [scalars(counts) for counts in view.published]
        self.records = [scalars(slots.view(np.uint8)) for slots in view.slots]
        self.first_ns = scalars(view.first_ns)
        self.sequence = scalars(view.sequence)
        self._mask = view.depth - 1
        self._depth = view.depth
        self._entries = len(view.sequence) - 1

    def place(self, few: list[tuple[int, bytearray]], first_g: int) -> list[_Placed]:
        """Set ``g`` and ``n`` of up to FEW ticks, and return their places, in order.

        Raises IndexError for a symbol id out of range.
        """
        placed: list[_Placed] = []
        for g, (channel, record) in enumerate(few, first_g):
            (symbol,) = _SYMBOL.unpack_from(record, _SYMBOL_AT)
            n = self.published[channel][symbol] + 1
            for other in placed:
                n += other[0] == channel and other[1] == symbol
            _G.pack_into(record, _G_AT, g)
            _N.pack_into(record, _N_AT, n & _U4)
            slot = symbol * self._depth + ((n - 1) & self._mask)
            placed.append((channel, symbol, n, slot, record))
        return placed

    def store(self, placed: list[_Placed], first_g: int) -> None:
        """Store the ticks, all but ``published_g``; the order of the loops is the protocol."""
        if 1 in [place[2] for place in placed]:
            self._note_first(placed)
        for channel, symbol, n, _, _ in placed:
            self.claimed[channel][symbol] = n
        for channel, _, _, slot, record in placed:
            self.records[channel][slot * BYTES : (slot + 1) * BYTES] = record
        for g, (channel, symbol, n, slot, _) in enumerate(placed, first_g):
            self.sequence[g & self._entries] = slot | channel << CHANNEL_SHIFT
            self.published[channel][symbol] = n

    def _note_first(self, placed: list[_Placed]) -> None:
        """Record the times of the first ticks of symbols, of quotes first, as for arrays."""
        for channel, symbol, n, _, record in sorted(placed, key=itemgetter(0)):
            if n == 1 and not self.first_ns[symbol]:
                self.first_ns[symbol] = FIELDS[channel].unpack(record)[1]


class FewReader:
    """The readers' side."""

    def __init__(self, view: View) -> None:
        self._claimed = [scalars(counts) for counts in view.claimed]
        self._published = [scalars(counts) for counts in view.published]
        self._base = [scalars(counts) for counts in view.base]
        self._records = [scalars(slots.view(np.uint8)) for slots in view.slots]
        self._sequence = scalars(view.sequence)
        self._entries = len(view.sequence) - 1
        self._depth = view.depth
        self._max_symbols = view.max_symbols

    def between(self, after: int, head: int) -> list[Tick] | None:
        """Return the ticks ``after < g <= head``, at most FEW, in order; None if some are overwritten.

        ``head`` is at most a value that ``Rings.head`` has returned.
        """
        found: list[Tick] = []
        for g in range(after + 1, head + 1):
            entry = self._sequence[g & self._entries]
            channel = entry >> CHANNEL_SHIFT
            slot = entry & ((1 << CHANNEL_SHIFT) - 1)
            record = bytes(self._records[channel][slot * BYTES : (slot + 1) * BYTES])
            fields = FIELDS[channel].unpack(record)
            n, symbol = fields[7], fields[8]
            if fields[2] != g or symbol >= self._max_symbols:
                return None
            # Loaded after the copy: the writer may have written this slot meanwhile.
            claimed = self._claimed[channel][symbol]
            behind = (claimed - n) & _U4
            if behind >= self._depth:
                return None
            found.append(_new(Tick, (channel, symbol, claimed - behind, fields, record)))
        return found

    def tick(self, channel: int, symbol: int, n: int, head: int) -> Tick | None:
        """Return tick ``n`` of ``symbol``; None if it is overwritten, in a hole, or above ``head``."""
        slot = symbol * self._depth + ((n - 1) & (self._depth - 1))
        record = bytes(self._records[channel][slot * BYTES : (slot + 1) * BYTES])
        fields = FIELDS[channel].unpack(record)
        # Loaded after the copy, as in `between`.
        gone = n <= max(self._claimed[channel][symbol] - self._depth, self._base[channel][symbol])
        if gone or fields[2] > head or fields[7] != n & _U4 or fields[8] != symbol:
            return None
        return Tick(channel, symbol, n, fields, record)

    def position(self, channel: int, symbol: int, g: int) -> int:
        """Return what ``Rings.position`` returns for ``symbol``; faster the nearer ``g`` is to the head."""
        claimed, base, records = self._claimed[channel], self._base[channel], self._records[channel]
        low = max(claimed[symbol] - self._depth, base[symbol])
        high = self._published[channel][symbol]
        low = min(low, high)
        step, found = 0, False  # back from the newest tick in steps that double, then by bisection
        while low < high:
            middle = (low + high + 1) >> 1 if found else max(high - step, low + 1)
            slot = symbol * self._depth + ((middle - 1) & (self._depth - 1))
            (stamp,) = _G.unpack_from(records, slot * BYTES + _G_AT)
            # Loaded after the stamp: a slot that was overwritten meanwhile holds the stamp of a newer tick.
            if stamp <= g or middle <= max(claimed[symbol] - self._depth, base[symbol]):
                low, found = middle, True
            else:
                high, step = middle - 1, 2 * step + 1
        return low
