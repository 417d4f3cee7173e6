"""The newest tick of each symbol that a feed has received."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from marketfeed.client.batch import Batch
from marketfeed.client.frames import frame_of, records_of
from marketfeed.core.records import CHANNELS, DTYPES, NO_QUOTES, NO_TRADES, QUOTES, Records
from marketfeed.core.symbols import MAX_SYMBOLS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from marketfeed.client.messages import Quote, Trade

_NONE: Final = np.empty(0, object)


class Newest:
    """Newest ticks: structs by name on a JSON session, else a record per id of a symbol."""

    def __init__(self) -> None:
        self.quotes: dict[str, Quote] = {}
        self.trades: dict[str, Trade] = {}
        self._records = [NO_QUOTES, NO_TRADES]  # (MAX_SYMBOLS,) after the first tick, by id
        self._names: NDArray[np.object_] = _NONE

    def take(self, channel: int, records: Records, names: NDArray[np.object_]) -> None:
        """Keep ``records``, which are in order; ``names`` are those of all ids."""
        if not len(self._records[channel]):
            self._records[channel] = np.zeros(MAX_SYMBOLS, DTYPES[channel])
        self._records[channel][records["symbol"]] = records  # of equal symbols the last one stays
        self._names = names

    def of(self, symbol: str, channel: str) -> Quote | Trade | None:
        """Return the newest tick of ``symbol``, None if there is none."""
        named: Any = self.quotes if channel == CHANNELS[QUOTES] else self.trades
        if symbol in named:
            tick: Quote | Trade = named[symbol]
            return tick
        records = self._held(channel)
        found = records[self._names[records["symbol"]] == symbol] if len(records) else records
        if not len(found):
            return None
        none = [NO_QUOTES, NO_TRADES]
        none[CHANNELS.index(channel)] = found
        one: Any = Batch([], 0, b"", none[0], none[1], self._names).in_order()[0]
        return one  # type: ignore[no-any-return]

    def _held(self, channel: str) -> Records:
        """Return the newest record of each symbol that has one."""
        records = self._records[CHANNELS.index(channel)]
        return records[records["g"] > 0]

    def frame(self, channel: str) -> Any:
        """Return the newest ticks of a channel as a DataFrame, by symbol in alphabetical order."""
        if channel not in CHANNELS:
            raise ValueError(f"channel: one of {', '.join(CHANNELS)}, not {channel!r}")
        records, names = self._held(channel), self._names
        if not len(records):
            named: Any = self.quotes if channel == CHANNELS[QUOTES] else self.trades
            records, names = records_of(named.values(), channel)
        return frame_of(records, names, channel).sort_values("symbol", ignore_index=True)
