"""Keep-alive: heartbeats and pings to quiet sessions, and the end of dead and stalled ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from marketfeed.core.units import MS, S
from marketfeed.errors import CloseCode
from marketfeed.fanout.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from marketfeed.fanout.subscriber import Subscriber

MAX_PINGS: Final = 3  # in a row without an answer; then the session ends
CHECK_MEMBERS: Final = 256  # sessions of one check
MIN_CHECK_PINGS: Final = 8  # that any check may send


@dataclass(frozen=True, slots=True)
class Timing:
    """Intervals of heartbeats and pings, and the time after which a stalled session ends; nanoseconds."""

    heartbeat_ns: int
    ping_ns: int
    stall_ns: int

    @property
    def period_ns(self) -> int:
        """Return the period of checks of one session: each interval is kept within a quarter of it."""
        return max(MS, min(S, self.heartbeat_ns // 4, self.ping_ns // 4, self.stall_ns // 4))

    @property
    def quiet_ns(self) -> int:
        """Return the longest time for which checks may skip a session."""
        return max(MS, min(5 * S, self.heartbeat_ns // 4, self.ping_ns // 4))

    @property
    def check_pings(self) -> int:
        """Return how many pings one check may send: twice the mean rate at which they fall due."""
        return max(MIN_CHECK_PINGS, -(-2 * CHECK_MEMBERS * self.period_ns // self.ping_ns))


class KeepAlive:
    """Sends heartbeats and pings, and ends sessions that answer no ping or acknowledge no data."""

    def __init__(self, timing: Timing, wall_ns: Callable[[], int]) -> None:
        self.timing = timing  # a reload replaces it
        self._wall_ns = wall_ns
        self._left: list[Subscriber] = []  # not yet checked in this round
        self.pause_ns = timing.period_ns  # until the next check

    def check(self, members: Collection[Subscriber], now_ns: int) -> list[Subscriber]:
        """Check the next few sessions; return those whose sinks did not take a whole frame.

        A round over all sessions takes a period and is divided into short checks: 16,000 sessions at once
        would delay a flush by 5 ms, and by much more when many heartbeats are due.
        """
        if not self._left:
            self._left = list(members)
            self.pause_ns = self.timing.period_ns // max(1, -(-len(self._left) // CHECK_MEMBERS))
        chosen = self._left[-CHECK_MEMBERS:]
        del self._left[-CHECK_MEMBERS:]
        return self._check(chosen, now_ns)

    def _check(self, members: list[Subscriber], now_ns: int) -> list[Subscriber]:
        timing = self.timing
        sent_ns = self._wall_ns()
        full: list[Subscriber] = []
        # Sessions that connected together are due together, and would all answer at once.
        pings_left = timing.check_pings
        for member in members:
            if member.quiet_until_ns > now_ns:
                continue  # nothing is due before then, whatever happens: the usual case
            if member.state is State.GONE:
                continue
            if member.blocked:  # it is sent nothing, and no answer of it is due
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
