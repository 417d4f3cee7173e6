"""Keep-alive: heartbeats and pings, their round trips, and the end of dead and stalled sessions.

A ping carries random bytes, and only a pong with the same bytes gives a round trip: a client cannot answer
before it has received the ping, and unsolicited pongs have no effect. A ping that follows an unanswered one
repeats its bytes, so that round trips longer than the interval are measured too, from the first of them.

The interval of a session begins at ``ping_ns``. It is doubled when a round trip is at least twice as long as
the one at the last change of the interval, and halved when it is at most half as long. Compared with the
preceding round trip instead, random variation alone would move the interval.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from marketfeed.core.units import MS, S
from marketfeed.errors import CloseCode
from marketfeed.fanout.round_trips import RoundTrips
from marketfeed.fanout.state import State
from marketfeed.fanout.ws_frames import PING, PING_BYTES, frame

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from marketfeed.fanout.subscriber import Subscriber

MAX_PINGS: Final = 3  # in a row without an answer; then the session ends
CHECK_MEMBERS: Final = 256  # sessions of one check
MIN_CHECK_PINGS: Final = 8  # that any check may send
SHORTEST_NS: Final = 10 * S  # interval of pings, unless the configured one is shorter
LONGEST_NS: Final = 120 * S  # likewise, unless it is longer
NOISE_NS: Final = MS  # shorter round trips count as this long: they vary with the load of the processes
MIN_GONE_S: Final = 10.0  # TCP repeats a lost segment for seconds


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
    def gone_s(self) -> float:
        """Return the time without an acknowledgement after which the kernel closes a connection.

        As long as three pings take, and longer than ``stall_ns``: the shard has to end a stalled session
        first, so that it is counted as slow.
        """
        return max(MIN_GONE_S, 2 * self.stall_ns / S, MAX_PINGS * self.ping_ns / S)

    def interval_ns(self, doublings: int) -> int:
        """Return the interval of pings after so many ``doublings``; a negative number means halvings."""
        interval_ns = self.ping_ns << doublings if doublings > 0 else self.ping_ns >> -doublings
        return min(max(interval_ns, min(SHORTEST_NS, self.ping_ns)), max(LONGEST_NS, self.ping_ns))

    def check_pings(self, interval_ns: int) -> int:
        """Return how many pings one check may send to sessions with ``interval_ns``: twice the mean rate."""
        return max(MIN_CHECK_PINGS, -(-2 * CHECK_MEMBERS * self.period_ns // interval_ns))


class KeepAlive:
    """Sends heartbeats and pings, and ends sessions that answer no ping or acknowledge no data.

    Cost: a check without due sessions takes 0.04 ms (perf/README.md), a ping 8 random bytes and one ``send``.
    Nothing here is on the path of a tick.
    """

    def __init__(self, timing: Timing, wall_ns: Callable[[], int]) -> None:
        self.timing = timing  # a reload replaces it
        self.round_trips = RoundTrips()
        self._wall_ns = wall_ns
        self._pinged: dict[int, int] = {}  # pings of this check, by interval
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

    def ponged(self, member: Subscriber, payload: bytes, now_ns: int) -> None:
        """Record the round trip of the ping that a pong with ``payload`` answers, and adapt the interval.

        Ignores a pong that answers no ping, or one that was answered before.
        """
        if not member.ping_payload or payload != member.ping_payload:
            return
        member.ping_payload = b""
        round_trip_ns = now_ns - member.asked_ns
        self.round_trips.record(member.tier.name, round_trip_ns)
        self._adapt(member, max(round_trip_ns, NOISE_NS))

    def _adapt(self, member: Subscriber, round_trip_ns: int) -> None:
        """Change the interval of pings if the round trip has doubled or halved since the last change."""
        before_ns = member.round_trip_ns
        if not before_ns:
            member.round_trip_ns = round_trip_ns
            return
        step = (round_trip_ns >= 2 * before_ns) - (2 * round_trip_ns <= before_ns)
        now, then = member.doublings, member.doublings + step
        # The second condition: a reload may have moved the limits, and left `now` beyond them.
        if self.timing.interval_ns(then) != self.timing.interval_ns(now) or abs(then) < abs(now):
            member.doublings, member.round_trip_ns = then, round_trip_ns

    def _check(self, members: list[Subscriber], now_ns: int) -> list[Subscriber]:
        timing = self.timing
        sent_ns = self._wall_ns()
        full: list[Subscriber] = []
        self._pinged.clear()
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
                member.heard, member.pings = heard, 0
            interval_ns = timing.interval_ns(member.doublings)
            if now_ns - member.pinged_ns >= interval_ns and not self._ping(member, interval_ns, now_ns, full):
                continue
            last_ns = max(member.sent_ns, member.group.sent_ns if member.group else 0)
            if now_ns - last_ns >= timing.heartbeat_ns:
                member.sent_ns = last_ns = now_ns
                if not member.sink.offer(member.encoding.heartbeat(sent_ns)):
                    full.append(member)
            due_ns = min(member.pinged_ns + interval_ns, last_ns + timing.heartbeat_ns)
            member.quiet_until_ns = min(due_ns, now_ns + timing.quiet_ns)
        return full

    def _ping(self, member: Subscriber, interval_ns: int, now_ns: int, full: list[Subscriber]) -> bool:
        """Ping a session that is due, or end it; return False if it is to be sent nothing more.

        Sessions that connected together are due together, and would all answer at once: those beyond the
        limit of the check stay due until the next one.
        """
        if not member.encoding.pings:
            member.pinged_ns = now_ns
            return True
        pinged = self._pinged.get(interval_ns, 0)
        if pinged >= self.timing.check_pings(interval_ns):
            return True
        self._pinged[interval_ns] = pinged + 1
        if member.pings >= MAX_PINGS:
            member.sink.end(CloseCode.IDLE)
            return False
        # The peer has sent bytes since then, but no pong.
        if not member.ping_payload or now_ns - member.asked_ns >= MAX_PINGS * interval_ns:
            member.ping_payload, member.asked_ns = secrets.token_bytes(PING_BYTES), now_ns
        member.pings += 1
        member.pinged_ns = now_ns
        if member.sink.offer(frame(PING, member.ping_payload)):
            return True
        full.append(member)
        return False

    def _watch_stuck(self, member: Subscriber, now_ns: int) -> None:
        if member.pings:
            member.pinged_ns = now_ns  # an answer is due an interval after the session can be sent to again
        at = member.sink.acknowledged()
        if not member.stuck_ns or at != member.stuck_at:
            member.stuck_at, member.stuck_ns = at, now_ns
        elif now_ns - member.stuck_ns >= self.timing.stall_ns:
            member.sink.end(CloseCode.SLOW)
