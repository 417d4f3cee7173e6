"""How far the slowest session on an ``every`` tier is, for feeds that wait for it.

A session in a group stands where its lane stands; one that is alone (its socket is full, or it
catches up) at its own ``g``. "Reached" means taken from the rings: what waits in a socket's
outbox no ring can overwrite. Polls and the engine's own probes are not waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from marketfeed.core.units import S
from marketfeed.fanout.state import State
from marketfeed.fanout.wire import is_session

if TYPE_CHECKING:
    from marketfeed.fanout.keepalive import LifeSigns
    from marketfeed.fanout.lanes import Lanes
    from marketfeed.fanout.subscriber import Subscriber

# A session with which one wait has lasted this many times `limits.stall_s` is waited for no longer. One that
# acknowledges nothing is cut after `stall_s`; this bounds one that acknowledges a few bytes now and then.
MOST_STALLS: Final = 3


class Slowest:
    """Looks at the lanes of a shard, and at the sessions of ``every`` tiers that are in no group."""

    def __init__(self, lanes: Lanes, life_signs: LifeSigns) -> None:
        self._lanes = lanes
        self._life_signs = life_signs
        self._last: Subscriber | None = None  # found behind by the last look
        self._moved = trio.Event()
        self.waits = 0  # under way; while 0 the shard need not call `moved`

    def moved(self) -> None:
        """Wake who waits, after positions changed."""
        self._moved.set()
        self._moved = trio.Event()

    async def wait(self, g: int) -> None:
        """Return once every session has taken all its ticks up to ``g``; at once if there is none."""
        until_s = self._until_s()
        self.waits += 1
        try:
            while not self.reached(g):
                with trio.move_on_at(until_s) as patience:
                    await self._moved.wait()
                if patience.cancelled_caught:
                    self._give_up(g)
                    until_s = self._until_s()
        finally:
            self.waits -= 1

    def _until_s(self) -> float:
        return trio.current_time() + MOST_STALLS * self._life_signs.timing.stall_ns / S

    def reached(self, g: int) -> bool:
        """Tell whether every session that is waited for has taken all its ticks up to ``g``.

        Costs a step for each lane and each session alone; while one and the same session is behind, one step.
        """
        apart = self._lanes.apart
        if self._last is not None and self._last in apart and _is_behind(self._last, g):
            return False
        self._last = next((member for member in apart if _is_behind(member, g)), None)
        if self._last is not None:
            return False
        return not any(
            lane.g < g
            and lane.tier.every
            and any(is_session(group.encoding) for group in lane.groups.values())
            for lane in self._lanes
        )

    def _give_up(self, g: int) -> None:
        """Wait no longer for the sessions that are behind ``g``, until they have caught up."""
        for member in self._lanes.apart:
            if _is_behind(member, g):
                member.awaited = False


def _is_behind(member: Subscriber, g: int) -> bool:
    if member.g >= g or not member.awaited or not is_session(member.encoding):
        return False
    if member.state is State.GONE:
        return False
    return member.names.size > 0
