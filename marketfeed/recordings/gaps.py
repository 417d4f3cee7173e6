"""Whether a stream of ticks is complete, by the numbers the ticks carry themselves.

Each tick has its ``n`` in its symbol's ring, 1, 2, 3 … without holes. So what is
missing can be counted, whatever the tier and whatever the engine told. (A
symbol's n is taken to stay below 2**32, where records begin anew.)
"""

from __future__ import annotations

import numpy as np

from marketfeed.core.records import CHANNELS, FLAG_SNAPSHOT, Records
from marketfeed.core.symbols import MAX_SYMBOLS


class Holes:
    """Remembers the last ``n`` of every symbol and channel of one epoch."""

    def __init__(self) -> None:
        self._last = np.zeros((len(CHANNELS), MAX_SYMBOLS), np.int64)

    def forget(self) -> None:
        """Begin anew, with another epoch."""
        self._last[:] = 0

    def take(self, channel: int, records: Records) -> int:
        """Return how many ticks are missing before those of ``records``, QUOTE or TRADE, in order of arrival.

        The first tick of a symbol may be a snapshot of any ``n``; otherwise it
        is 1. Ticks that come a second time are no hole.
        """
        order = np.argsort(records["symbol"], kind="stable")
        symbols = records["symbol"][order].astype(np.int64)
        ns = records["n"][order].astype(np.int64)
        first = np.ones(len(ns), bool)
        first[1:] = symbols[1:] != symbols[:-1]
        before = np.roll(ns, 1)
        before[first] = self._last[channel][symbols[first]]
        snapshot = records["flags"][order] & FLAG_SNAPSHOT > 0
        missing = np.where(snapshot & (before == 0), 0, np.maximum(ns - before - 1, 0))
        # With a symbol more than once the last assignment stands: the newest.
        self._last[channel][symbols] = np.maximum(ns, self._last[channel][symbols])
        return int(missing.sum())
