"""The figures a shard answers for: ledgers of its sessions, how long flushes took, what there is."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import trio

from marketfeed.core.records import CHANNELS
from marketfeed.core.rings import Rings
from marketfeed.fanout.encoding import POLL, PROBE
from marketfeed.fanout.lanes import Lanes
from marketfeed.fanout.ledger import Ledger
from marketfeed.fanout.subscriber import Subscriber

FLUSH_BOUNDS_S: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
MAX_SIZE_BITS: Final = 40  # of a frame's length
UNCOUNTED: Final = (POLL, PROBE)  # no sessions, and so in no ledger
YIELD_EVERY: Final = 256  # sessions or groups summed up before others get their turn
S: Final = 1_000_000_000  # ns


@dataclass(frozen=True, slots=True)
class ShardStatistics:
    """What :meth:`Figures.statistics` returns, at one moment."""

    sessions: int
    groups: int
    lanes: int
    lagging: int
    flushes: int
    frames: int


class Figures:
    """Looks at a shard's members and lanes, which it never changes, and keeps what is past."""

    def __init__(self, rings: Rings, members: Mapping[Subscriber, None], lanes: Lanes) -> None:
        self._rings = rings
        self._members = members
        self._lanes = lanes
        self.ended: dict[str, Ledger] = {}  # by tier, of sessions that are gone
        self.flushes = self.frames = self.failures = 0
        self.frame_sizes = [0] * MAX_SIZE_BITS  # by how many bits the length has
        self.sent_bytes = 0
        self.flush_seconds = 0.0
        self.flush_counts = [0] * (len(FLUSH_BOUNDS_S) + 1)

    def sent(self, size: int, members: int) -> None:
        """Count a frame of ``size`` bytes, offered to so many."""
        self.frames += members
        self.frame_sizes[size.bit_length()] += members
        self.sent_bytes += size * members

    def flushed(self, began_ns: int, ended_ns: int) -> None:
        """Count one flush that sent something."""
        self.flushes += 1
        seconds = (ended_ns - began_ns) / S
        self.flush_seconds += seconds
        self.flush_counts[bisect_left(FLUSH_BOUNDS_S, seconds)] += 1

    def end(self, member: Subscriber) -> None:
        """Book what is pending of a session that goes as abandoned, and keep its sums."""
        if member.encoding in UNCOUNTED:
            return
        for tier, ledger in self.ledgers(member).items():
            ledger.abandoned += ledger.pending
            ledger.pending = 0
            self.ended.setdefault(tier, Ledger()).add(ledger)

    def ledgers(self, member: Subscriber) -> dict[str, Ledger]:
        """Return the ledgers of ``member`` by tier as they stand at this moment, copies."""
        lane = self._lanes.get(member)
        return member.ledgers(lane.seen if lane is not None else None, self._rings)

    async def totals(self) -> dict[str, Ledger]:
        """Return the sums of all ledgers by tier, sessions that are gone included.

        Takes a while with many groups, and lets others run meanwhile; each
        group's figures are of one moment.
        """
        sums = {tier: Ledger() for tier in self.ended}
        for tier, ledger in self.ended.items():
            sums[tier].add(ledger)
        for number, member in enumerate([m for m in self._members if m.encoding not in UNCOUNTED]):
            if member.group is None:
                booked = self.ledgers(member)
            else:
                booked = {**(member.former or {}), member.booked: member.ledger}
            for tier, ledger in booked.items():
                sums.setdefault(tier, Ledger()).add(ledger)
            if number % YIELD_EVERY == 0:
                await trio.lowlevel.checkpoint()
        for lane in self._lanes:
            groups = [group for group in lane.groups.values() if group.encoding not in UNCOUNTED]
            for start in range(0, len(groups), YIELD_EVERY):
                published = [self._rings.published(channel) for channel in range(len(CHANNELS))]
                for group in groups[start : start + YIELD_EVERY]:
                    sums.setdefault(lane.tier.name, Ledger()).add(group.totals(lane.seen, published))
                await trio.lowlevel.checkpoint()
        return sums

    def statistics(self) -> ShardStatistics:
        """Return counts of what the shard holds and did."""
        lanes = list(self._lanes)
        return ShardStatistics(
            sessions=len(self._members),
            groups=sum(group.encoding is not PROBE for lane in lanes for group in lane.groups.values()),
            lanes=len(lanes),
            lagging=sum(member.behind for member in self._members),
            flushes=self.flushes,
            frames=self.frames,
        )
