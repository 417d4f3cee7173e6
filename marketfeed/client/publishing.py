"""A publisher's stream to a ``push`` feed: ticks in, bytes out, over many connections. No I/O, no clock.

    quotes, trades ──► checked ──► frames that wait ──► handed to the kernel ──► known to be published
                                        ▲                      │
                                        └── lost in its midst ─┴─ a cut ──► counted as in doubt

The protocol of push has no acknowledgements. What was handed over and is not known to be published is *in
doubt* after a cut: it may have arrived. It is counted, and not sent again. A frame of which only a part was
handed over is sent again, as the engine drops incomplete ones.

Records are checked before they are taken, because the engine closes the connection of a publisher that sends
an invalid one, and leaves out ticks with invalid sizes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from marketfeed.core.binary import HEADER, Kind, heartbeat_frame, quotes_frame, symbols_frame, trades_frame
from marketfeed.core.counts import amount
from marketfeed.core.details import details_fault
from marketfeed.core.records import QUOTE, SIDES, TRADE
from marketfeed.core.symbols import MAX_SYMBOLS, SYMBOL_WORDS, is_symbol
from marketfeed.errors import MarketfeedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from marketfeed.core.records import Records

BUFFER_BYTES: Final = 4 << 20  # 65,536 ticks
FRAME_TICKS: Final = 4096  # of one frame; the engine's turn for one publisher
MOST_CHUNKS: Final = 64  # of one send
_VALID_SIDES: Final = np.zeros(256, bool)
_VALID_SIDES[[0, *SIDES]] = True  # 0: unknown
_SIZES: Final = {Kind.QUOTES: ("bid_sz", "ask_sz"), Kind.TRADES: ("size",)}
_FRAMES: Final = {Kind.QUOTES: quotes_frame, Kind.TRADES: trades_frame}
_DTYPES: Final = {Kind.QUOTES: QUOTE, Kind.TRADES: TRADE}


class PublisherFullError(MarketfeedError):
    """The buffer of a publisher has no room: wait with ``drain()``, or ``discard()`` what is in it.

    Nothing of the call was taken.
    """


@dataclass(frozen=True, slots=True)
class Cut:
    """The end of a connection that the publisher did not want."""

    reason: str
    in_doubt: int  # ticks that were handed over and may be lost: at most so many are
    waiting: int  # ticks that are sent over the next connection

    def __str__(self) -> str:
        """Return it as one line."""
        kept = f", {amount(self.waiting, 'ticks')} not sent yet" if self.waiting else ""
        lost = f"at most {amount(self.in_doubt, 'ticks')} lost" if self.in_doubt else "no tick lost"
        return f"{self.reason}: {lost}{kept}"


class _Waiting(NamedTuple):
    """A frame, and how many ticks it holds: 0 for announcements and heartbeats."""

    data: bytes
    ticks: int


class Publishing:
    """State of a publisher. Prices are in units of 1e-9, times in ns since the Unix epoch.

    ``taken`` = ``handed`` + ``waiting`` + ``discarded``, in ticks. ``in_doubt`` counts those of all cuts.
    """

    def __init__(self, buffer_bytes: int = BUFFER_BYTES) -> None:
        self.names: dict[str, int] = {}
        self.taken = {Kind.QUOTES: 0, Kind.TRADES: 0}
        self.handed = self.waiting = self.discarded = self.in_doubt = 0
        self.waiting_bytes = 0  # of frames with ticks
        self.handed_bytes = 0  # of this connection
        self._buffer_bytes = buffer_bytes
        self._ids = bytearray(MAX_SYMBOLS)  # 1 for each id that has a name
        self._named = np.frombuffer(self._ids, bool)  # the same bytes
        self._next = 0  # where the search for a free id begins
        self._queue: deque[_Waiting] = deque()
        self._offset = 0  # bytes of the first frame that were handed over
        self._flight: deque[tuple[int, int]] = deque()  # end in this connection's bytes, and ticks
        self._connected = False
        self._kernel_bytes = 0

    # Symbols.

    def announce(self, names: Mapping[str, int] | Iterable[str], now_ns: int) -> NDArray[np.uint16]:
        """Give each of ``names`` its id, or without ids a free one; return the ids, in order.

        A name and an id belong together from then on: ValueError for others.
        """
        wanted = names if isinstance(names, Mapping) else dict.fromkeys(names)
        new: dict[str, int] = {}
        try:
            for name, number in wanted.items():
                if name not in self.names or number not in (None, self.names[name]):
                    new[name] = self._reserved(name, number)
        except ValueError:
            self._named[list(new.values())] = False
            self._next = 0
            raise
        if new:
            self.names |= new
            if self._connected:
                self._queue.append(_Waiting(symbols_frame(new, now_ns), 0))
        return np.array([self.names[name] for name in wanted], np.uint16)

    def _reserved(self, name: str, number: int | None) -> int:
        """Mark ``number``, or a free id, as that of ``name``, and return it; raises ValueError."""
        if name in self.names:
            raise ValueError(f"{name} has the id {self.names[name]} already, not {number}")
        if not isinstance(name, str) or not is_symbol(name):
            raise ValueError(f"not a symbol: {str(name)[:40]!r}; it has {SYMBOL_WORDS}")
        if number is None:
            number = self._ids.find(0, self._next)
            if number < 0:
                raise ValueError(f"{name}: no id is free, {MAX_SYMBOLS} symbols have one")
            self._next = number
        if not 0 <= number < MAX_SYMBOLS:
            raise ValueError(f"the id of {name} must be 0 to {MAX_SYMBOLS - 1}, not {number}")
        if self._named[number]:
            raise ValueError(f"the id {number} of {name} is that of another symbol")
        self._named[number] = True
        return int(number)

    # Ticks.

    def quotes(self, records: Records, now_ns: int) -> None:
        """Take QUOTE records, shape ``(k,)``; copies them. Raises ValueError and PublisherFullError."""
        self._take(Kind.QUOTES, records, now_ns)

    def trades(self, records: Records, now_ns: int) -> None:
        """Take TRADE records, shape ``(k,)``; copies them. Raises ValueError and PublisherFullError."""
        self._take(Kind.TRADES, records, now_ns)

    def _take(self, kind: Kind, records: Records, now_ns: int) -> None:
        records = np.atleast_1d(records)
        self._check(kind, records)
        parts = [records[start : start + FRAME_TICKS] for start in range(0, len(records), FRAME_TICKS)]
        size = records.nbytes + HEADER.size * len(parts)
        if self.waiting and self.waiting_bytes + size > self._buffer_bytes:
            raise PublisherFullError(
                f"the buffer has no room for {amount(len(records), 'ticks')}: "
                f"{amount(self.waiting, 'ticks')} of {self.waiting_bytes:,} bytes wait in it"
            )
        self._queue.extend(_Waiting(_FRAMES[kind](part, now_ns), len(part)) for part in parts)
        self.taken[kind] += len(records)
        self.waiting += len(records)
        self.waiting_bytes += size

    def _check(self, kind: Kind, records: Records) -> None:
        """Raise ValueError for records that the engine would not take."""
        what, dtype = kind.name.lower(), _DTYPES[kind]
        if records.dtype != dtype or records.ndim != 1:
            raise ValueError(
                f"{what} must be an array of marketfeed.{kind.name[:-1]}, shape (k,), "
                f"not of {records.dtype} with shape {records.shape}"
            )
        if not len(records):
            return
        symbols = records["symbol"]
        named = self._named.take(symbols)
        if not named.all():
            raise ValueError(f"{what} use the id {symbols[~named][0]}, which has no name: announce it first")
        for size in _SIZES[kind]:
            column = records[size]
            valid = (column >= 0) & (column < np.inf)  # NaN fails both
            if not valid.all():
                raise ValueError(f"{size} must be finite and at least 0, not {column[~valid][0]}")
        if kind is Kind.TRADES:
            if not _VALID_SIDES.take(records["side"]).all():
                raise ValueError("trades have a side that is not b, s or -")
            fault = details_fault(records)
            if fault is not None:
                raise ValueError(f"trades have {fault}")

    def discard(self) -> int:
        """Drop what waits; return how many ticks. A frame that was handed over in part stays."""
        begun = self._queue.popleft() if self._offset else None
        dropped = sum(frame.ticks for frame in self._queue)
        self.waiting_bytes -= sum(len(frame.data) for frame in self._queue if frame.ticks)
        self._queue = deque(frame for frame in self._queue if not frame.ticks)
        if begun is not None:
            self._queue.appendleft(begun)
        self.waiting -= dropped
        self.discarded += dropped
        return dropped

    # The connection.

    @property
    def pending(self) -> bool:
        """Whether there is anything to send."""
        return bool(self._queue)

    def connected(self, kernel_bytes: int, now_ns: int) -> None:
        """Begin a connection, on which up to ``kernel_bytes`` can be handed over and not be published."""
        self._connected = True
        self._kernel_bytes = kernel_bytes
        self.handed_bytes = 0
        if self.names:
            self._queue.appendleft(_Waiting(symbols_frame(self.names, now_ns), 0))

    def chunks(self) -> list[memoryview]:
        """Return the next bytes to send, in parts."""
        parts = [memoryview(frame.data) for frame, _ in zip(self._queue, range(MOST_CHUNKS), strict=False)]
        if parts:
            parts[0] = parts[0][self._offset :]
        return parts

    def hand_over(self, size: int) -> None:
        """Note that the kernel took the next ``size`` bytes."""
        self.handed_bytes += size
        self._offset += size
        end = self.handed_bytes - self._offset
        while self._queue and self._offset >= len(self._queue[0].data):
            data, ticks = self._queue.popleft()
            self._offset -= len(data)
            end += len(data)
            if ticks:
                self.waiting_bytes -= len(data)
                self.waiting -= ticks
                self.handed += ticks
                self._flight.append((end, ticks))
        # The kernel took these bytes, so it has passed on what exceeds its buffers.
        self.confirm(self.handed_bytes - self._kernel_bytes)

    def confirm(self, upto_bytes: int) -> None:
        """Note that the engine has published the first ``upto_bytes`` of this connection."""
        while self._flight and self._flight[0][0] <= upto_bytes:
            self._flight.popleft()

    @property
    def in_flight(self) -> int:
        """Ticks that were handed over on this connection and are not known to be published."""
        return sum(ticks for _, ticks in self._flight)

    def heartbeat(self, now_ns: int) -> None:
        """Send a heartbeat, unless something else waits."""
        if not self._queue:
            self._queue.append(_Waiting(heartbeat_frame(now_ns), 0))

    def cut(self, reason: str) -> Cut:
        """End a connection."""
        cut = Cut(reason, self.in_flight, self.waiting)
        self.in_doubt += cut.in_doubt
        self._flight.clear()
        self._offset = 0
        self._connected = False
        self._queue = deque(frame for frame in self._queue if frame.ticks)
        return cut
