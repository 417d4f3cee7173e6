"""Sums of all ledgers for any number of requests: each is used again for a time that grows with its cost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from marketfeed.fanout.figures import Figures
    from marketfeed.fanout.ledger import Ledger

LEAST_S, MOST_S = 1.0, 20.0  # between two sums
SHARE: Final = 0.01  # of the process's time, for sums


def rest_s(took_s: float) -> float:
    """Return how long to wait before the next sum after one that took so much CPU time."""
    return min(max(LEAST_S, took_s / SHARE), MOST_S)


class RecentLedgers:
    """The sums of one shard's ``figures``."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._summing = trio.Lock()
        self._sums: dict[str, Ledger] = {}
        self._good_until_s: float | None = None

    async def get(self) -> dict[str, Ledger]:
        """Return the sums by tier, as they were at most :func:`rest_s` ago."""
        async with self._summing:  # who comes meanwhile gets the same sums
            if self._good_until_s is None or trio.current_time() >= self._good_until_s:
                began_s = time.thread_time()
                self._sums = await self._figures.totals(unhurried=True)
                took_s = time.thread_time() - began_s
                self._good_until_s = trio.current_time() + rest_s(took_s)
        return self._sums
