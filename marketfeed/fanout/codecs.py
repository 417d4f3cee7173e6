"""Codecs: encode ticks as fragments, each tick once per codec.

JSON is written by columns. orjson serialises a whole column; each comma in the text is replaced by the key
that follows the value. The text is split, and the parts are joined row by row behind the constant head of the
symbol. No Python code runs per tick. About 0.4 µs per quote, a seventh of the cost of a dict per quote. A
binary fragment is the record's 64 bytes, which numpy copies in 11 ns per tick. Conditions of trades cost time
only in calls where a trade has some.
"""

from __future__ import annotations

from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np
import orjson

from marketfeed.core.details import details_of
from marketfeed.core.fixed import SCALE, floats_from_prices
from marketfeed.core.records import FLAG_SNAPSHOT, FLAG_STALE, QUOTES, RECORD, Records

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from marketfeed.core.few import Tick
    from marketfeed.core.rings import Indices, Rings
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.fanout.wire import CodecName

_QUOTE_HEAD: Final = b'{"T":"q","S":"%b","bp":'
_TRADE_HEAD: Final = b'{"T":"t","S":"%b","p":'
_SIDES: Final = [b'%c","i":' % side for side in range(256)]
MAX_CONDITIONS: Final = 4096  # combinations whose text is cached; venues use a few dozen
_SCALE: Final = float(SCALE)
_SNAP: Final = b',"snap":1}'
MAX_WHOLE: Final = 1e15  # below it, the text of a whole double is its digits and ".0"
FEW: Final = 64  # records, for which the special cases cost more than they save
LEAST_RUN: Final = 4  # consecutive ticks with equal times, on average
CHUNK: Final = 1024  # records per pass: intermediate results stay in the cache, which saves a third


def _column(values: NDArray[Any], then: bytes) -> list[bytes]:
    """Return the JSON text of each value of a one-dimensional array, each followed by ``then``."""
    text = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
    return (text.replace(b",", then + b"\0") + then).split(b"\0")


def _side_prices(prices: NDArray[np.int64], sizes: NDArray[np.float64], then: bytes) -> list[bytes]:
    """Return the JSON text of the prices of one side of quotes: ``null`` where there is no size."""
    floats = floats_from_prices(prices)
    if np.count_nonzero(sizes) < len(sizes):
        floats[sizes == 0] = np.nan  # orjson writes null
    return _column(floats, then)


def _sizes(values: NDArray[np.float64], then: bytes) -> list[bytes]:
    """Return the JSON text of sizes, each followed by ``then``; whole sizes, the usual case, cost half."""
    if len(values) < FEW or not values.max() < MAX_WHOLE:
        return _column(values, then)
    whole = values.astype(np.int64)
    return _column(whole, b".0" + then) if (whole == values).all() else _column(values, then)


def _times(records: Records) -> tuple[Iterable[bytes], ...]:
    """Return the text of both times, up to the key of ``n``.

    Ticks that arrived together have equal times, which are serialised once.
    """
    event, received = records["ts_event"] // 1000, records["ts_recv"] // 1000
    if len(records) >= FEW:
        changes = event[1:] != event[:-1]
        changes |= received[1:] != received[:-1]
        starts = np.concatenate(([0], np.flatnonzero(changes) + 1))
        if len(starts) * LEAST_RUN <= len(records):
            both = map(bytes.__add__, _column(event[starts], b',"r":'), _column(received[starts], b',"n":'))
            return (chain.from_iterable(map(repeat, both, np.diff(starts, append=len(records)).tolist())),)
    return _column(event, b',"r":'), _column(received, b',"n":')


def gap_fragment(name: str, channel: str, lost: int, next_n: int) -> bytes:
    """Return the `gap` message: ``lost`` ticks before ``next_n`` were overwritten before they were read."""
    return b'{"T":"gap","S":"%b","channel":"%b","lost":%d,"n":%d}' % (
        name.encode("ascii"),
        channel.encode("ascii"),
        lost,
        next_n,
    )


class Latest(NamedTuple):
    """The newest ticks of k symbols, encoded; m of the symbols have one."""

    held: NDArray[np.bool_]  # (k,) whether the symbol has one
    fragments: list[bytes]  # m
    ns: Indices  # (m,)
    gs: NDArray[np.uint64]  # (m,)
    times: NDArray[np.int64]  # (2, m) ts_event and ts_recv


class Codec(Protocol):
    """Encodes each record as one fragment."""

    @property
    def name(self) -> CodecName:
        """Return the name of the codec."""
        ...

    def fragments(self, channel: int, records: Records) -> list[bytes]:
        """Return one fragment per record, shape ``(k,)`` of QUOTE or TRADE, in the same order."""
        ...

    def fragment(self, tick: Tick) -> bytes:
        """Return the fragment of one tick, as :meth:`fragments` does for many."""
        ...

    def as_snapshot(self, fragment: bytes, stale: bool = False) -> bytes:
        """Return ``fragment`` marked as a snapshot; ``stale``: it may be out of date."""
        ...


class _Conditions(dict[int, bytes]):
    """Ends of the objects of trades, by conditions: four letters as a little-endian integer."""

    def __missing__(self, code: int) -> bytes:
        letters = [chr(letter) for letter in code.to_bytes(4, "little") if letter]
        text = b',"c":%b}' % orjson.dumps(letters) if letters else b"}"
        if len(self) < MAX_CONDITIONS:
            self[code] = text
        return text


class JsonCodec:
    """A JSON object per record."""

    name: Final = "json"

    def __init__(self, symbols: SymbolTable) -> None:
        self._symbols = symbols
        self._heads: tuple[list[bytes], list[bytes]] = ([], [])
        self._conditions = _Conditions()

    def fragments(self, channel: int, records: Records) -> list[bytes]:
        """Return one JSON object per record, in the same order."""
        if len(records) > CHUNK:
            return [
                fragment
                for start in range(0, len(records), CHUNK)
                for fragment in self.fragments(channel, records[start : start + CHUNK])
            ]
        if not len(records):
            return []
        heads = self._heads_upto(channel, len(self._symbols))
        symbols = records["symbol"].tolist()
        ends: tuple[list[bytes], ...] = ()
        if channel == QUOTES:
            bid_sz, ask_sz = records["bid_sz"], records["ask_sz"]
            own = (
                _side_prices(records["bid_px"], bid_sz, b',"bs":'),
                _sizes(bid_sz, b',"ap":'),
                _side_prices(records["ask_px"], ask_sz, b',"as":'),
                _sizes(ask_sz, b',"t":'),
            )
        else:
            details = details_of(records)
            try:
                sides = [_SIDES[side] for side in details.tolist()]
            except IndexError:  # some trades have conditions; a check beforehand would slow down the others
                sides = [_SIDES[side] for side in (details & 0xFF).tolist()]
                codes = details >> 16 & 0xFFFF_FFFF
                ends = ([self._conditions[code] for code in codes.tolist()],)
            own = (
                _column(floats_from_prices(records["price"]), b',"s":'),
                _sizes(records["size"], b',"d":"'),
                sides,
                _column(records["trade_id"], b',"t":'),
            )
        pieces = zip(
            [heads[symbol] for symbol in symbols],
            *own,
            *_times(records),
            _column(records["n"], b',"g":'),
            _column(records["g"], b"" if ends else b"}"),
            *ends,
            strict=True,
        )
        return list(map(b"".join, pieces))

    def fragment(self, tick: Tick) -> bytes:
        """Return the JSON object of one tick."""
        heads = self._heads[tick.channel]
        if tick.symbol >= len(heads):
            heads = self._heads_upto(tick.channel, len(self._symbols))
        head = heads[tick.symbol]
        event, received, g, *own, n, _, _, _ = tick.fields
        if tick.channel == QUOTES:
            bid_px, ask_px, bid_sz, ask_sz = own
            bid, bids, ask, asks = orjson.dumps(
                (bid_px / _SCALE if bid_sz else None, bid_sz, ask_px / _SCALE if ask_sz else None, ask_sz)
            )[1:-1].split(b",")
            middle = b'%b,"bs":%b,"ap":%b,"as":%b' % (bid, bids, ask, asks)
            end = b"}"
        else:
            price, trade_id, size, details = own
            text, amount = orjson.dumps((price / _SCALE, size))[1:-1].split(b",")
            middle = b'%b,"s":%b,"d":"%b%d' % (text, amount, _SIDES[details & 0xFF], trade_id)
            end = self._conditions[details >> 16 & 0xFFFF_FFFF] if details > 0xFF else b"}"
        return b'%b%b,"t":%d,"r":%d,"n":%d,"g":%d%b' % (
            head, middle, event // 1000, received // 1000, n, g, end,
        )  # fmt: skip

    def as_snapshot(self, fragment: bytes, stale: bool = False) -> bytes:
        """Return the object with ``"snap":1``; that it is stale is said by a `source` message alone."""
        return fragment[:-1] + _SNAP

    def _heads_upto(self, channel: int, count: int) -> list[bytes]:
        heads = self._heads[channel]
        if len(heads) < count:
            text = _QUOTE_HEAD if channel == QUOTES else _TRADE_HEAD
            heads.extend(text % name.encode("ascii") for name in self._symbols.names(len(heads)))
        return heads


class BinaryCodec:
    """Fragments are the records themselves."""

    name: Final = "binary"

    def fragments(self, channel: int, records: Records) -> list[bytes]:
        """Return the bytes of each record."""
        whole: list[bytes] = np.ascontiguousarray(records).view(RECORD).tolist()
        return whole

    def fragment(self, tick: Tick) -> bytes:
        """Return the record."""
        return tick.record

    def as_snapshot(self, fragment: bytes, stale: bool = False) -> bytes:
        """Return the record with FLAG_SNAPSHOT, and FLAG_STALE, set; the flags are its last byte."""
        return fragment[:-1] + bytes((fragment[-1] | FLAG_SNAPSHOT | FLAG_STALE * stale,))


class Encoder:
    """A codec and a cache of the newest fragment of each symbol, for slower tiers."""

    def __init__(self, rings: Rings, codec: Codec) -> None:
        self._rings = rings
        self.codec = codec
        self.fragments = codec.fragments
        self.fragment = codec.fragment
        self.shared = False  # whether a lane takes the latest per symbol, so that the cache is used
        size = rings.max_symbols
        self._kept = (np.full(size, None, object), np.full(size, None, object))
        self._kept_n = (np.zeros(size, np.int64), np.zeros(size, np.int64))
        self._kept_g = (np.zeros(size, np.uint64), np.zeros(size, np.uint64))
        self._kept_times = (np.zeros((2, size), np.int64), np.zeros((2, size), np.int64))

    def keep(self, channel: int, records: Records, ns: Indices, fragments: list[bytes]) -> None:
        """Cache the fragments of ``records``, which are in order of ``g``."""
        kept = np.empty(len(fragments), object)
        kept[:] = fragments
        symbols = records["symbol"]
        # Of repeated symbols the last assignment counts: the newest.
        self._kept[channel][symbols] = kept
        self._kept_n[channel][symbols] = ns
        self._kept_g[channel][symbols] = records["g"]
        self._kept_times[channel][0, symbols] = records["ts_event"]
        self._kept_times[channel][1, symbols] = records["ts_recv"]

    def keep_one(self, tick: Tick, fragment: bytes) -> None:
        """Cache the fragment of one tick."""
        channel, symbol = tick.channel, tick.symbol
        self._kept[channel][symbol] = fragment
        self._kept_n[channel][symbol] = tick.fields[7]
        self._kept_g[channel][symbol] = tick.fields[2]
        times = self._kept_times[channel]
        times[0, symbol], times[1, symbol] = tick.fields[:2]

    def latest(self, channel: int, symbols: Indices, ns: Indices, head: int) -> Latest:
        """Return tick ``ns`` of each symbol, or a newer one where that is overwritten.

        ``symbols`` and ``ns`` have shape ``(k,)``; ``ns`` counts from 1. Symbols whose tick cannot be read
        are left out of the result: its ``g`` is above ``head``, or the writer overwrote the ring meanwhile.
        """
        stale = np.flatnonzero(self._kept_n[channel][symbols] != ns)
        keep = np.ones(len(symbols), bool)
        if len(stale):
            wanted, wanted_ns = symbols[stale], ns[stale]
            ticks = self._rings.read(channel, wanted, wanted_ns - 1, wanted_ns, head)
            found = wanted_ns[ticks.counts > 0]
            self.keep(channel, ticks.records, found, self.fragments(channel, ticks.records))
            gone = np.flatnonzero(ticks.counts == 0)
            if len(gone):
                newer, found = self._rings.latest(channel, wanted[gone], head)
                self.keep(channel, newer, found[found > 0], self.fragments(channel, newer))
                keep[stale[gone[found == 0]]] = False
        held = symbols[keep]
        return Latest(
            keep,
            self._kept[channel][held].tolist(),
            self._kept_n[channel][held],
            self._kept_g[channel][held],
            self._kept_times[channel][:, held],
        )
