"""Life signs: silent sessions are spoken to, and those that are gone or stuck are given up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from marketfeed.core.units import MS, S
from marketfeed.errors import CloseCode
from marketfeed.fanout.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from marketfeed.fanout.subscriber import Subscriber

MAX_PINGS: Final = 3  # unanswered in a row
LOOK_MEMBERS: Final = 256  # looked at in one go
LEAST_PINGS: Final = 8  # that one look may send


@dataclass(frozen=True, slots=True)
class Timing:
    """When a session is spoken to, and when it is given up; nanoseconds."""

    heartbeat_ns: int
    ping_ns: int
    stall_ns: int

    @property
    def period_ns(self) -> int:
        """Return how often to look at sessions: so that each promise is kept within a quarter of it."""
        return max(MS, min(S, self.heartbeat_ns // 4, self.ping_ns // 4, self.stall_ns // 4))

    @property
    def quiet_ns(self) -> int:
        """Return for how long a session need not be looked at closely, whatever it does."""
        return max(MS, min(5 * S, self.heartbeat_ns // 4, self.ping_ns // 4))

    @property
    def look_pings(self) -> int:
        """Return how many pings one look may send: twice what it takes for each session to have its own."""
        return max(LEAST_PINGS, -(-2 * LOOK_MEMBERS * self.period_ns // self.ping_ns))


class LifeSigns:
    """Heartbeats, pings and the two ways of giving a session up."""

    def __init__(self, timing: Timing, wall_ns: Callable[[], int]) -> None:
        self.timing = timing  # may be exchanged
        self._wall_ns = wall_ns
        self._left: list[Subscriber] = []  # of the round under way
        self.pause_ns = timing.period_ns  # until the next look

    def look(self, members: Collection[Subscriber], now_ns: int) -> list[Subscriber]:
        """Look at the next few sessions; return those whose sockets were too full to be spoken to.

        A round takes a period, in as many looks as keep each short: 16,000 sessions at once
        would hold up a flush by 5 ms, and by much more when many are due a heartbeat.
        """
        if not self._left:
            self._left = list(members)
            self.pause_ns = self.timing.period_ns // max(1, -(-len(self._left) // LOOK_MEMBERS))
        looked_at = self._left[-LOOK_MEMBERS:]
        del self._left[-LOOK_MEMBERS:]
        return self._look_at(looked_at, now_ns)

    def _look_at(self, members: list[Subscriber], now_ns: int) -> list[Subscriber]:
        timing = self.timing
        sent_ns = self._wall_ns()
        full: list[Subscriber] = []
        pings_left = timing.look_pings  # they are answered all at once, and who is due together came together
        for member in members:
            if member.quiet_until_ns > now_ns:
                continue  # the usual one: nothing is due before then, whatever it does meanwhile
            if member.state is State.GONE:
                continue
            if member.blocked:  # nothing is sent meanwhile, and nothing counts as missed
                self._watch_stuck(member, now_ns)
                continue
            member.stuck_ns = 0
            heard = member.sink.received
            if heard != member.heard:
                member.heard, member.pings, member.pinged_ns = heard, 0, now_ns
            elif (
                pings_left
                and now_ns - member.pinged_ns >= timing.ping_ns
                and (ping := member.encoding.ping())
            ):
                pings_left -= 1
                if member.pings >= MAX_PINGS:
                    member.sink.end(CloseCode.IDLE)
                    continue
                member.pings += 1
                member.pinged_ns = now_ns
                if not member.sink.offer(ping):
                    full.append(member)
                    continue
            last_ns = max(member.sent_ns, member.group.sent_ns if member.group else 0)
            if now_ns - last_ns >= timing.heartbeat_ns:
                member.sent_ns = last_ns = now_ns
                if not member.sink.offer(member.encoding.heartbeat(sent_ns)):
                    full.append(member)
            due_ns = min(member.pinged_ns + timing.ping_ns, last_ns + timing.heartbeat_ns)
            member.quiet_until_ns = min(due_ns, now_ns + timing.quiet_ns)
        return full

    def _watch_stuck(self, member: Subscriber, now_ns: int) -> None:
        at = member.sink.acknowledged()
        if not member.stuck_ns or at != member.stuck_at:
            member.stuck_at, member.stuck_ns = at, now_ns
        elif now_ns - member.stuck_ns >= self.timing.stall_ns:
            member.sink.end(CloseCode.SLOW)
