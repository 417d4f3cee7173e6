"""Conversion of DBN records to ticks.

A record of mbp-1 or mbp-10 yields a quote, its best level, preceded by a trade if its action is a trade. A
record of tbbo yields the quote before the trade, then the trade. Records of bbo-* are quotes as of
``ts_recv``. DBN prices are in units of 1e-9. A side is missing if its price is undefined or its size 0.

Source: Databento, "Databento Binary Encoding" (UNDEF_PRICE is the largest i8); record layouts come from the
package databento-dbn.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from marketfeed.core.records import BUY, QUOTE, QUOTES, SELL, TRADE, TRADES, UNKNOWN_SIDE, Batch, Records
from marketfeed.core.symbols import MAX_SYMBOLS
from marketfeed.feeds.replay.bbo import Merge
from marketfeed.feeds.replay.dbn_names import UNNAMED, Instruments
from marketfeed.feeds.replay.recording import NOTHING, Decoded

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_RECORDS: Final = 4096  # per batch
_UNDEF_PRICE: Final = 2**63 - 1
_TRADE: Final = 0x00
_MAPPING: Final = 0x16
_MBO: Final = 0xA0
# By rtype: the message class in databento-dbn.
_QUOTE_TYPES: Final = {0x01: "MBP1Msg", 0x0A: "MBP10Msg", 0xC3: "BBOMsg", 0xC4: "BBOMsg", 0xC5: "MBP1Msg"} | {
    0xB1: "CMBP1Msg", 0xC0: "CBBOMsg", 0xC1: "CBBOMsg", 0xC2: "CMBP1Msg",
}  # fmt: skip
_SAMPLED: Final = (0xC0, 0xC1, 0xC3, 0xC4)
_CONSOLIDATED: Final = (0xB1, 0xC0, 0xC1, 0xC2)  # over all venues; the publisher id is meaningless
_BEFORE_TRADE: Final = (0xC2, 0xC5)
_OTHERS: Final = {
    0x11: "ohlcv", 0x12: "status", 0x13: "definition", 0x14: "imbalance", 0x15: "error", _MAPPING: "mapping",
    0x17: "system", 0x18: "statistics", 0x20: "ohlcv-1s", 0x21: "ohlcv-1m", 0x22: "ohlcv-1h",
    0x23: "ohlcv-1d", 0x24: "ohlcv-eod", _MBO: "mbo",
}  # fmt: skip
_NO_PUBLISHER: Final = -1
_NO_TYPE: Final = -1


class Venues(NamedTuple):
    """Selection and naming of a file's ticks, from the configuration."""

    symbol: str  # a template
    merge: bool  # quotes of all publishers become one best bid and offer
    take: str  # all, quotes or trades


class Layouts:
    """Record layouts by rtype; those of mapping records by size, because DBN versions differ."""

    def __init__(self, package: Any) -> None:
        names = {**_QUOTE_TYPES, _TRADE: "TradeMsg", _MBO: "MBOMsg"}
        self._layouts = {rtype: _layout(getattr(package, name)) for rtype, name in names.items()}
        self._mappings = [_layout(package.SymbolMappingMsg), _layout(package.SymbolMappingMsgV1)]

    def of(self, rtype: int, size: int) -> np.dtype[np.void] | None:
        """Return the layout of a record of ``size`` bytes, which may exceed the layout; None if unknown."""
        layouts = self._mappings if rtype == _MAPPING else [self._layouts.get(rtype)]
        return next((layout for layout in layouts if layout is not None and layout.itemsize <= size), None)


def _layout(message: Any) -> np.dtype[np.void]:
    return np.dtype([(f[0], f[1] if f[1].startswith("S") else f"<{f[1]}") for f in message._dtypes])  # noqa: SLF001 - the layout has no public name


class Decoding:
    """State of one pass over a file's records.

    ``mixed``: the file holds several schemas, as live files do. ``notices`` holds
    warnings by topic, each to be logged once.
    """

    def __init__(
        self, layouts: Layouts, instruments: Instruments, choice: Venues, before_trade: bool, mixed: bool
    ) -> None:
        self.notices: dict[str, str] = {}
        self._layouts = layouts
        self._instruments = instruments
        self._choice = choice
        self._before_trade = before_trade
        self._mixed = mixed
        self._merge = Merge(over_all=True, whole=True) if choice.merge else None
        self._numbers: dict[int, int] = {}  # of publishers, in order of appearance
        # By symbol: the publisher of its quotes, and the record type of its trades.
        self._publisher = np.full(MAX_SYMBOLS, _NO_PUBLISHER, np.int32)
        self._trade_type = np.full(MAX_SYMBOLS, _NO_TYPE, np.int32)

    def run(self, data: bytes) -> tuple[int, int, Decoded]:
        """Decode the run of records of one type that starts ``data``; return its bytes, count and ticks."""
        stride = data[0] * 4
        count = min(len(data) // stride, MAX_RECORDS)
        heads = np.frombuffer(data, np.uint8, count * stride).reshape(count, stride)[:, :2]
        same = (heads == heads[0]).all(axis=1)
        count = count if same.all() else int(np.argmin(same))
        rtype = data[1]
        layout = self._layouts.of(rtype, stride)
        if layout is None or (rtype == _MBO and self._choice.take != "trades"):
            kind = _OTHERS.get(rtype, f"records of type {rtype:#x}")
            return (
                count * stride,
                count,
                replace(NOTHING, events={"other_record": count}, passed={kind: count}),
            )
        # Streams with ts_out append eight bytes to each record.
        block = np.frombuffer(data, np.uint8, count * stride).reshape(count, stride)[:, : layout.itemsize]
        records = np.ascontiguousarray(block).view(layout)[:, 0]
        if rtype == _MAPPING:
            self._instruments.learn(records)
            return count * stride, count, NOTHING
        return count * stride, count, self._ticks(records, rtype)

    def _ticks(self, found: NDArray[Any], rtype: int) -> Decoded:
        when = np.where(found["ts_recv"] >= _UNDEF_PRICE, _event(found), _times(found["ts_recv"]))
        symbols = self._instruments.ids(found["instrument_id"], found["publisher_id"], when)
        known = symbols >= 0
        events, passed = {}, {}
        if not known.all():
            nameless = found["instrument_id"][symbols == UNNAMED]
            if len(nameless):
                events["unnamed_instrument"] = passed["of instruments without a name"] = len(nameless)
                self.notices.setdefault("unnamed instrument", (
                    f"the file has no name for instrument {nameless[0]}, perhaps not for others; these are "
                    "left out: symbol = '{instrument_id}' names them by number"
                ))  # fmt: skip
        is_quote, is_trade = np.zeros(len(found), bool), np.zeros(len(found), bool)
        if rtype in _QUOTE_TYPES and self._choice.take != "trades":
            is_quote = known.copy()
        if rtype not in _SAMPLED and self._choice.take != "quotes":
            is_trade = known & (found["action"] == b"T")
            priced = (found["price"] != _UNDEF_PRICE) & (found["size"] > 0)
            events["empty_trade"] = int((is_trade & ~priced).sum())
            is_trade &= priced
            if rtype == _TRADE:
                events["other_trade"] = int((known & (found["action"] != b"T")).sum())
            if self._mixed:
                events["duplicate_trade"] = self._drop_duplicates(is_trade, symbols, rtype)
        quotes = self._quotes(found, symbols, is_quote, rtype)
        trades = self._trades(found[is_trade], symbols[is_trade])
        # Two ticks of one record: a tbbo quote precedes the trade, other quotes show the book after it.
        before = self._before_trade or rtype in _BEFORE_TRADE
        quote_place, trade_place = (0, 1) if before else (1, 0)
        places = np.concatenate([
            np.flatnonzero(is_quote) * 2 + quote_place, np.flatnonzero(is_trade) * 2 + trade_place
        ])  # fmt: skip
        order = np.argsort(places, kind="stable")
        channels = np.repeat(np.array([QUOTES, TRADES], np.uint8), [len(quotes), len(trades)])[order]
        times = np.concatenate([when[is_quote], when[is_trade]])[order]
        return Decoded(Batch(quotes, trades, channels), times, [], events, passed)

    def _drop_duplicates(self, is_trade: NDArray[np.bool_], symbols: NDArray[np.int64], rtype: int) -> int:
        """Clear trades in ``is_trade`` that another record type also reports; return how many."""
        rows = np.flatnonzero(is_trade)
        theirs = self._trade_type[symbols[rows]]
        other = (theirs != _NO_TYPE) & (theirs != rtype)
        self._trade_type[symbols[rows[~other]]] = rtype
        is_trade[rows[other]] = False
        return int(other.sum())

    def _quotes(
        self, found: NDArray[Any], symbols: NDArray[np.int64], is_quote: NDArray[np.bool_], rtype: int
    ) -> Records:
        """Return the quotes among ``found``; clears ``is_quote`` for rows that a merge drops."""
        rows, publishers = found[is_quote], found["publisher_id"][is_quote].astype(np.int32)
        quotes = np.zeros(len(rows), QUOTE)
        if not len(rows):
            return quotes
        quotes["ts_event"] = _times(rows["ts_recv"]) if rtype in _SAMPLED else _event(rows)
        quotes["symbol"] = symbols[is_quote]
        for px, sz, theirs in (("bid_px", "bid_sz", "bid"), ("ask_px", "ask_sz", "ask")):
            price, size = rows[f"{theirs}_px_00"], rows[f"{theirs}_sz_00"]
            there = (price != _UNDEF_PRICE) & (size > 0)
            quotes[px], quotes[sz] = np.where(there, price, 0), np.where(there, size, 0)
        if self._merge is not None:
            for publisher in np.unique(publishers).tolist():
                self._numbers.setdefault(publisher, len(self._numbers))
            quotes["n"] = [self._numbers[publisher] for publisher in publishers.tolist()]
            ticks = self._merge.apply(quotes)
            quotes["n"] = 0
            is_quote[np.flatnonzero(is_quote)[~ticks]] = False
            return quotes[ticks]
        if not self._instruments.by_venue and rtype not in _CONSOLIDATED:
            self._note_publishers(quotes["symbol"], publishers)
        return quotes

    def _note_publishers(self, symbols: NDArray[Any], publishers: NDArray[np.int32]) -> None:
        """Add a notice if a symbol has quotes of several publishers."""
        unseen = self._publisher[symbols] == _NO_PUBLISHER
        self._publisher[symbols[unseen]] = publishers[unseen]
        other = self._publisher[symbols] != publishers
        if other.any():
            self.notices.setdefault("several publishers", (
                "quotes of several publishers share a symbol, which jumps between them: "
                "symbol = '{symbol}.{venue}' keeps them apart, merge = 'all' makes one best bid and offer"
            ))  # fmt: skip

    @staticmethod
    def _trades(rows: NDArray[Any], symbols: NDArray[np.int64]) -> Records:
        trades = np.zeros(len(rows), TRADE)
        trades["ts_event"] = _event(rows)
        trades["price"], trades["size"] = rows["price"], rows["size"]
        sides = np.where(rows["side"] == b"B", BUY, np.where(rows["side"] == b"A", SELL, UNKNOWN_SIDE))
        trades["side"], trades["symbol"] = sides, symbols
        if "sequence" in (rows.dtype.names or ()):
            trades["trade_id"] = rows["sequence"]
        return trades


def _times(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return times as nanoseconds, 0 for undefined times (all bits set)."""
    return np.where(values >= _UNDEF_PRICE, 0, values).astype(np.int64)


def _event(records: NDArray[Any]) -> NDArray[np.int64]:
    return _times(records["ts_event"])
