"""Round trips of pings: a histogram per tier."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from marketfeed.core.units import S

if TYPE_CHECKING:
    from collections.abc import Iterable

ROUND_TRIP_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class RoundTrips:
    """Round trips since the start, by the tier that the session had when it answered."""

    def __init__(self) -> None:
        self.counts: dict[str, list[int]] = {}  # per bucket of ROUND_TRIP_BOUNDS_S and one above
        self.seconds: dict[str, float] = {}  # sums

    def record(self, tier: str, round_trip_ns: int) -> None:
        """Count one round trip."""
        if tier not in self.counts:
            self.counts |= empty([tier])
        seconds = round_trip_ns / S
        self.counts[tier][bisect_left(ROUND_TRIP_BOUNDS_S, seconds)] += 1
        self.seconds[tier] = self.seconds.get(tier, 0.0) + seconds


def empty(tiers: Iterable[str]) -> dict[str, list[int]]:
    """Return counts of zero for each of ``tiers``."""
    return {tier: [0] * (len(ROUND_TRIP_BOUNDS_S) + 1) for tier in tiers}
