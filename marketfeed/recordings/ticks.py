"""Ticks of a recording in the order and with the times of arrival that alert rules evaluate.

    recording of marketfeed ──► reading.Recording ────────────────────────────┐
    other formats ──► replay feed's decoder ──► pump: what an engine rejects ──┴──► steps of quotes and trades

A recording of marketfeed keeps the times of arrival, so its ticks give the alerts, ids included, that the
engine raised. In other formats the recorded time of a tick is its time of arrival, as if it were replayed
with speed 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np

from marketfeed.core.counts import amount
from marketfeed.core.records import FLAG_SNAPSHOT, TRADES, Batch, Records, stamps_of
from marketfeed.core.symbols import SymbolTable
from marketfeed.errors import MarketfeedError
from marketfeed.ingest.pump import Pump
from marketfeed.recordings.reading import Recording

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from marketfeed.ingest.registry import FeedSpec

_MOST_EVENTS: Final = 5  # kinds of dropped ticks in one note


class Step(NamedTuple):
    """Consecutive ticks. ``g`` counts those of the recording from 1; ``ts_recv`` is the time of arrival."""

    quotes: Records  # (q,) QUOTE, in order of g
    trades: Records  # (t,) TRADE, in order of g


class RecordedTicks(Protocol):
    """The ticks of one recording, to be read once."""

    def names(self) -> list[str]:
        """Return the names of all symbols so far, by number."""
        ...

    def steps(self) -> Iterator[Step]:
        """Yield the ticks; raises RecordingError, FeedProtocolError and OSError."""
        ...

    def share(self) -> float | None:
        """Return how much of the recording has been read, from 0 to 1; None if that is not known."""
        ...

    def damage(self) -> str:
        """Return where and why the recording could not be read to its end; "" if it could."""
        ...

    def notes(self) -> list[str]:
        """Return what a person should know of the ticks, such as gaps."""
        ...


class MarketfeedTicks:
    """Ticks of recordings that ``marketfeed record`` wrote."""

    def __init__(self, path: Path, max_symbols: int) -> None:
        """Read the first frame; raises RecordingError."""
        self._recording = Recording(path)
        self._max_symbols = max_symbols
        self._left_out = 0
        self._bytes = sum(file.stat().st_size for file in self._recording.files)
        self._read_bytes = 0

    def names(self) -> list[str]:
        """Return the names so far."""
        return self._recording.symbols[: self._max_symbols]

    def steps(self) -> Iterator[Step]:
        """Yield the ticks without snapshots, which repeat what was there before."""
        next_g = 1
        for chunk in self._recording.chunks(progress=self._advance):
            quotes, trades = (self._kept(records) for records in chunk)
            # Within a chunk, all ticks are of one connection, so their g have one origin.
            order = np.argsort(np.concatenate([stamps_of(quotes), stamps_of(trades)]), kind="stable")
            rank = np.empty(len(order), np.uint64)
            rank[order] = next_g + np.arange(len(order), dtype=np.uint64)
            next_g += len(order)
            quotes["g"], trades["g"] = rank[: len(quotes)], rank[len(quotes) :]
            yield Step(_sorted(quotes), _sorted(trades))

    def share(self) -> float | None:
        """Return the share of the files that has been read."""
        return self._read_bytes / self._bytes if self._bytes else None

    def _advance(self, size: int) -> None:
        self._read_bytes += size

    def _kept(self, records: Records) -> Records:
        fits = records["symbol"] < self._max_symbols
        self._left_out += int(np.count_nonzero(~fits))
        kept: Records = records[fits & (records["flags"] & FLAG_SNAPSHOT == 0)]
        return kept

    def damage(self) -> str:
        """Return the problems of the files."""
        return "; ".join(self._recording.problems)

    def notes(self) -> list[str]:
        """Return how many ticks the recorder did not get, and how many have no place here."""
        found = []
        if self._recording.gaps:
            gaps, lost = amount(self._recording.gaps, "gaps"), amount(self._recording.lost, "ticks")
            found.append(f"the recording has {gaps}, of {lost}")
        if self._left_out:
            found.append(f"left out {amount(self._left_out, 'ticks')} of symbols beyond engine.max_symbols")
        return found


class ReplayedTicks:
    """Ticks of recordings in the formats that ``replay`` feeds read."""

    def __init__(self, spec: FeedSpec, base: Path, max_symbols: int) -> None:
        """Open the recording of a ``replay`` feed; raises ConfigError."""
        self._symbols = SymbolTable(max_symbols)
        pump = Pump(self, self._symbols, lambda: None, lambda: 0)
        self._intake = pump.intake(spec.name, base)
        self._feed: Any = spec.factory(spec.settings, self._intake)
        self._written: Step | None = None
        self._next_g = 1
        self._failure = ""

    def names(self) -> list[str]:
        """Return the names so far."""
        return self._symbols.names()

    def steps(self) -> Iterator[Step]:
        """Yield the ticks that an engine would accept."""
        last_ns = 0
        for decoded in self._decoded():
            if not len(decoded.times_ns):
                continue
            times = np.maximum.accumulate(np.maximum(decoded.times_ns, last_ns))
            last_ns = int(times[-1])
            batch: Batch = decoded.batch
            of_trades = _of_trades(batch)
            # The pump replaces times of arrival far from its clock. It leaves g to the writer, which is
            # `write` below: so g carries the time through the pump, also when the pump drops ticks.
            batch.quotes["g"], batch.trades["g"] = times[~of_trades], times[of_trades]
            self._written = None
            self._intake.publish(batch)
            if self._written is not None:
                yield self._written

    def _decoded(self) -> Iterator[Any]:
        """Yield what the feed decodes, up to its end or its failure."""
        try:
            yield from self._feed.chunks()
        except (MarketfeedError, OSError):
            raise
        except Exception as error:  # a file may hold anything
            why = " ".join(f"{type(error).__name__}: {error}".split())
            self._failure = f"unreadable after {self._next_g - 1:,} ticks: {why}"

    def write(self, batch: Batch) -> int:
        """Take a batch from the pump; return the last ``g``."""
        of_trades = _of_trades(batch)
        g = self._next_g + np.arange(len(batch), dtype=np.uint64)
        self._next_g += len(batch)
        for records, own in ((batch.quotes, ~of_trades), (batch.trades, of_trades)):
            records["ts_recv"] = records["g"]
            records["g"] = g[own]
        self._written = Step(batch.quotes, batch.trades)
        return self._next_g - 1

    def share(self) -> float | None:
        """Return None: decoders do not tell."""
        return None

    def damage(self) -> str:
        """Return the first damage of the files."""
        return str(self._feed.damage) or self._failure

    def notes(self) -> list[str]:
        """Return what the feed and the pump dropped or changed."""
        events = ", ".join(
            f"{count:,} {event}" for event, count in self._intake.events.most_common(_MOST_EVENTS)
        )
        return [f"counted while reading: {events}"] if events else []


def _of_trades(batch: Batch) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return the mask of the trades of a batch, shape ``(k,)``."""
    if batch.channels is None:
        return np.arange(len(batch)) >= len(batch.quotes)
    mask: np.ndarray[Any, np.dtype[np.bool_]] = batch.channels == TRADES
    return mask


def _sorted(records: Records) -> Records:
    ordered: Records = records[stamps_of(records).argsort(kind="stable")]
    return ordered
