"""Delivery tiers: the interval between flushes, and which ticks a flush sends."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

from marketfeed.core.units import MS

PHASE_NS: Final = 25 * MS  # minimum distance between the phases of an interval
MAX_PHASES: Final = 8  # each is a lane with 200 kB of arrays and its own flush, in every process


@dataclass(frozen=True, slots=True)
class Tier:
    """One delivery class. ``every``: every tick; otherwise the latest per symbol and channel."""

    name: str
    interval_ns: int  # 0: flush at once
    every: bool
    send_buffer_bytes: int  # unsent bytes that the kernel may hold per session
    shift: float = 0.0  # of the grid, as a fraction of the distance between phases; differs between processes

    @property
    def phases(self) -> int:
        """Return the number of phases of the interval; 1 for an immediate tier."""
        return max(1, min(MAX_PHASES, self.interval_ns // PHASE_NS))

    def phase_of(self, session: str) -> int:
        """Return the phase of a session, a hash of its id. Constant while it has this tier."""
        return zlib.crc32(session.encode()) % self.phases

    def next_flush_ns(self, phase: int, now_ns: int) -> int:
        """Return the first time after ``now_ns`` on the fixed grid of ``phase``.

        The grid does not move: a late flush is followed by one on time.
        """
        offset = int((phase + self.shift) * self.interval_ns / self.phases)
        return now_ns - (now_ns - offset) % self.interval_ns + self.interval_ns
