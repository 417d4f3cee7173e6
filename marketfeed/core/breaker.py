"""Circuit breaker: stops calls to a peer that keeps failing, and probes it later. Pure.

    closed ──── failures in a row, or a wait that the peer asked for ────► open
      ▲                                                                   │  ▲
      │ the probe succeeds                              its time passes   ▼  │ the probe fails: twice as long
      └─────────────────────────────────────────────────────────────── half-open

Times are ns of one monotonic clock, which the caller passes in.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from marketfeed.core.units import S

FAILURES: Final = 5
FIRST_OPEN_NS: Final = 30 * S
MOST_OPEN_NS: Final = 600 * S


class BreakerState(enum.StrEnum):
    """Which calls a breaker admits."""

    CLOSED = "closed"  # all
    OPEN = "open"  # none
    HALF_OPEN = "half-open"  # one at a time, the probe


class BreakerStatistics(msgspec.Struct, frozen=True):
    """State of a breaker at one moment, and what it has counted since its construction."""

    state: BreakerState
    succeeded: int  # calls
    failed: int  # calls
    refused: int  # calls that were not admitted
    opened: int  # transitions to open


class Breaker:
    """Circuit breaker for one peer.

    Opens after ``failures`` failed calls in a row for ``first_open_ns``, then after each failed probe for
    twice as long, at most ``most_open_ns``. Each call that :meth:`admit` admits is ended by exactly one of
    :meth:`succeeded`, :meth:`failed` and :meth:`release`.
    """

    def __init__(
        self, failures: int = FAILURES, first_open_ns: int = FIRST_OPEN_NS, most_open_ns: int = MOST_OPEN_NS
    ) -> None:
        self._failures, self._first_open_ns, self._most_open_ns = failures, first_open_ns, most_open_ns
        self._state = BreakerState.CLOSED
        self._period = 0  # number of state changes: tells calls of an earlier state from those of this one
        self._in_a_row = 0
        self._open_ns = first_open_ns  # how long it opens next
        self._until_ns = 0
        self._probing = False
        self._count = {"succeeded": 0, "failed": 0, "refused": 0, "opened": 0}

    def state(self, now_ns: int) -> BreakerState:
        """Return the state at ``now_ns``."""
        over = self._state is BreakerState.OPEN and now_ns >= self._until_ns
        return BreakerState.HALF_OPEN if over else self._state

    def admit(self, now_ns: int) -> int | None:
        """Begin a call: return its number, or None if it must not be made now."""
        state = self.state(now_ns)
        if state is not self._state:
            self._enter(state)
        if state is BreakerState.OPEN or self._probing:
            self._count["refused"] += 1
            return None
        self._probing = state is BreakerState.HALF_OPEN
        return self._period

    def wait_ns(self, now_ns: int) -> int:
        """Return how long it stays open; 0 if it is not."""
        return max(self._until_ns - now_ns, 0) if self._state is BreakerState.OPEN else 0

    def succeeded(self, call: int) -> None:
        """End ``call``: the peer works. One admitted in an earlier state is only counted."""
        self._count["succeeded"] += 1
        if call == self._period:
            self._in_a_row, self._open_ns = 0, self._first_open_ns
            if self._state is BreakerState.HALF_OPEN:
                self._enter(BreakerState.CLOSED)

    def failed(self, call: int, now_ns: int, wait_ns: int = 0) -> None:
        """End ``call``: the peer does not work. One admitted in an earlier state is only counted.

        With ``wait_ns`` the peer asked for no further calls for that long: it opens at once, for at least
        that time.
        """
        self._count["failed"] += 1
        if call != self._period:
            return
        self._in_a_row += 1
        if self._state is BreakerState.HALF_OPEN or wait_ns or self._in_a_row >= self._failures:
            self._enter(BreakerState.OPEN)
            self._count["opened"] += 1
            self._until_ns = now_ns + max(self._open_ns, wait_ns)
            self._open_ns = min(2 * self._open_ns, self._most_open_ns)

    def release(self, call: int) -> None:
        """End ``call`` without a verdict, such as one that was cancelled."""
        if call == self._period:
            self._probing = False

    def statistics(self, now_ns: int) -> BreakerStatistics:
        """Return the state at ``now_ns`` and the counters."""
        return BreakerStatistics(self.state(now_ns), **self._count)

    def _enter(self, state: BreakerState) -> None:
        self._state, self._in_a_row, self._probing = state, 0, False
        self._period += 1
