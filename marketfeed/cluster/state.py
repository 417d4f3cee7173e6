"""The state of a shard for a node that joins, or that has missed ticks for good: answer and reader.

    Rings.latest at one head H ──► parts of at most max_payload bytes ──► StateReader ──► State ──► adopt

The parts are frames of cluster/frames.py, all with the same term and epoch, in this order: one STATE with the
sizes of the rings and the number of NEWEST parts; SYMBOLS with all names, unless there are none; FIRSTS with
the times of their first ticks; NEWEST with the newest tick of every symbol, at or before H. TICKS from the
log, after H, follow, so that a node whose live frames were lost need not ask for them.

Memory and time, for both sides: 128 bytes per symbol for the ticks, 32 for its name and time; 65,536 symbols
are 11 MB, in 11 parts of 1 MB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from marketfeed.cluster.frames import (
    HEADER_BYTES,
    MAX_G,
    SIZES,
    Header,
    Kind,
    as_repair,
    ascends,
    encode,
    names_of,
    newest_of,
    symbols_frames,
    ticks_per_frame,
)
from marketfeed.core.records import NO_QUOTES, NO_TRADES, QUOTES, TRADES, Records, stamps_of
from marketfeed.core.symbols import MAX_SYMBOLS
from marketfeed.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from marketfeed.cluster.frame_log import FrameLog
    from marketfeed.core.rings import Rings
    from marketfeed.core.symbols import SymbolTable

_ATTEMPTS: Final = 8  # to read the newest ticks before a busy writer overwrites one of them
_FIRST: Final = np.dtype("<i8")
_MAX_CHUNKS: Final = 2 * MAX_SYMBOLS  # NEWEST parts of one tick each


class Sizes(NamedTuple):
    """Sizes of rings; equal on all nodes of a shard."""

    max_symbols: int
    depth: int


class State(NamedTuple):
    """The newest tick of every symbol as of ``head``, and all names."""

    sizes: Sizes
    head: int
    names: list[str]  # by id
    first_ns: NDArray[np.int64]  # (k,) time of the first tick of each of the k names, 0 = none
    quotes: Records  # (q,) at most one of a symbol, by symbol
    trades: Records  # (t,)


def state_of(rings: Rings, symbols: SymbolTable) -> State | None:
    """Return the state of ``rings`` at their head; None if a writer was faster than this reader, repeatedly.

    Any number of ticks may be written meanwhile: those after the head are left out.
    """
    sizes = Sizes(rings.max_symbols, rings.depth)
    for _ in range(_ATTEMPTS):
        head = rings.head()
        symbols.learn()  # after the head: every tick up to the head has a name
        names = symbols.names()
        newest = [_newest(rings, channel, len(names), head) for channel in (QUOTES, TRADES)]
        quotes, trades = newest
        if quotes is not None and trades is not None:
            return State(sizes, head, names, rings.first_ns(len(names)), quotes, trades)
    return None


def _newest(rings: Rings, channel: int, count: int, head: int) -> Records | None:
    """Return the newest tick at or before ``head`` of the first ``count`` symbols; None if one was lost."""
    ids = np.arange(count)
    records, found = rings.latest(channel, ids, head)
    without = ids[(found == 0) & (rings.published(channel, count) > 0)]
    # Either all ticks of the symbol are after the head, or the one before was overwritten.
    if len(without) and rings.position(channel, without, head).any():
        return None
    return records


def state_parts(state: State, log: FrameLog, *, term: int, epoch: str, max_payload: int) -> Iterator[bytes]:
    """Yield the parts of ``state``, then the frames of ``log`` after its head, one message each.

    The frames are those that the log holds when the last part of the state is taken.
    """
    names, head = len(state.names), state.head
    step = ticks_per_frame(max_payload)
    pieces = _pieces(state.quotes, state.trades, step)
    sizes = SIZES.pack(*state.sizes, len(pieces), 0)
    yield encode(Header(Kind.STATE, term, epoch, head + 1, head, names), (sizes,))
    yield from symbols_frames(state.names, 0, term, epoch, max_payload)
    step = (max_payload - HEADER_BYTES) // _FIRST.itemsize
    for first in range(0, names, step):
        part = state.first_ns[first : first + step].astype(_FIRST)
        header = Header(Kind.FIRSTS, term, epoch, first, first + len(part) - 1, names)
        yield encode(header, (part.tobytes(),))
    for number, (quotes, trades) in enumerate(pieces):
        header = Header(Kind.NEWEST, term, epoch, number, head, names, len(quotes), len(trades))
        yield encode(header, (quotes.tobytes(), trades.tobytes()))
    found = log.between(head + 1, MAX_G)
    for frame in found.frames if found is not None else ():
        yield as_repair(frame, term)


def _pieces(quotes: Records, trades: Records, step: int) -> list[tuple[Records, Records]]:
    """Return pieces of at most ``step`` ticks, views, each of one channel."""
    return [
        *((quotes[at : at + step], NO_TRADES) for at in range(0, len(quotes), step)),
        *((NO_QUOTES, trades[at : at + step]) for at in range(0, len(trades), step)),
    ]


class StateReader:
    """Reads the parts of one state in order, and checks that they are complete and belong together."""

    def __init__(self) -> None:
        self.sizes: Sizes | None = None  # known after the first part
        self._begin: Header | None = None
        self._chunks = 0
        self._names: list[str] = []
        self._firsts: list[NDArray[np.int64]] = []
        self._timed = 0  # symbols with a time
        self._newest: list[tuple[Records, Records]] = []
        self._ticks = 0  # in them

    def feed(self, header: Header, data: bytes) -> State | None:
        """Take a part with its ``header``, which is checked; return the state after the last part.

        Keeps ``data``. Raises FrameError if a part is damaged, missing or of another state; the state must
        then be fetched again.
        """
        if self._begin is None:
            self._open(header, data)
            return self._complete(header)
        begin = self._begin
        if (header.term, header.epoch, header.names) != (begin.term, begin.epoch, begin.names):
            raise FrameError("part of another state")
        if header.kind is Kind.SYMBOLS:
            self._expect(header.first_g, len(self._names))
            self._names += names_of(header, data)
        elif header.kind is Kind.FIRSTS:
            self._expect(header.first_g, self._timed)
            self._firsts.append(np.frombuffer(data, _FIRST, offset=HEADER_BYTES))
            self._timed += len(self._firsts[-1])
        elif header.kind is Kind.NEWEST and header.last_g == begin.last_g:
            self._expect(header.first_g, len(self._newest))
            self._ticks += header.quotes + header.trades
            if self._ticks > 2 * begin.names:
                raise FrameError(f"state of {self._ticks} newest ticks of {begin.names} symbols")
            self._newest.append(newest_of(header, data))
        else:
            raise FrameError(f"{header.kind.name} frame within a state")
        return self._complete(begin)

    def _open(self, header: Header, data: bytes) -> None:
        if header.kind is not Kind.STATE:
            raise FrameError(f"a state begins with a STATE frame, not with {header.kind.name}")
        max_symbols, depth, chunks, _ = SIZES.unpack_from(data, HEADER_BYTES)
        if header.names > max_symbols or chunks > _MAX_CHUNKS:
            raise FrameError(f"state of {header.names} names in rings of {max_symbols}, in {chunks} parts")
        self.sizes = Sizes(max_symbols, depth)
        self._begin, self._chunks = header, chunks

    def _expect(self, number: int, expected: int) -> None:
        if number != expected:
            raise FrameError(f"a part of the state is missing: {expected} was expected, not {number}")

    def _complete(self, begin: Header) -> State | None:
        """Return the state if all parts are there; raises FrameError if they contradict each other."""
        if not len(self._names) == self._timed == begin.names or len(self._newest) < self._chunks:
            return None
        assert self.sizes is not None
        if len(set(self._names)) < len(self._names):
            raise FrameError("state with a name twice")
        quotes = np.concatenate([NO_QUOTES, *(quotes for quotes, _ in self._newest)])
        trades = np.concatenate([NO_TRADES, *(trades for _, trades in self._newest)])
        if not (ascends(quotes["symbol"]) and ascends(trades["symbol"])):
            raise FrameError("state with two newest ticks of one symbol")
        stamps = np.concatenate([stamps_of(quotes), stamps_of(trades)])
        if len(np.unique(stamps)) < len(stamps):
            raise FrameError("state with two ticks of one g")
        firsts = np.concatenate([np.empty(0, _FIRST), *self._firsts])
        return State(self.sizes, begin.last_g, self._names, firsts, quotes, trades)
