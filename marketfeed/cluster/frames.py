"""Frames that the origin of a shard sends to its mirrors. Bytes in, values out; no I/O.

A frame has a header of 64 bytes, little-endian, and a body. ``tests/cluster/test_frames.py`` pins every
offset.

    version u1 | kind u1 | flags u2 | quotes u4 | trades u4 | names u4 | term u8 | first_g u8 | last_g u8
    | sent_ns u8 | epoch S16

``names`` is the number of symbols of the origin when it made the frame. ``term`` and ``epoch`` identify the
origin. The other fields depend on the kind:

    kind      first_g .. last_g                body
    TICKS     first and last g                 ``quotes`` QUOTE records, then ``trades`` TRADE records, each
                                               in order of g; together exactly the range
    SYMBOLS   ids of the first and last name   24 bytes per name, ASCII, padded with NUL
    BEAT      head + 1 .. head                 none
    HANDOVER  F + 1 .. F                       none; F is the last g of this origin
    STATE     head + 1 .. head                 max_symbols u4, depth u4, chunks u4, 0 u4
    NEWEST    number of the chunk, head        records of the newest ticks, of each channel by symbol
    FIRSTS    ids of the first and last symbol i8 per symbol: time of its first tick, 0 = none

STATE, NEWEST and FIRSTS are parts of a state for a node that joins (cluster/state.py). An empty range
``head + 1 .. head`` says that ticks up to ``head`` exist.

Cost: a header takes about 3 µs to check, the records of a frame about 0.02 µs per tick
(perf/cluster_tee.py). Decoded records are read-only views of the frame.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from marketfeed.core.cursor import EPOCH
from marketfeed.core.records import DTYPES, QUOTES, RECORD, TRADES, Records, stamps_of
from marketfeed.core.symbols import MAX_NAME_BYTES, MAX_SYMBOLS, is_symbol
from marketfeed.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

VERSION: Final = 1
OLDEST_VERSION: Final = max(VERSION - 1, 1)  # nodes of two consecutive versions work together
HEADER: Final = struct.Struct("<BBHIIIQQQQ16s")
HEADER_BYTES: Final = HEADER.size
SIZES: Final = struct.Struct("<IIII")  # the body of STATE
MAX_TICKS: Final = 4096  # of one frame
MAX_EPOCH_BYTES: Final = 16
MAX_G: Final = 2**63 - 1  # positions are computed as int64
FLAG_REPAIR: Final = 1  # answers a request; does not show that the origin is alive
_FLAGS_AT: Final = 2
_FLAGS: Final = struct.Struct("<H")
_TERM_AT: Final = 16
_TERM: Final = struct.Struct("<Q")
_NAME: Final = np.dtype(f"S{MAX_NAME_BYTES}")

assert HEADER_BYTES == RECORD.itemsize == 64


class Kind(IntEnum):
    """What a frame holds."""

    TICKS = 1
    SYMBOLS = 2
    BEAT = 3
    HANDOVER = 4
    STATE = 5
    NEWEST = 6
    FIRSTS = 7


class Header(NamedTuple):
    """The fields of a header; ``first_g`` and ``last_g`` as the kind defines them."""

    kind: Kind
    term: int
    epoch: str
    first_g: int
    last_g: int
    names: int
    quotes: int = 0
    trades: int = 0
    sent_ns: int = 0  # Unix; for figures only
    flags: int = 0

    @property
    def is_repair(self) -> bool:
        """Return whether the frame answers a request, instead of being live."""
        return bool(self.flags & FLAG_REPAIR)


def ticks_per_frame(max_payload: int) -> int:
    """Return the most ticks of a frame of ``max_payload`` bytes; raises ValueError if none fits."""
    ticks = min(MAX_TICKS, (max_payload - HEADER_BYTES) // RECORD.itemsize)
    if ticks < 1:
        raise ValueError(f"max_payload must be at least {HEADER_BYTES + RECORD.itemsize}, not {max_payload}")
    return ticks


def encode(header: Header, body: Iterable[Any] = ()) -> bytes:
    """Return the frame of ``header`` and the buffers of ``body``, which are copied once.

    Raises ValueError for an epoch of other than 1 to 16 letters and digits.
    """
    epoch = header.epoch
    if len(epoch) > MAX_EPOCH_BYTES or not EPOCH.fullmatch(epoch):
        raise ValueError(f"the epoch of a frame must be 1 to 16 letters and digits, not {epoch[:40]!r}")
    packed = HEADER.pack(
        VERSION, header.kind, header.flags, header.quotes, header.trades, header.names, header.term,
        header.first_g, header.last_g, header.sent_ns, epoch.encode("ascii"),
    )  # fmt: skip
    return b"".join((packed, *body))


def as_repair(frame: bytes, term: int) -> bytes:
    """Return a copy of ``frame`` that is marked as the answer to a request, with the term of who answers.

    An epoch goes on under another term after a handover; mirrors of that term drop frames of earlier ones.
    """
    copy = bytearray(frame)
    _TERM.pack_into(copy, _TERM_AT, term)
    (flags,) = _FLAGS.unpack_from(copy, _FLAGS_AT)
    _FLAGS.pack_into(copy, _FLAGS_AT, flags | FLAG_REPAIR)
    return bytes(copy)


def symbols_frames(
    names: Sequence[str], start: int, term: int, epoch: str, max_payload: int, flags: int = 0
) -> Iterator[bytes]:
    """Yield frames of at most ``max_payload`` bytes with the names from id ``start`` on.

    ``names`` has the names of all ids from ``start`` to the newest one.
    """
    most = (max_payload - HEADER_BYTES) // MAX_NAME_BYTES
    if most < 1:
        raise ValueError(f"max_payload must be at least {HEADER_BYTES + MAX_NAME_BYTES}, not {max_payload}")
    count = start + len(names)
    for first in range(start, count, most):
        part = np.array(names[first - start : first - start + most], _NAME)
        last = first + len(part) - 1
        yield encode(Header(Kind.SYMBOLS, term, epoch, first, last, count, flags=flags), (part.tobytes(),))


def header_of(data: bytes) -> Header:
    """Return the header of a frame, checked against its length; raises FrameError.

    Does not look at the body: see :func:`ticks_of`, :func:`names_of` and :func:`newest_of`.
    """
    if len(data) < HEADER_BYTES:
        raise FrameError(f"a frame has at least {HEADER_BYTES} bytes, not {len(data)}")
    version, kind, flags, quotes, trades, names, term, first_g, last_g, sent_ns, epoch = HEADER.unpack_from(
        data
    )
    if not OLDEST_VERSION <= version <= VERSION:
        raise FrameError(f"frame of version {version}; this node reads {OLDEST_VERSION} to {VERSION}")
    if not Kind.TICKS <= kind <= Kind.FIRSTS:
        raise FrameError(f"frame of unknown kind {kind}")
    if flags & ~FLAG_REPAIR:
        raise FrameError(f"frame with unknown flags {flags:#x}")
    header = Header(
        Kind(kind), term, _epoch_of(epoch), first_g, last_g, names, quotes, trades, sent_ns, flags
    )
    _check_range(header)
    expected = HEADER_BYTES + _body_bytes(header)
    if len(data) != expected:
        raise FrameError(f"{header.kind.name} frame of {len(data)} bytes; its header says {expected}")
    return header


def _epoch_of(raw: bytes) -> str:
    epoch = raw.rstrip(b"\0").decode("latin-1")
    if not EPOCH.fullmatch(epoch):
        raise FrameError(f"frame with an invalid epoch: {raw!r}")
    return epoch


def _body_bytes(header: Header) -> int:
    if header.kind is Kind.SYMBOLS:
        return MAX_NAME_BYTES * (header.last_g - header.first_g + 1)
    if header.kind is Kind.FIRSTS:
        return 8 * (header.last_g - header.first_g + 1)
    if header.kind is Kind.STATE:
        return SIZES.size
    return RECORD.itemsize * (header.quotes + header.trades)


def _check_range(header: Header) -> None:
    """Raise FrameError if counts and range of the header do not match each other and the kind."""
    kind, first, last, names = header.kind, header.first_g, header.last_g, header.names
    ticks = header.quotes + header.trades
    if names > MAX_SYMBOLS:
        raise FrameError(f"frame of {names} names; at most {MAX_SYMBOLS} exist")
    if max(first, last) > MAX_G:
        raise FrameError(f"frame with g beyond {MAX_G}: {first} to {last}")
    if kind in (Kind.TICKS, Kind.NEWEST):
        if not 0 < ticks <= MAX_TICKS:
            raise FrameError(f"{kind.name} frame of {ticks} ticks; 1 to {MAX_TICKS} are allowed")
    elif kind is not Kind.STATE and ticks:
        raise FrameError(f"{kind.name} frame with ticks")
    if kind is Kind.TICKS:
        valid = first > 0 and last - first + 1 == ticks
    elif kind in (Kind.SYMBOLS, Kind.FIRSTS):
        valid = first <= last < names
    else:
        valid = kind is Kind.NEWEST or first == last + 1
    if not valid:
        raise FrameError(f"{kind.name} frame with an invalid range: {first} to {last}, {ticks} ticks")


def ticks_of(header: Header, data: bytes) -> tuple[Records, Records]:
    """Return quotes and trades of a TICKS frame, as views of ``data``; raises FrameError.

    Checks that the ``g`` of both ascend and are together exactly the range, and that ids are below ``names``.
    """
    quotes, trades = records = _records_of(header, data)
    first, last = header.first_g, header.last_g
    if len(quotes) and len(trades):
        # Unsigned: a g below the range wraps around, far beyond its end.
        at_quotes, at_trades = (stamps_of(part) - np.uint64(first) for part in records)
        exact = ascends(at_quotes) and ascends(at_trades)
        exact = exact and max(at_quotes[-1], at_trades[-1]) <= last - first
        if exact:
            taken = np.zeros(last - first + 1, bool)
            taken[at_quotes] = True
            exact = not taken[at_trades].any()
    else:
        stamps = stamps_of(quotes if len(quotes) else trades)
        exact = bool((stamps == np.arange(first, last + 1, dtype=np.uint64)).all())
    if not exact:
        raise FrameError(f"TICKS frame whose records are not the g {first} to {last} in order")
    return records


def newest_of(header: Header, data: bytes) -> tuple[Records, Records]:
    """Return quotes and trades of a NEWEST frame, as views of ``data``; raises FrameError.

    Checks that symbols of each channel ascend and are below ``names``, and that ``g`` is 1 to the head.
    """
    records = _records_of(header, data)
    for part in records:
        stamps = stamps_of(part)
        if len(part) and not (ascends(part["symbol"]) and stamps.min() > 0 and stamps.max() <= header.last_g):
            raise FrameError("NEWEST frame whose records are not in order of symbols, or beyond its head")
    return records


def _records_of(header: Header, data: bytes) -> tuple[Records, Records]:
    counts = header.quotes, header.trades
    offsets = HEADER_BYTES, HEADER_BYTES + RECORD.itemsize * header.quotes
    quotes, trades = (
        np.frombuffer(data, DTYPES[channel], counts[channel], offsets[channel])
        for channel in (QUOTES, TRADES)
    )
    for part in (quotes, trades):
        if len(part) and int(part["symbol"].max()) >= header.names:
            raise FrameError(f"{header.kind.name} frame with a symbol beyond its {header.names} names")
    return quotes, trades


def ascends(column: Any) -> bool:
    """Return whether every value of the array is above the one before."""
    return bool((column[1:] > column[:-1]).all())


def names_of(header: Header, data: bytes) -> list[str]:
    """Return the names of a SYMBOLS frame, in order of ids; raises FrameError."""
    raw = np.frombuffer(data, _NAME, header.last_g - header.first_g + 1, HEADER_BYTES)
    names = [name.decode("latin-1") for name in raw.tolist()]
    for name in names:
        if not is_symbol(name):
            raise FrameError(f"SYMBOLS frame with an invalid name: {name!r}")
    if len(set(names)) < len(names):
        raise FrameError("SYMBOLS frame with a name twice")
    return names
