"""Statistics of a shard: sums of ledgers, durations of flushes, numbers of sessions and groups."""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import trio

from marketfeed.core.records import CHANNELS
from marketfeed.core.units import S
from marketfeed.fanout.ledger import Ledger
from marketfeed.fanout.wire import is_session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from marketfeed.core.rings import Indices, Rings
    from marketfeed.fanout.group import Group
    from marketfeed.fanout.lanes import Lanes
    from marketfeed.fanout.subscriber import Subscriber

FLUSH_BOUNDS_S: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
MAX_SIZE_BITS: Final = 40  # of the length of a frame
YIELD_EVERY: Final = 128  # sessions or groups between two yields
SYMBOLS: Final = 512  # that take as long as one session or group
REST: Final = 9  # times the duration of the work that precedes it, if unhurried


@dataclass(frozen=True, slots=True)
class ShardStatistics:
    """Result of :meth:`Figures.statistics`."""

    sessions: int
    groups: int
    lanes: int
    lagging: int
    flushes: int
    frames: int


class Figures:
    """Reads the members and lanes of a shard, and keeps the sums of ended sessions."""

    def __init__(self, rings: Rings, members: Mapping[Subscriber, None], lanes: Lanes) -> None:
        self._rings = rings
        self._members = members
        self._lanes = lanes
        self.ended: dict[str, Ledger] = {}  # by tier, of ended sessions
        self._summing = trio.Lock()
        self._unhurried = False
        # The sum in progress, and the sessions that it contains.
        self._sum: tuple[dict[str, Ledger], set[Subscriber]] | None = None
        self.flushes = self.frames = self.failures = 0
        self.frame_sizes = [0] * MAX_SIZE_BITS  # by the number of bits of the length
        self.sent_bytes = 0
        self.flush_seconds = 0.0
        self.flush_counts = [0] * (len(FLUSH_BOUNDS_S) + 1)

    def sent(self, size: int, members: int) -> None:
        """Count a frame of ``size`` bytes that was offered to ``members`` sessions."""
        self.frames += members
        self.frame_sizes[size.bit_length()] += members
        self.sent_bytes += size * members

    def flushed(self, began_ns: int, ended_ns: int) -> None:
        """Count a flush that sent frames."""
        self.flushes += 1
        seconds = (ended_ns - began_ns) / S
        self.flush_seconds += seconds
        self.flush_counts[bisect_left(FLUSH_BOUNDS_S, seconds)] += 1

    def end(self, member: Subscriber) -> None:
        """Add the ledgers of an ending session to ``ended``, with its pending ticks as abandoned."""
        if not is_session(member.encoding):
            return
        ledgers = self.ledgers(member)
        for ledger in ledgers.values():
            ledger.abandoned += ledger.pending
            ledger.pending = 0
        _add(self.ended, ledgers)
        if self._sum is not None and member not in self._sum[1]:
            self._sum[1].add(member)
            _add(self._sum[0], ledgers)

    def ledgers(self, member: Subscriber) -> dict[str, Ledger]:
        """Return copies of the present ledgers of ``member``, by tier."""
        lane = self._lanes.get(member)
        return member.ledgers(lane.seen if lane is not None else None, self._rings)

    async def totals(self, unhurried: bool = False) -> dict[str, Ledger]:
        """Return the sums of all ledgers by tier, with those of ended sessions.

        Yields to other tasks. If ``unhurried``, it uses a tenth of the time, as long as no other call waits.
        Each session is counted once and at one time, even if it ends or changes group meanwhile, so no sum is
        ever below an earlier one.
        """
        async with self._summing:  # later answers include everything in earlier ones
            self._unhurried = unhurried
            sums: dict[str, Ledger] = {}
            _add(sums, self.ended)
            self._sum = (sums, set())
            try:
                await self._add_groups(*self._sum)
                await self._add_rest(*self._sum)
            finally:
                self._sum = None
            return sums

    async def _add_groups(self, sums: dict[str, Ledger], counted: set[Subscriber]) -> None:
        """Add the members of groups, at the cost of one session per group and little per member."""
        began_ns = time.thread_time_ns()
        for lane in self._lanes:
            groups = [group for group in lane.groups.values() if is_session(group.encoding)]
            while groups:
                work, some = 0, []
                while groups and work < YIELD_EVERY:
                    some.append(groups.pop())
                    work += 1 + len(some[-1].members) + sum(some[-1].interest.counts()) // SYMBOLS
                await self._pause(began_ns)
                began_ns = time.thread_time_ns()
                published = [self._rings.published(channel) for channel in range(len(CHANNELS))]
                places = zip(_positions(some, lane.seen), _positions(some, published), strict=True)
                for group, (position, newest) in zip(some, places, strict=True):
                    _add(sums, {lane.tier.name: group.totals(position, newest)})
                    for member in group.members:
                        self._count(member, sums, counted)

    async def _pause(self, began_ns: int) -> None:
        """Yield to other tasks; ``began_ns`` is the CPU time at the end of the last pause."""
        if self._unhurried and not self._summing.statistics().tasks_waiting:
            await trio.sleep((time.thread_time_ns() - began_ns) * REST / S)
        else:
            await trio.lowlevel.checkpoint()

    def _count(self, member: Subscriber, sums: dict[str, Ledger], counted: set[Subscriber]) -> None:
        """Add what a member was sent before it joined its group."""
        if member in counted:  # it has come from a group that was counted before
            _add(sums, {member.ledger_tier: self.ledgers(member)[member.ledger_tier]}, -1)
        else:
            counted.add(member)
            if member.earlier:
                _add(sums, member.earlier)
        _add(sums, {member.ledger_tier: member.ledger})

    async def _add_rest(self, sums: dict[str, Ledger], counted: set[Subscriber]) -> None:
        """Add sessions in no group, and those that joined a group after it was counted."""
        began_ns = time.thread_time_ns()
        rest = [m for m in self._members if m not in counted and is_session(m.encoding)]
        work = 0
        for member in rest:
            if member not in counted:  # otherwise it has ended meanwhile
                counted.add(member)
                _add(sums, self.ledgers(member))
            work += 1 + sum(member.interest.counts()) // SYMBOLS
            if work >= YIELD_EVERY:
                work = 0
                await self._pause(began_ns)
                began_ns = time.thread_time_ns()

    def statistics(self) -> ShardStatistics:
        """Return the numbers of sessions, groups and lanes, and counts of flushes and frames."""
        lanes = list(self._lanes)
        return ShardStatistics(
            sessions=len(self._members),
            groups=sum(
                group.encoding.counted and bool(group.members)
                for lane in lanes
                for group in lane.groups.values()
            ),
            lanes=len(lanes),
            lagging=sum(member.lagging for member in self._members),
            flushes=self.flushes,
            frames=self.frames,
        )


def _positions(groups: list[Group], ns: list[Indices]) -> list[int]:
    """Return, for each group, how many ticks of its symbols lie up to ``ns`` of each channel."""
    positions = np.zeros(len(groups), np.int64)
    for channel, upto in enumerate(ns):
        symbols = [group.interest.symbols[channel] for group in groups]
        ends = np.cumsum([0, *map(len, symbols)])
        sums = np.cumsum(np.concatenate([[0], upto[np.concatenate(symbols)]]))
        positions += np.diff(sums[ends])
    return positions.tolist()


def _add(sums: dict[str, Ledger], ledgers: Mapping[str, Ledger], sign: int = 1) -> None:
    for tier, ledger in ledgers.items():
        sums.setdefault(tier, Ledger()).add(ledger, sign)
