"""The newest tick of each symbol that a feed has received."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from marketfeed.client.batch import Batch
from marketfeed.client.frames import frame_of, records_of
from marketfeed.core.records import CHANNELS, DTYPES, NO_QUOTES, NO_TRADES, QUOTES, TRADES, Records
from marketfeed.core.symbols import MAX_SYMBOLS

if TYPE_CHECKING:
    from marketfeed.client.continuity import RecordNumbers
    from marketfeed.client.messages import Quote, Trade


class Newest:
    """Newest ticks: structs by name on a JSON session, else a record per id of a symbol."""

    def __init__(self) -> None:
        self.quotes: dict[str, Quote] = {}
        self.trades: dict[str, Trade] = {}
        self._records = [NO_QUOTES, NO_TRADES]  # (MAX_SYMBOLS,) after the first tick, by id
        self._numbers: RecordNumbers | None = None  # names and ids

    def take(self, channel: int, records: Records, numbers: RecordNumbers) -> None:
        """Keep ``records``, which are in order; ``numbers`` has the names of all ids."""
        if not len(self._records[channel]):
            self._records[channel] = np.zeros(MAX_SYMBOLS, DTYPES[channel])
        self._records[channel][records["symbol"]] = records  # of equal symbols the last one stays
        self._numbers = numbers

    def of(self, symbol: str, channel: str) -> Quote | Trade | None:
        """Return the newest tick of ``symbol``, None if there is none. Raises ValueError for a channel."""
        number = _number_of(channel)
        tick = self._named(number).get(symbol)
        if tick is not None or self._numbers is None:
            return tick
        id_ = self._numbers.ids.get(symbol)
        held = [NO_QUOTES, NO_TRADES]
        if id_ is not None:
            found = self._records[number][id_ : id_ + 1]
            held[number] = found[found["g"] > 0]
        ticks: list[Any] = Batch([], 0, b"", held[QUOTES], held[TRADES], self._numbers.names).in_order()
        return next(iter(ticks), None)

    def _named(self, channel: int) -> dict[str, Any]:
        return self.quotes if channel == QUOTES else self.trades

    def frame(self, channel: str) -> Any:
        """Return the newest ticks of a channel as a DataFrame, by symbol in alphabetical order."""
        number = _number_of(channel)
        records = self._records[number]
        records = records[records["g"] > 0]
        if self._numbers is not None and len(records):
            names = self._numbers.names
        else:
            records, names = records_of(self._named(number).values(), channel)
        return frame_of(records, names, channel).sort_values("symbol", ignore_index=True)


def _number_of(channel: str) -> int:
    if channel not in CHANNELS:
        raise ValueError(f"channel: one of {', '.join(CHANNELS)}, not {channel!r}")
    return CHANNELS.index(channel)
