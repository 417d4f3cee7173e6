"""Ends sessions whose tokens have expired, within a second, without a timer for each."""

from __future__ import annotations

import heapq
import itertools
import weakref
from typing import TYPE_CHECKING, Final

import trio

from marketfeed.errors import CloseCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.gateway.session import Session

    Entry = tuple[float, int, weakref.ref[Session]]  # Unix time of the end, a number for ties, the session

LEAST: Final = 1024  # entries that are never worth tidying
LOOK_S: Final = 0.5  # at least, between looks while there are any: the Unix clock may be set


class Expiries:
    """Sessions with an end, soonest first; it keeps none of them alive. ``now_s`` is the Unix clock."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._due: list[Entry] = []
        self._numbers = itertools.count()
        self._tidy_at = LEAST  # entries, with those of sessions that are gone or have renewed
        self._added = trio.Event()

    def add(self, session: Session) -> None:
        """End ``session`` at its ``ends_s``, unless that is later by then."""
        if session.ends_s is not None:
            heapq.heappush(self._due, (session.ends_s, next(self._numbers), weakref.ref(session)))
            self._added.set()
            if len(self._due) >= self._tidy_at:
                self._tidy()

    def _tidy(self) -> None:
        """Keep one entry of each session: a client may renew its token any number of times."""
        ends = {entry[2]: entry for entry in self._due if _is_current(entry)}
        self._due = list(ends.values())
        heapq.heapify(self._due)
        self._tidy_at = max(2 * len(self._due), LEAST)

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
            session = heapq.heappop(self._due)[2]()
            if session is not None and session.ends_s is not None and session.ends_s <= now_s:
                session.end(CloseCode.TOKEN_EXPIRED)


def _is_current(entry: Entry) -> bool:
    session = entry[2]()
    return session is not None and session.ends_s == entry[0]
