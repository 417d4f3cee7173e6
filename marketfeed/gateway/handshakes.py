"""Handshake rate of one process, and the reconnect delays that follow from it.

If many sessions are closed at once, their clients would all reconnect at once. So the reconnects are spread
over the time in which this process, or its successor, can serve their handshakes. Time is an argument.
"""

from __future__ import annotations

import math
import random
from typing import Final

LEAST_PER_S: Final = 500.0  # assumed until more were measured: two cores serve 600 (perf.many, perf.turns)
WINDOW_S: Final = 1.0  # in which handshakes are counted
FLOOR_MS: Final = (500, 3000)  # the shortest range of reconnect delays
SOON_MS: Final = (10, 200)  # where another process, engine or configuration serves at once
MAX_RETRY_S: Final = 600.0  # the longest reconnect delay


class Handshakes:
    """Counts the handshakes of one process, and computes reconnect delays."""

    def __init__(self, limit_per_s: float = 0.0, processes: int = 1) -> None:
        """``limit_per_s`` is this process's share of the limit, or 0 for none; it may be changed.

        ``processes`` is the number of processes that share the clients.
        """
        self.limit_per_s = limit_per_s
        self.shown_per_s = 0  # the most within one window
        self._least_per_s = LEAST_PER_S / processes
        self._window_end_s = -math.inf
        self._in_window = 0
        self._waiting = 0.0  # estimate of the refused clients that have not been admitted since
        self._waiting_at_s = 0.0

    def done(self, now_s: float) -> None:
        """Count a handshake that began a session."""
        if now_s >= self._window_end_s:
            self._window_end_s, self._in_window = now_s + WINDOW_S, 0
        self._in_window += 1
        self.shown_per_s = max(self.shown_per_s, self._in_window)

    @property
    def rate_per_s(self) -> float:
        """Return how many handshakes a second this process is expected to serve."""
        shown = max(self._least_per_s, self.shown_per_s / WINDOW_S)
        return min(shown, self.limit_per_s) if self.limit_per_s else shown

    def retry_ms(self, sessions: int, at_once: bool = False) -> tuple[int, int]:
        """Return the range of reconnect delays for ``sessions`` that are closed together.

        ``at_once``: whoever takes them, as fast as this process, serves already.
        """
        first_ms, last_ms = SOON_MS if at_once else FLOOR_MS
        spread_ms = int(min(sessions / self.rate_per_s, MAX_RETRY_S) * 1000)
        return first_ms, max(last_ms, first_ms + spread_ms)

    def retry_after_s(self, now_s: float) -> int:
        """Count a handshake that the limit refuses; return the delay after which its client should retry.

        The delay is random within twice the time that the clients refused so far need, so that about as
        many retry each second as the limit admits.
        """
        served = (now_s - self._waiting_at_s) * self.rate_per_s
        self._waiting = max(0.0, self._waiting - served) + 1
        self._waiting_at_s = now_s
        spread_s = min(2 * self._waiting / self.rate_per_s, MAX_RETRY_S - 2)
        return random.randint(1, 2 + int(spread_s))
