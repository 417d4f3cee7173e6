"""Flow control for feeds whose source can wait, such as a recording replayed as fast as possible.

Such feeds publish at most ``lead`` ticks beyond the slowest session that gets every tick. So no session
lags, and no ring overwrites a tick before every session has been sent it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Room:
    """Grants feeds the right to publish ticks.

    ``head()`` returns the highest ``g`` published. ``wait_reached(g)`` returns once every session
    on an ``every`` tier has consumed its ticks up to ``g``, or if there is no such session.
    """

    def __init__(
        self, head: Callable[[], int], lead: int, wait_reached: Callable[[int], Awaitable[None]]
    ) -> None:
        """``lead`` counts ticks of all symbols, at least 2."""
        self._head = head
        self._lead = lead
        self._half = lead // 2  # sessions consume one half while feeds decode the other
        self._wait_reached = wait_reached
        self._reached = 0  # position reached by all sessions at the last check
        # One feed waits at a time: feeds woken together would each use the same room.
        self._waiting = trio.Lock()

    async def wait(self) -> int:
        """Wait for room; return how many ticks may be published before the next call. A checkpoint.

        Publish before the next checkpoint, or another feed uses the same room.
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
            least = 1  # live feeds may have used the room meanwhile; guarantee progress
        return free
