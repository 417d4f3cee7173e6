"""Gap detection from the numbers of the ticks.

Each tick has a number ``n`` within its symbol and channel, 1, 2, 3 … without
holes. So missing ticks can be counted, on any tier and without the engine's
``gap`` messages. (``n`` wraps at 2**32 in records; a recording is assumed not
to reach that.)
"""

from __future__ import annotations

import numpy as np

from marketfeed.core.records import CHANNELS, FLAG_SNAPSHOT, Records
from marketfeed.core.symbols import MAX_SYMBOLS


class GapCounter:
    """Counts missing ticks, from the last ``n`` of every symbol and channel of one epoch."""

    def __init__(self) -> None:
        self._last = np.zeros((len(CHANNELS), MAX_SYMBOLS), np.int64)

    def forget(self) -> None:
        """Reset, for another epoch."""
        self._last[:] = 0

    def take(self, channel: int, records: Records) -> int:
        """Return how many ticks are missing before or within ``records``, which are in order of arrival.

        The first tick of a symbol has ``n`` 1, or is a snapshot with any ``n``. Repeated ticks are not gaps.
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
        # If a symbol occurs more than once, the last assignment wins: its newest tick.
        self._last[channel][symbols] = np.maximum(ns, self._last[channel][symbols])
        return int(missing.sum())
