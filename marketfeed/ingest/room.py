"""Room in the rings for feeds whose source can wait, such as a recording played as fast as possible.

Such a feed publishes at most ``lead`` ticks beyond the slowest session that gets every tick, so
that no session lags and no ring wraps past a tick that one of them has not been sent yet.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


class Room:
    """Grants ticks to feeds, one feed at a time in order of asking.

    ``head()`` returns the highest ``g`` published. ``wait_reached(g)`` returns once every session
    on an ``every`` tier has taken all its ticks up to ``g``, or there is no such session.
    """

    def __init__(
        self, head: Callable[[], int], lead: int, wait_reached: Callable[[int], Awaitable[None]]
    ) -> None:
        """``lead`` is in ticks of all symbols together, at least 2."""
        self._head = head
        self._lead = lead
        self._grant = lead // 2  # so that sessions take one half while the feed prepares the other
        self._wait_reached = wait_reached
        # The next feed looks at the head after this one has published: there is no checkpoint between
        # the release and the return to the feed.
        self._lock = trio.Lock()

    async def wait(self) -> int:
        """Wait for room; return how many ticks may be published before the next call. A checkpoint."""
        async with self._lock:
            await self._wait_reached(self._head() + self._grant - self._lead)
            return self._grant
