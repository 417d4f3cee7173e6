"""The ledger: every tick a session was entitled to is accounted for, exactly once.

    matched = delivered + conflated + lost + pending + abandoned

``matched`` comes from the ring counters alone; the others are counted where
they happen, so the sum is a check and not a definition.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Ledger:
    """Ticks of one session on one tier, or the sum of many such ledgers."""

    matched: int = 0  # published for its symbols since it subscribed to them
    delivered: int = 0  # in frames wholly accepted by the kernel
    conflated: int = 0  # left out because a newer tick took their place
    lost: int = 0  # overwritten before they could be read, and told
    pending: int = 0  # not yet any of the others
    abandoned: int = 0  # pending when the session ended or unsubscribed

    def add(self, other: Ledger, sign: int = 1) -> None:
        """Add the figures of ``other`` to this ledger's own; with ``sign`` -1, take them away."""
        self.matched += sign * other.matched
        self.delivered += sign * other.delivered
        self.conflated += sign * other.conflated
        self.lost += sign * other.lost
        self.pending += sign * other.pending
        self.abandoned += sign * other.abandoned

    @property
    def difference(self) -> int:
        """Return what is unaccounted for; anything but 0 is a bug in the engine."""
        return self.matched - (self.delivered + self.conflated + self.lost + self.pending + self.abandoned)
