"""Names of the instruments in a DBN file by time, from its metadata and its mapping records.

Historical files name instruments in their metadata, with the days for which each name is valid. Live files
have mapping records before the ticks, and again when a name changes. Files requested by instrument id have no
names.

Source: Databento, "Symbology" and "Databento Binary Encoding", which list the venues of publishers 1, 2 …
(VENUES).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from marketfeed.core.units import DAY_NS
from marketfeed.errors import ConfigError
from marketfeed.feeds.replay.recording import Symbol, symbol_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

NO_SYMBOL: Final = -1  # the symbol table refused the name
UNNAMED: Final = -2  # the file has no name for the instrument
_BY_TIME: Final = -3  # the name changes within the day
_UNDEF: Final = 2**63 - 1
_EPOCH: Final = date(1970, 1, 1).toordinal()
_VENUES: Final = (
    "GLBX XNAS XBOS XPSX BATS BATY EDGA EDGX XNYS XCIS XASE XCHI XCIS XCIS MEMX EPRL FINN FINC FINY AMXO "
    "XBOX XCBO EMLD EDGO GMNI XISX MCRY XMIO ARCO OPRA MPRL XNDQ XBXO C2OX XPHL BATO MXOP IEXG XCHI XCIS "
    "IEXG EPRL ARCX XNYS XNYS XNAS XNAS XCHI XCIS IEXG EPRL XNAS XNYS FINN FINY FINC IFEU NDEX DBEQ EQUS "
    "SPHR XCHI XCIS IEXG EPRL XNAS XNYS FINN FINY FINC BATS BATY EDGA EDGX XBOS XPSX MEMX XASE ARCX LTSE "
    "XNAS FINN FINC XOFF XOFF XBOS XPSX XBOS XPSX EQUS XCIS XNYS EQUS EQUS EQUS EQUS IFUS XOFF IFLL XOFF "
    "XEUR XEER XOFF XOFF"
)
VENUES: Final = tuple(_VENUES.split())


class Span(NamedTuple):
    """Name of an instrument from ``start_ns`` until before ``end_ns``, in Unix nanoseconds."""

    start_ns: int
    end_ns: int
    name: str


Spans = Mapping[int, list[Span]]  # by instrument


def venue(publisher: int) -> str:
    """Return the venue of a publisher, or its number if the venue is unknown."""
    return VENUES[publisher - 1] if 1 <= publisher <= len(VENUES) else str(publisher)


def spans_of(metadata: Any) -> Spans:
    """Return the names in a file's metadata, without those that equal the instrument's number."""
    inverse = str(metadata.stype_in) == "instrument_id" and str(metadata.stype_out) != "instrument_id"
    spans: dict[int, list[Span]] = {}
    for asked, intervals in metadata.mappings.items():
        for interval in intervals:
            number, name = (asked, interval["symbol"]) if inverse else (interval["symbol"], asked)
            if number.isdecimal() and name and name != number:
                end = interval["end_date"]
                span = Span(_ns(interval["start_date"]), _UNDEF if end is None else _ns(end), name)
                spans.setdefault(int(number), []).append(span)
    return spans


def _ns(day: date) -> int:
    return (day.toordinal() - _EPOCH) * DAY_NS


class Instruments:
    """The symbols of a file's instruments, for one pass; ``template`` makes names of them."""

    def __init__(self, spans: Spans, template: str, symbol: Symbol) -> None:
        """Raise ConfigError if ``template`` is none."""
        self._spans = spans
        self._template = template
        self._symbol = symbol
        self._mapped: dict[int, list[Span]] = {}
        self._by_name: dict[str, int] = {}
        self._ids: dict[int, int] = {}  # by instrument, publisher and day, as _keys() packs them
        self.by_venue = "{venue" in template or "{publisher" in template
        self._needs_name = "{symbol" in template
        self._name_of(1, 1, "X")

    def learn(self, records: NDArray[Any]) -> None:
        """Add mapping records; their names take precedence over those of the metadata."""
        for record in records.tolist():
            fields = dict(zip(records.dtype.names or (), record, strict=True))
            instrument = int(fields["instrument_id"])
            # The resolved symbol, or the requested one if it resolved to a number.
            names = [fields[f"stype_{way}_symbol"].decode("utf-8", "replace") for way in ("out", "in")]
            name = next((name for name in names if name and name != str(instrument)), None)
            if name is None:
                continue
            start, end = (min(int(fields[key]), _UNDEF) for key in ("start_ts", "end_ts"))
            span = Span(0 if start == _UNDEF else start, end, name)
            mapped = self._mapped.setdefault(instrument, [])
            if not mapped or mapped[-1] != span:
                mapped.append(span)
                self._ids.clear()

    def ids(
        self, instruments: NDArray[Any], publishers: NDArray[Any], times_ns: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the symbol id of each record, or NO_SYMBOL or UNNAMED, shape ``(k,)``."""
        days = np.clip(times_ns // DAY_NS, 0, 0xFFFF).astype(np.uint64)
        keys = instruments.astype(np.uint64) << np.uint64(32) | days
        if self.by_venue:
            keys |= publishers.astype(np.uint64) << np.uint64(16)
        found, which = np.unique(keys, return_inverse=True)
        ids = np.array([self._id(key) for key in found.tolist()], np.int64)[which]
        for row in np.flatnonzero(ids == _BY_TIME).tolist():
            ids[row] = self._id_at(int(instruments[row]), int(publishers[row]), int(times_ns[row]))
        return ids

    def _id(self, key: int) -> int:
        known = self._ids.get(key)
        if known is None:
            instrument, start = key >> 32, (key & 0xFFFF) * DAY_NS
            edges = (edge for span in self._all(instrument) for edge in span[:2])
            changes = any(start < edge < start + DAY_NS for edge in edges)
            known = _BY_TIME if changes else self._id_at(instrument, key >> 16 & 0xFFFF, start)
            self._ids[key] = known
        return known

    def _all(self, instrument: int) -> list[Span]:
        """Return the instrument's names in order of precedence."""
        return [*reversed(self._mapped.get(instrument, ())), *self._spans.get(instrument, ())]

    def _id_at(self, instrument: int, publisher: int, time_ns: int) -> int:
        spans = self._all(instrument)
        name = next((span.name for span in spans if span.start_ns <= time_ns < span.end_ns), None)
        if name is None and len({span.name for span in spans}) == 1:
            name = spans[0].name  # its only name
        if name is None and self._needs_name:
            return UNNAMED
        text = self._name_of(instrument, publisher, name or "")
        if text not in self._by_name:
            number = self._symbol(text)
            self._by_name[text] = NO_SYMBOL if number is None else number
        return self._by_name[text]

    def _name_of(self, instrument: int, publisher: int, name: str) -> str:
        known = {
            "symbol": name, "venue": venue(publisher), "publisher": str(publisher),
            "instrument_id": str(instrument),
        }  # fmt: skip
        try:
            return symbol_name(self._template.format_map(known))
        except (KeyError, ValueError, IndexError, AttributeError, TypeError):
            may = ", ".join(f"{{{key}}}" for key in known)
            raise ConfigError(f"symbol: {self._template!r} may contain {may}") from None
