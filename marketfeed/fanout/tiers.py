"""Tiers of delivery: how often a position advances, and what it takes with it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

from marketfeed.core.units import MS

PHASE_NS: Final = 25 * MS  # members are spread over an interval in steps no shorter than this
MAX_PHASES: Final = 8  # each is a lane, with 200 kB of arrays and a flush of its own, in every process


@dataclass(frozen=True, slots=True)
class Tier:
    """One class of delivery. ``every``: each tick; else the latest per symbol and channel."""

    name: str
    interval_ns: int  # 0: as soon as a tick is there
    every: bool
    send_buffer_bytes: int  # unsent bytes the kernel may hold for a session
    shift: float = 0.0  # of the grid, in steps between phases: so processes do not flush all at once

    @property
    def phases(self) -> int:
        """Return how many phases the interval is divided into; 1 for an immediate tier."""
        return max(1, min(MAX_PHASES, self.interval_ns // PHASE_NS))

    def phase_of(self, session: str) -> int:
        """Return the phase of a session, the hash of its id: the same as long as it has this tier."""
        return zlib.crc32(session.encode()) % self.phases

    def next_flush_ns(self, phase: int, now_ns: int) -> int:
        """Return the first moment after ``now_ns`` on the fixed grid of ``phase``.

        The grid does not move: a late flush is followed by one on time.
        """
        offset = int((phase + self.shift) * self.interval_ns / self.phases)
        return now_ns - (now_ns - offset) % self.interval_ns + self.interval_ns
