"""The ledger: accounts for every tick that matched a subscription, exactly once.

    matched = delivered + conflated + lost + pending + abandoned

``matched`` comes from the ring counters only; the other counts are made where the events happen, so the
equation is a check and not a definition.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Ledger:
    """Ticks of one session on one tier, or the sum of many such ledgers."""

    matched: int = 0  # published for its symbols since it subscribed to them
    delivered: int = 0  # in frames that the kernel accepted as a whole
    conflated: int = 0  # replaced by a newer tick
    lost: int = 0  # overwritten before they were read; reported to the client
    pending: int = 0  # none of the others yet
    abandoned: int = 0  # pending when the session ended or unsubscribed

    def add(self, other: Ledger, sign: int = 1) -> None:
        """Add the counts of ``other``; subtract them with ``sign`` -1."""
        self.matched += sign * other.matched
        self.delivered += sign * other.delivered
        self.conflated += sign * other.conflated
        self.lost += sign * other.lost
        self.pending += sign * other.pending
        self.abandoned += sign * other.abandoned

    @property
    def difference(self) -> int:
        """Return the ticks that are unaccounted for; a value other than 0 is a bug in the engine."""
        return self.matched - (self.delivered + self.conflated + self.lost + self.pending + self.abandoned)


@dataclass(slots=True)
class SessionLedger(Ledger):
    """Ledger of one session on one tier, with what its usage consists of besides; see meter.py."""

    trades: int = 0  # of the delivered ticks
    sent_bytes: int = 0  # of frames with its ticks, snapshots and messages about them
