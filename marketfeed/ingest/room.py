"""Room in the rings for feeds whose source can wait, such as a recording played as fast as possible.

Such a feed publishes at most ``lead`` ticks beyond the slowest session that gets every tick, so
that no session lags and no ring wraps past a tick that one of them has not been sent yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Room:
    """Grants ticks to feeds.

    ``head()`` returns the highest ``g`` published. ``wait_reached(g)`` returns once every session
    on an ``every`` tier has taken all its ticks up to ``g``, or there is no such session.
    """

    def __init__(
        self, head: Callable[[], int], lead: int, wait_reached: Callable[[int], Awaitable[None]]
    ) -> None:
        """``lead`` is in ticks of all symbols together, at least 2."""
        self._head = head
        self._lead = lead
        self._half = lead // 2  # so that sessions take one half while feeds prepare the other
        self._wait_reached = wait_reached
        self._reached = 0  # by all sessions, when they were last asked
        # Feeds wait one after the other: those that wake up together would each take the same room.
        self._waiting = trio.Lock()

    async def wait(self) -> int:
        """Wait for room; return how many ticks may be published before the next call. A checkpoint.

        Between the return and the publishing no other feed may run, or both would take the same room.
        """
        await trio.lowlevel.checkpoint()
        free = self._free()
        if free <= 0:
            async with self._waiting:
                free = await self._wait_free()
        return min(free, self._half)

    def _free(self) -> int:
        return self._reached + self._lead - self._head()

    async def _wait_free(self) -> int:
        """Return how many ticks there is room for, at least 1."""
        least = 0
        while (free := max(self._free(), least)) <= 0:
            g = self._head() + self._half - self._lead
            await self._wait_reached(g)
            self._reached = max(self._reached, g)
            least = 1  # feeds of live data may have taken the room meanwhile: some progress in any case
        return free
