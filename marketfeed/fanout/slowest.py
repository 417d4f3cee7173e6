"""Wait for the slowest session on an ``every`` tier: back-pressure for feeds that can wait.

A live session is at the position of its lane, any other at its own ``g``. A session has "reached" a ``g``
when it has read its ticks up to there from the rings: the rings cannot overwrite what an outbox holds. Polls
and the engine's own probes are not waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from marketfeed.core.units import S
from marketfeed.fanout.state import State
from marketfeed.fanout.wire import is_session

if TYPE_CHECKING:
    from marketfeed.fanout.keepalive import KeepAlive
    from marketfeed.fanout.lanes import Lanes
    from marketfeed.fanout.subscriber import Subscriber

# After this many times `limits.stall_s`, a wait ignores the sessions that have not caught up. Sessions that
# acknowledge nothing end after `stall_s`; this bounds those that acknowledge a few bytes now and then.
MOST_STALLS: Final = 3


class Slowest:
    """Minimum position over the lanes of a shard and the sessions on ``every`` tiers that are in no group."""

    def __init__(self, lanes: Lanes, keepalive: KeepAlive) -> None:
        self._lanes = lanes
        self._keepalive = keepalive
        self._last: Subscriber | None = None  # found behind by the last call of `reached`
        self._moved = trio.Event()
        self.waits = 0  # in progress; while 0 the shard need not call `moved`

    def moved(self) -> None:
        """Wake all waits, after positions have changed."""
        self._moved.set()
        self._moved = trio.Event()

    async def wait(self, g: int) -> None:
        """Return once every session has reached ``g``; at once if there is no session."""
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
        return trio.current_time() + MOST_STALLS * self._keepalive.timing.stall_ns / S

    def reached(self, g: int) -> bool:
        """Return whether every session that is waited for has reached ``g``.

        The cost is proportional to the lanes and to the sessions in no group; constant while the session that
        the last call found behind still is.
        """
        ungrouped = self._lanes.ungrouped
        if self._last is not None and self._last in ungrouped and _is_behind(self._last, g):
            return False
        self._last = next((member for member in ungrouped if _is_behind(member, g)), None)
        if self._last is not None:
            return False
        return not any(
            lane.g < g
            and lane.tier.every
            and any(is_session(group.encoding) for group in lane.groups.values())
            for lane in self._lanes
        )

    def _give_up(self, g: int) -> None:
        """Ignore the sessions that are behind ``g`` until they have caught up."""
        for member in self._lanes.ungrouped:
            if _is_behind(member, g):
                member.awaited = False


def _is_behind(member: Subscriber, g: int) -> bool:
    if member.g >= g or not member.awaited or not is_session(member.encoding):
        return False
    if member.state is State.GONE:
        return False
    return member.names.size > 0
