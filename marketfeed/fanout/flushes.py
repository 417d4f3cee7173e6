"""Flushes: each group of a lane gets its new ticks as one frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketfeed import clock
from marketfeed.fanout.wire import Moment
from marketfeed.latency.recorder import Flush, Marks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from marketfeed.core.rings import Rings
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.fanout.figures import Figures
    from marketfeed.fanout.group import Group
    from marketfeed.fanout.lane import Lane
    from marketfeed.fanout.lanes import Lanes
    from marketfeed.fanout.polls import Polls
    from marketfeed.fanout.subscriber import Blocked

# Between two yields: about 6 ms. With more yields, requests received meanwhile would delay the flush more.
YIELD_SENDS: Final = 1024


class Flushes:
    """Sends the new ticks of lanes; counts what was sent.

    ``wall_ns`` is the Unix clock of message stamps; ``wake`` requests another cycle of the shard.
    """

    def __init__(
        self,
        rings: Rings,
        symbols: SymbolTable,
        lanes: Lanes,
        polls: Polls,
        figures: Figures,
        wall_ns: Callable[[], int],
        wake: Callable[[], None],
    ) -> None:
        self._rings = rings
        self._symbols = symbols
        self._lanes = lanes
        self._polls = polls
        self._figures = figures
        self._wall_ns = wall_ns
        self._wake = wake

    def flush(self, lane: Lane, now_ns: int, late_ns: int = -1) -> Iterator[None]:  # noqa: C901 - hot: no call per group
        """Send each group of ``lane`` its new ticks, ``late_ns`` after the due time (-1: none).

        Yields after every YIELD_SENDS sends: other tasks should run. The flush has to be run to its end.
        """
        head = self._lanes.learn()
        began_ns = self._wall_ns()  # after the head: everything up to it was published before
        groups = lane.collect(head)
        if not groups:
            return
        marks = Marks()
        blocked: Blocked = []
        sends = 0
        moment = Moment(self._rings.epoch, lane.g, self._wall_ns())
        for group in groups:
            members = group.members
            if not members:  # to be dissolved later
                group.content.clear()
                continue
            count = len(members)
            message, ticks = group.frame(moment, self._symbols)
            group.sent_ns = now_ns
            self._figures.sent(len(message), count)
            if count > YIELD_SENDS:
                yield from self._offer_widely(group, message, ticks, blocked, marks)
                sends = 0
                continue
            if group.encoding.counted:
                marks.deliveries += ticks * count
            else:
                marks.through(self._wall_ns())  # the engine's own probe does not delay clients
            for member, offer in members.items():
                if not offer(message):
                    blocked.append((member, ticks, message))
            sends += count
            if sends >= YIELD_SENDS:
                sends = 0
                marks.through(self._wall_ns())
                yield
        marks.through(self._wall_ns())
        parts = marks.parts()
        for member, ticks, message in blocked:
            lane.leave(member)
            marks.deliveries -= ticks if member.encoding.counted else 0
            member.hold(message, ticks)
        lane.record(Flush(began_ns, moment.sent_ns, late_ns, parts, marks.deliveries))
        for group in groups:
            if group.encoding.one_shot:
                self._polls.dissolve(lane, group)
        if blocked or lane.g < self._rings.head():
            self._wake()  # more ticks than one flush sends, or new ones
        self._figures.flushed(now_ns, clock.now_ns())

    def _offer_widely(
        self, group: Group, message: bytes, ticks: int, blocked: Blocked, marks: Marks
    ) -> Iterator[None]:
        """Offer ``message`` to a large group, yielding after every YIELD_SENDS members."""
        members = list(group.members.items())
        for start in range(0, len(members), YIELD_SENDS):
            for member, offer in members[start : start + YIELD_SENDS]:
                if not offer(message):
                    blocked.append((member, ticks, message))
            marks.deliveries += ticks * len(members[start : start + YIELD_SENDS])
            marks.through(self._wall_ns())
            yield
