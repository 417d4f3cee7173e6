"""Databento's DBN, versions 1 to 3, plain or .zst.

Schemas mbp-1, tbbo, bbo-* and trades, and the consolidated cmbp-1, tcbbo and cbbo-*.

A record of mbp-1 is a quote, and before it a trade if its action says so; one
of tbbo is the quote before the trade, and the trade; bbo-* are quotes as of
``ts_recv``. Prices are DBN's own, in units of 1e-9. Records of other kinds are
counted. Symbols come from the file's metadata, by date.

Source: Databento, "Databento Binary Encoding" (UNDEF_PRICE is the largest i8),
with the layouts of records taken from the package databento-dbn itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feeds.replay.archives import members, refuse_if_wrong, suffix, verify
from feeds.replay.recording import NOTHING, DamagedError, Decoded, Symbol, Teller, needs, symbol_name
from marketfeed.core.records import BUY, QUOTE, QUOTES, SELL, TRADE, TRADES, UNKNOWN_SIDE, Batch, Records
from marketfeed.errors import ConfigError

MAX_RECORDS: Final = 4096  # decoded in one go
_PREFIX_BYTES: Final = 8  # "DBN", version, length of the metadata
_MAX_METADATA: Final = 64 << 20
_UNDEF_PRICE: Final = 2**63 - 1
_DAY_NS: Final = 86_400 * 10**9
_NO_SYMBOL: Final = -1
# rtype: what it holds. Trades come first in mbp-1, as the quote is the book after them; in tbbo last.
_QUOTE_TYPES: Final = {0x01: "MBP1Msg", 0xC3: "BBOMsg", 0xC4: "BBOMsg", 0xB1: "CMBP1Msg"} | {
    0xC0: "CBBOMsg", 0xC1: "CBBOMsg", 0xC2: "CMBP1Msg",
}  # fmt: skip
_TRADE_TYPE: Final = 0x00
_SAMPLED: Final = (0xC0, 0xC1, 0xC3, 0xC4)


class Dbn:
    """One DBN file."""

    def __init__(self, path: Path, symbol: Symbol, teller: Teller) -> None:
        """Look at the metadata; raises ConfigError."""
        try:
            import databento_dbn
        except ImportError:
            raise needs("databento-dbn", "dbn", "format: dbn") from None
        self._path = path
        self._symbol = symbol
        self._teller = teller
        if suffix(path) == ".zip":
            raise ConfigError(f"path: {path}: DBN files are plain, .zst, .gz, .bz2 or .xz")
        (self._member,) = members(path)
        refuse_if_wrong(path, [self._member])
        self._layouts = {
            rtype: np.dtype([(f[0], f"<{f[1]}") for f in getattr(databento_dbn, name)._dtypes])
            for rtype, name in {**_QUOTE_TYPES, _TRADE_TYPE: "TradeMsg"}.items()
        }
        head = b""
        try:
            for block in self._member.blocks():
                head += block
                if len(head) >= _PREFIX_BYTES and len(head) >= _metadata_end(head):
                    break
        except DamagedError as error:
            raise ConfigError(f"path: {path} is no whole DBN file: {error}") from None
        end = _metadata_end(head) if head.startswith(b"DBN") and len(head) >= _PREFIX_BYTES else 0
        if not end or len(head) < end:
            raise ConfigError(f"path: {path} does not look like dbn")
        try:
            metadata = databento_dbn.Metadata.decode(head[:end])
        except (databento_dbn.DBNError, ValueError) as error:
            raise ConfigError(f"path: {path}: {error}") from None
        self._start = end
        self._before_trade = str(metadata.schema) in ("tbbo", "tcbbo")
        # By instrument: from day, to day (None: open), name.
        self._names: dict[int, list[tuple[date, date | None, str]]] = {}
        for name, intervals in metadata.mappings.items():
            for interval in intervals:
                if str(interval["symbol"]).isdecimal():
                    spans = self._names.setdefault(int(interval["symbol"]), [])
                    spans.append((interval["start_date"], interval["end_date"], name))

    def chunks(self) -> Iterator[Decoded]:
        """Yield the file's records."""
        for _ in verify(self._path, [self._member]):
            yield NOTHING
        ids: dict[tuple[int, int], int] = {}
        rest, skip, damage = b"", self._start, ""
        blocks = self._member.blocks()
        while True:
            try:
                block = next(blocks, b"")
            except DamagedError as error:
                damage, block = str(error), b""
            if not block:
                break
            if skip:
                block, skip = block[skip:], max(skip - len(block), 0)
            rest += block
            while len(rest) > 1 and rest[0] and len(rest) >= rest[0] * 4:
                taken, decoded = self._run(rest, ids)
                rest = rest[taken:]
                if decoded is not None:
                    yield decoded
            if rest and not rest[0]:
                damage = "a record of length 0"
                break
        if damage or rest:
            self._teller.damaged(str(self._path), damage or "it ends within a record", "record")

    def _run(self, data: bytes, ids: dict[tuple[int, int], int]) -> tuple[int, Decoded | None]:
        """Decode the records of one kind at the start of ``data``; return their bytes and ticks."""
        stride = data[0] * 4
        count = min(len(data) // stride, MAX_RECORDS)
        heads = np.frombuffer(data, np.uint8, count * stride).reshape(count, stride)[:, :2]
        same = (heads == heads[0]).all(axis=1)
        count = count if same.all() else int(np.argmin(same))
        layout = self._layouts.get(data[1])
        if layout is None or layout.itemsize > stride:
            self._teller.events({"other_record": count})
            return count * stride, None
        # A stream with ts_out has eight more bytes a record.
        records = np.frombuffer(data, np.uint8, count * stride).reshape(count, stride)[:, : layout.itemsize]
        return count * stride, self._ticks(np.ascontiguousarray(records).view(layout)[:, 0], data[1], ids)

    def _ticks(self, found: NDArray[Any], rtype: int, ids: dict[tuple[int, int], int]) -> Decoded:
        when = found["ts_recv"].astype(np.int64)
        symbols = self._symbols(found["instrument_id"], when, ids)
        known = symbols >= 0
        is_quote = np.full(len(found), rtype != _TRADE_TYPE) & known
        is_trade = np.full(len(found), rtype == _TRADE_TYPE) & known
        if "action" in (found.dtype.names or ()) and rtype not in _SAMPLED:
            is_trade |= (found["action"] == b"T") & known
        priced = (found["price"] != _UNDEF_PRICE) & (found["size"] > 0)
        self._teller.events({"empty_trade": int((is_trade & ~priced).sum())})
        is_trade &= priced
        quotes = self._quotes(found[is_quote], symbols[is_quote], rtype)
        trades = np.zeros(int(is_trade.sum()), TRADE)
        rows = found[is_trade]
        trades["ts_event"] = _times(rows["ts_event"])
        trades["price"], trades["size"] = rows["price"], rows["size"]
        trades["side"] = np.where(
            rows["side"] == b"B", BUY, np.where(rows["side"] == b"A", SELL, UNKNOWN_SIDE)
        )
        trades["symbol"] = symbols[is_trade]
        if "sequence" in (found.dtype.names or ()):
            trades["trade_id"] = rows["sequence"]
        # Two ticks of one record: in which order.
        quote_place, trade_place = (0, 1) if self._before_trade else (1, 0)
        places = np.concatenate([
            np.flatnonzero(is_quote) * 2 + quote_place, np.flatnonzero(is_trade) * 2 + trade_place
        ])  # fmt: skip
        order = np.argsort(places, kind="stable")
        channels = np.repeat(np.array([QUOTES, TRADES], np.uint8), [len(quotes), len(trades)])[order]
        times = np.concatenate([when[is_quote], when[is_trade]])[order]
        return Decoded(Batch(quotes, trades, channels), times)

    def _quotes(self, rows: NDArray[Any], symbols: NDArray[np.int64], rtype: int) -> Records:
        quotes = np.zeros(len(rows), QUOTE)
        if not len(rows):
            return quotes
        quotes["ts_event"] = _times(rows["ts_recv"] if rtype in _SAMPLED else rows["ts_event"])
        quotes["symbol"] = symbols
        for px, sz, theirs in (("bid_px", "bid_sz", "bid"), ("ask_px", "ask_sz", "ask")):
            price, size = rows[f"{theirs}_px_00"], rows[f"{theirs}_sz_00"]
            there = (price != _UNDEF_PRICE) & (size > 0)
            quotes[px], quotes[sz] = np.where(there, price, 0), np.where(there, size, 0)
        return quotes

    def _symbols(
        self, instruments: NDArray[Any], when: NDArray[np.int64], ids: dict[tuple[int, int], int]
    ) -> NDArray[np.int64]:
        """Return the id of each record's symbol, which the metadata names by instrument and day."""
        days = np.clip(when // _DAY_NS, 0, 1 << 16)
        pairs, which = np.unique(instruments.astype(np.int64) << 17 | days, return_inverse=True)
        numbers: list[int] = []
        for pair in pairs.tolist():
            key = (pair >> 17, pair & 0x1FFFF)
            if key not in ids:
                number = self._symbol(symbol_name(self._name(*key)))
                ids[key] = _NO_SYMBOL if number is None else number
            numbers.append(ids[key])
        return np.array(numbers, np.int64)[which]

    def _name(self, instrument: int, day: int) -> str:
        spans = self._names.get(instrument, [])
        on = date.fromordinal(date(1970, 1, 1).toordinal() + day)
        for first, last, name in spans:
            if first <= on and (last is None or on < last):
                return name
        return spans[0][2] if len({name for *_, name in spans}) == 1 else str(instrument)


def _metadata_end(head: bytes) -> int:
    return _PREFIX_BYTES + min(int.from_bytes(head[4:8], "little"), _MAX_METADATA)


def _times(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return times as nanoseconds, 0 where DBN has none (all bits set)."""
    return np.where(values >= 2**63 - 1, 0, values).astype(np.int64)
