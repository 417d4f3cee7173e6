"""Ends sessions whose tokens have expired, within a second, without a timer for each."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Final

import trio

from marketfeed.errors import CloseCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.gateway.session import Session

LOOK_S: Final = 0.5  # at least, between looks while there are any: the Unix clock may be set


class Expiries:
    """Sessions with an end, soonest first. ``now_s`` is the Unix clock."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._due: list[tuple[float, int, Session]] = []
        self._numbers = itertools.count()
        self._added = trio.Event()

    def add(self, session: Session) -> None:
        """End ``session`` at its ``ends_s``, unless that is later by then."""
        if session.ends_s is not None:
            heapq.heappush(self._due, (session.ends_s, next(self._numbers), session))
            self._added.set()

    async def run(self) -> None:
        """End sessions until cancelled."""
        while True:
            if not self._due:
                self._added = trio.Event()
                await self._added.wait()
            self.look()
            await trio.sleep(LOOK_S)

    def look(self) -> None:
        """End the sessions that are due."""
        now_s = self._now_s()
        while self._due and self._due[0][0] <= now_s:
            session = heapq.heappop(self._due)[2]
            if session.ends_s is not None and session.ends_s <= now_s:
                session.end(CloseCode.TOKEN_EXPIRED)
