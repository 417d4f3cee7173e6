"""Iterator over the new ticks in a tap's rings; reports lost ticks as gaps.

Synchronous, as the tap is. :meth:`marketfeed.shm.tap.Tap.follow` creates followers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from marketfeed.core.reader import Gap, NewTicks, RingReader

if TYPE_CHECKING:
    from marketfeed.shm.tap import Tap

__all__ = ["Follower", "Gap", "NewTicks"]


class Follower(Iterator[NewTicks]):
    """Iterates from its own position in a tap's rings. For one thread; :meth:`Tap.follow` creates it."""

    def __init__(self, tap: Tap, reader: RingReader, timeout_s: float | None) -> None:
        self.timeout_s = timeout_s
        self._tap = tap
        self._reader = reader

    @property
    def g(self) -> int:
        """Return the position: all ticks up to this ``g`` have been read or reported as lost."""
        return self._reader.g

    def __next__(self) -> NewTicks:
        """Return the next step that is not empty, or an empty one after ``timeout_s``."""
        deadline_s = None if self.timeout_s is None else time.monotonic() + self.timeout_s
        while not (step := self.take()):
            left_s = None if deadline_s is None else max(deadline_s - time.monotonic(), 0.0)
            if not self._tap.wait(left_s, after=self.g):
                break
        return step

    def take(self) -> NewTicks:
        """Return the ticks since the last step, possibly none; never waits."""
        return self._reader.take()
