"""Live views of alerts: sessions that see new alerts, and acknowledge none.

    entries ──► one task ──► every view that stands at the newest entry, encoded once per audience
                             views whose socket is full stay where they are, and read on when it has drained

A view is a position in the alert log, so there is no queue per session. An audience are the views with the
same patterns, symbols and encoding.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

import structlog
import trio

from marketfeed import clock
from marketfeed.alerts.log import matches
from marketfeed.alerts.messages import alert_message, arrays
from marketfeed.alerts.patterns import about
from marketfeed.alerts.service import AlertsOffError
from marketfeed.errors import AlertLogError

if TYPE_CHECKING:
    from marketfeed.alerts.log import Entry
    from marketfeed.alerts.service import AlertService
    from marketfeed.core.symbol_set import SymbolSet
    from marketfeed.fanout.shard import Shard
    from marketfeed.fanout.subscriber import Subscriber
    from marketfeed.gateway.outbox import Outbox

    Audience = tuple[tuple[str, ...], SymbolSet | None, str]  # patterns, symbols, encoding
    Frames = dict[Audience, tuple[bytes, int]]  # with the number of alerts in each

READ: Final = 128  # entries at a time, encoded in one go: about 1 ms
RETRY_S: Final = 1.0
SETS: Final = 64  # sets of symbols that views share

log = structlog.get_logger()


@lru_cache(maxsize=SETS)
def _shared(symbols: SymbolSet) -> SymbolSet:
    """Return the first of equal sets: two that are one are compared at once, however many names they have."""
    return symbols


class View:
    """One live view; ``position`` is that of the last entry it has been sent, or had no interest in."""

    __slots__ = ("_symbols", "catching_up", "member", "outbox", "patterns", "position")

    def __init__(self, member: Subscriber, outbox: Outbox, patterns: tuple[str, ...], position: int) -> None:
        self.member = member
        self.outbox = outbox
        self.patterns = patterns
        self.position = position
        self.catching_up = False
        self._symbols: SymbolSet | None = None

    @property
    def symbols(self) -> SymbolSet | None:
        """The symbols whose alerts it is sent, from its position on; None: all. May be set at any time."""
        return self._symbols

    @symbols.setter
    def symbols(self, symbols: SymbolSet | None) -> None:
        self._symbols = None if symbols is None or symbols.everything else _shared(symbols)

    @property
    def audience(self) -> Audience:
        """What a frame for this view depends on."""
        return self.patterns, self._symbols, self.member.encoding.name

    def wants(self, entry: Entry) -> bool:
        """Return whether ``entry`` is sent to it."""
        alert = entry.alert
        if entry.position <= self.position or entry.mark is not None or alert.to is not None:
            return False
        within = self._symbols is None or about(self._symbols, alert.symbol)
        return within and matches(self.patterns, alert.rule)


class LiveViews:
    """All live views of one process."""

    def __init__(self, alerts: AlertService, shard: Shard) -> None:
        self._alerts, self._shard = alerts, shard
        self._views: dict[View, None] = {}
        self._position = 0  # of the views that are not behind
        self._entered = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._encoding = trio.Lock()  # of the views that catch up, one encodes at a time
        self._turn = clock.Turn()  # of these together

    def __len__(self) -> int:
        """Return the number of views."""
        return len(self._views)

    def enter(self, view: View) -> None:
        """Send ``view`` what comes after its position, until :meth:`leave`."""
        if not self._views:
            self._position = view.position
        self._views[view] = None
        self._entered.set()
        if view.position < self._position:
            self.drained(view)

    def leave(self, view: View) -> None:
        """Send it nothing more. Idempotent."""
        self._views.pop(view, None)

    def drained(self, view: View) -> None:
        """Have ``view`` read on: its socket has room again."""
        behind = view in self._views and view.position < self._position
        if behind and not view.catching_up and self._nursery is not None:
            view.catching_up = True
            self._nursery.start_soon(self._catch_up, view)

    async def run(self) -> None:
        """Send new alerts to all views until cancelled."""
        async with trio.open_nursery() as self._nursery:
            while True:
                while not self._views:
                    self._entered = trio.Event()
                    await self._entered.wait()
                entries = await self._read(self._position)
                before, self._position = self._position, entries[-1].position
                await self._send(entries, before)

    async def _send(self, entries: list[Entry], before: int) -> None:
        """Send ``entries`` to the views that stand at ``before``."""
        frames: Frames = {}
        turn = clock.Turn()
        for view in list(self._views):
            if not before <= view.position < self._position or view.catching_up:
                continue
            # While the outbox holds bytes, it calls drained() later.
            if view in self._views and not view.outbox.waiting_bytes:
                self._offer(view, entries, frames)
            if turn.is_over():
                await trio.lowlevel.checkpoint()
                turn = clock.Turn()

    async def _catch_up(self, view: View) -> None:
        try:
            while view in self._views and view.position < self._position:
                entries = await self._read(view.position)
                async with self._encoding:
                    if view not in self._views or not self._offer(view, entries, {}):
                        return
                    if self._turn.is_over():
                        await trio.lowlevel.checkpoint()
                        self._turn = clock.Turn()
        finally:
            view.catching_up = False

    def _offer(self, view: View, entries: list[Entry], frames: Frames) -> bool:
        """Send a view its part of ``entries``; return False if its socket is full afterwards."""
        member, encoding = view.member, view.member.encoding
        audience, whole = view.audience, view.position < entries[0].position
        found = frames.get(audience) if whole else None
        if found is None:
            wanted = [alert_message(entry.alert) for entry in entries if view.wants(entry)]
            wall_ns = self._shard.wall_ns()
            found = b"".join(encoding.messages(array, wall_ns) for array in arrays(wanted)), len(wanted)
            if whole:
                frames[audience] = found
        view.position = entries[-1].position
        frame, alerts = found
        member.got_alerts(alerts, len(frame))
        if not frame or view.outbox.offer(frame):
            return True
        self._shard.filled(member)
        return False

    async def _read(self, position: int) -> list[Entry]:
        """Wait for entries after ``position``."""
        while True:
            try:
                return await self._alerts.entries(position, READ)
            except (AlertLogError, AlertsOffError) as error:
                log.warning("live views of alerts wait", reason=str(error))
                await trio.sleep(RETRY_S)
