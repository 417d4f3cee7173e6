"""One publisher's stream: bytes in, batches with the engine's symbol ids out. No I/O.

Frames received together become one batch, in order of arrival; a frame too
large for one batch is split. One table lookup per batch maps the ids.
Cost: 3 µs per frame, or 25 ns per quote with 1000 quotes per frame; perf/publish.py
generates the load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from marketfeed.core.binary import Frame, FrameParser, Kind
from marketfeed.core.details import details_fault
from marketfeed.core.records import (
    NO_QUOTES,
    NO_TRADES,
    QUOTE,
    QUOTES,
    SIDES,
    TRADE,
    TRADES,
    UNKNOWN_SIDE,
    Batch,
    Records,
)
from marketfeed.core.symbols import MAX_SYMBOLS
from marketfeed.errors import FeedProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH_TICKS: Final = 4096  # at most; about 1 ms of work including the engine's
BATCH_FRAMES: Final = 512
STEP_NAMES: Final = 2048  # of an announcement per step; 3 ms
UNANNOUNCED: Final = -1
UNMAPPED: Final = -2  # announced, but refused by the engine's symbol table

# The stored side by received side; 0 marks invalid ones, which would reach subscribers inside JSON.
_SIDES: Final = np.zeros(256, np.uint8)
_SIDES[[0, *SIDES]] = UNKNOWN_SIDE, *SIDES

Ids = NDArray[np.int32]

_NO_IDS: Final[Ids] = np.empty(0, np.int32)
_NO_SIDES: Final = np.empty(0, np.uint8)
_CHANNELS: Final = {Kind.QUOTES: QUOTES, Kind.TRADES: TRADES}


class PublisherCut(Exception):  # noqa: N818
    """The publisher's connection must be closed. ``reason`` names the counter, the text has details."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Publisher:
    """Parser of one publisher's stream. ``symbol`` maps names to engine ids, ``count`` counts events."""

    def __init__(self, symbol: Callable[[str], int | None], count: Callable[[str, int], None]) -> None:
        self._symbol = symbol
        self._count = count
        self._parser = FrameParser()
        self._ids = np.full(MAX_SYMBOLS, UNANNOUNCED, np.int32)  # publisher's id to engine's id
        self._announced: Frame | None = None  # applies to frames after the last batch
        self._names: Iterator[list[tuple[str, int]]] = iter(())  # of the announcement in progress
        self._whole = Batch()  # gathered ticks, returned in parts
        self._returned = 0
        self._cut: PublisherCut | None = None  # raised after the frames before it

    @property
    def started_bytes(self) -> int:
        """Number of bytes of an incomplete frame, once :meth:`next_batch` has returned None."""
        return self._parser.pending_bytes

    def feed(self, data: bytes) -> None:
        """Append received bytes."""
        self._parser.feed(data)

    def next_batch(self) -> Batch | None:
        """Return the next ticks, at most BATCH_TICKS and possibly none; None if more bytes are needed.

        Raises PublisherCut for an invalid frame, after all batches of the frames before it.
        """
        if self._returned == len(self._whole):
            gathered = self._gather()
            if gathered is None:
                return None
            if len(gathered) <= BATCH_TICKS:
                return gathered
            self._whole, self._returned = gathered, 0
        start, self._returned = self._returned, min(self._returned + BATCH_TICKS, len(self._whole))
        return self._whole.cut(start, self._returned)

    def _gather(self) -> Batch | None:
        """Return the ticks of the next frames; None if no frame is complete."""
        if self._cut is not None:
            raise self._cut
        try:
            if not self._looked_up_all():
                return Batch()
            frames = self._tick_frames()
            return None if frames is None else self._batch(frames)
        except FeedProtocolError as error:
            self._cut = PublisherCut("malformed", str(error))
            raise self._cut from None

    def _looked_up_all(self) -> bool:
        """Look up the next names of an announcement under way; False if more may follow.

        The caller then returns to the event loop, since an announcement may hold thousands of names.
        """
        if self._announced is not None:
            self._names, self._announced = self._announced.symbols_in_batches(STEP_NAMES), None
        for names in self._names:
            for name, number in names:
                known = self._symbol(name)
                self._ids[number] = UNMAPPED if known is None else known
            if len(names) in (0, STEP_NAMES):
                return False
        return True

    def _tick_frames(self) -> list[Frame] | None:
        """Return frames of ticks: enough for a batch, or up to an announcement; None if none is complete."""
        frames: list[Frame] = []
        ticks = 0
        for number in range(BATCH_FRAMES):
            frame = self._next_frame()
            if frame is None:
                return None if number == 0 and self._cut is None else frames
            if frame.kind is Kind.SYMBOLS:
                self._announced = frame
                break
            if frame.kind in _CHANNELS:
                frames.append(frame)
                ticks += len(frame.payload) // QUOTE.itemsize
                if ticks >= BATCH_TICKS:
                    break
            elif frame.kind is Kind.MESSAGES:
                self._count("message_ignored", 1)
        return frames

    def _next_frame(self) -> Frame | None:
        try:
            return self._parser.next_frame()
        except FeedProtocolError as error:
            self._cut = PublisherCut("malformed", str(error))
            return None

    def _batch(self, frames: list[Frame]) -> Batch:
        """Return the ticks of ``frames`` before the first invalid one, with the engine's ids."""
        quotes, trades = _joined(frames, Kind.QUOTES), _joined(frames, Kind.TRADES)
        quote_ids = self._ids.take(quotes["symbol"])
        good = not len(quotes) or bool(quote_ids.min() >= 0)
        trade_ids, sides = _NO_IDS, _NO_SIDES
        if len(trades):
            trade_ids, sides = self._ids.take(trades["symbol"]), _SIDES.take(trades["side"])
            good = good and bool(trade_ids.min() >= 0 and sides.all() and details_fault(trades) is None)
        if not good:
            before = self._before_fault(frames)
            if before < len(frames):
                return self._batch(frames[:before])
        quotes["symbol"] = quote_ids
        if len(trades):
            trades["symbol"], trades["side"] = trade_ids, sides
        kinds = [_CHANNELS[frame.kind] for frame in frames]
        counts = [len(frame.payload) // QUOTE.itemsize for frame in frames]
        batch = Batch(quotes, trades, np.repeat(np.array(kinds, np.uint8), counts))
        return batch if good else self._without_unmapped(batch, quote_ids, trade_ids)

    def _before_fault(self, frames: list[Frame]) -> int:
        """Return the number of frames before the first invalid one, and set ``_cut`` for that one."""
        for index, frame in enumerate(frames):
            records, name = frame.records(), frame.kind.name.lower()
            symbols = records["symbol"]
            unannounced = self._ids.take(symbols) == UNANNOUNCED
            if unannounced.any():
                first = int(symbols[unannounced][0])
                self._cut = PublisherCut(
                    "unannounced", f"a {name} frame uses id {first}, which was not announced"
                )
                return index
            if frame.kind is Kind.TRADES and not _SIDES.take(records["side"]).all():
                self._cut = PublisherCut("malformed", f"a {name} frame has a side that is not b, s or -")
                return index
            fault = details_fault(records) if frame.kind is Kind.TRADES and len(records) else None
            if fault is not None:
                self._cut = PublisherCut("malformed", f"a {name} frame has {fault}")
                return index
        return len(frames)

    def _without_unmapped(self, batch: Batch, quote_ids: Ids, trade_ids: Ids) -> Batch:
        kept = batch.only(quote_ids >= 0, trade_ids >= 0)
        self._count("left_out", len(batch) - len(kept))
        return kept


def _joined(frames: list[Frame], kind: Kind) -> Records:
    """Return a copy of the records in the frames of ``kind``: received bytes are read-only."""
    payloads = [frame.payload for frame in frames if frame.kind is kind]
    if not payloads:
        return NO_QUOTES if kind is Kind.QUOTES else NO_TRADES
    whole = bytearray().join(payloads)
    return np.frombuffer(whole, QUOTE if kind is Kind.QUOTES else TRADE)
