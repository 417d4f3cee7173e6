"""The shard: the sessions that one process serves, and the loop that advances them.

One cycle flushes the lanes that are due, applies the changes that sessions have requested since the last
cycle, and advances the sessions that are catching up. Sessions change groups only between flushes. During a
flush the loop yields about every thousand sends; requests that arrive meanwhile wait for the end of it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog
import trio

from marketfeed import clock
from marketfeed.core.units import S
from marketfeed.errors import CloseCode
from marketfeed.fanout.bell import Bell, DoorBell
from marketfeed.fanout.catchup import CatchUp, Turn, push
from marketfeed.fanout.catchup_scheduler import Turns
from marketfeed.fanout.figures import Figures
from marketfeed.fanout.interest import Interests, Names
from marketfeed.fanout.keepalive import LifeSigns, Timing
from marketfeed.fanout.lanes import Lanes
from marketfeed.fanout.polls import Polls
from marketfeed.fanout.slowest import Slowest
from marketfeed.fanout.state import State
from marketfeed.fanout.subscriber import Sink, Subscriber
from marketfeed.fanout.wire import JSON, Encoding, Moment
from marketfeed.latency.recorder import Flush, LatencyRecorder, Marks

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.core.cursor import Cursor
    from marketfeed.core.rings import Rings
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.fanout.group import Group
    from marketfeed.fanout.lane import Lane
    from marketfeed.fanout.resume import Resumption
    from marketfeed.fanout.tiers import Tier

# In a row: six milliseconds or so. Oftener, and what is received meanwhile would wait for the rest of the
# round, too.
YIELD_SENDS: Final = 1024
CHANGES_NS: Final = 2_000_000  # for what sessions asked for, each cycle: hundreds may ask in the same moment

log = structlog.get_logger()


@dataclass(slots=True)
class SubscriptionChange:
    """A session's request, applied between flushes."""

    member: Subscriber
    names: Names  # all of the subscription afterwards
    tier: Tier
    encoding: Encoding
    answer: Callable[[Resumption | None], bytes]  # what answers it, framed in this encoding; b"": nothing
    synced: bool  # whether `synced` is owed
    request_id: str | int | None = None
    after: Cursor | None = None  # what the client has of the names that are new
    applied: trio.Event = field(default_factory=trio.Event)


class Shard:
    """Owns lanes, groups and subscribers; nobody else changes them.

    ``wall_ns`` is the Unix clock for message stamps, ``now_ns`` the monotonic
    one that schedules; both in nanoseconds.
    """

    def __init__(
        self,
        rings: Rings,
        symbols: SymbolTable,
        timing: Timing,
        resume_ticks: int,
        wall_ns: Callable[[], int],
        recorder: LatencyRecorder | None = None,
        bell: Bell | DoorBell | None = None,
        on_synced: Callable[[], None] | None = None,
    ) -> None:
        """``on_synced`` is called each time one more session has been sent its first `synced`."""
        self._bell = bell or Bell()
        self.wake = self._bell.ring  # idempotent; repeated calls coalesce
        self.rings = rings
        self.symbols = symbols
        self.life_signs = LifeSigns(timing, wall_ns)
        self.wall_ns = wall_ns
        self._interests = Interests(symbols)
        self._catch_up = CatchUp(rings, symbols, resume_ticks, wall_ns)
        self._lanes = Lanes(rings, symbols, self._interests, recorder)
        self.ticks, self.latest = self._lanes.ticks, self._lanes.latest
        self.members: dict[Subscriber, None] = {}
        self.figures = Figures(rings, self.members, self._lanes)
        self.slowest = Slowest(self._lanes, self.life_signs)
        self._turns = Turns(self._turn, self.wake)
        self.polls = Polls(
            rings, self._interests, self._catch_up, self._lanes, self._park, self._leave, self.wake
        )
        self.poll = self.polls.answer
        self._changes: deque[SubscriptionChange] = deque()
        self._leaving: deque[Subscriber] = deque()
        self._filled: list[Subscriber] = []
        self._drained: list[Subscriber] = []
        self._next_sweep_ns = 0
        self.synced_sessions = 0  # whose first `synced` was sent
        self._on_synced = on_synced

    # From other tasks: never waits, never changes a group.

    def enter(self, id: str, sink: Sink, tier: Tier, encoding: Encoding = JSON) -> Subscriber:
        """Take in a new session, with no subscription yet."""
        now_ns = clock.now_ns()
        sink.pace(tier.send_buffer_bytes)
        member = Subscriber(id, sink, tier, encoding, self._interests.use(Names()), now_ns)
        self.members[member] = None
        return member

    async def change(self, change: SubscriptionChange) -> None:
        """Have ``change`` applied; returns when its answer has been handed to the sink."""
        self._changes.append(change)
        self.wake()
        await change.applied.wait()

    def leave(self, member: Subscriber) -> None:
        """Let a session go, after the flush that may be under way."""
        member.end()
        self._leaving.append(member)
        self.wake()

    def filled(self, member: Subscriber) -> None:
        """Say that something sent past the shard, such as an answer, has to wait in the member's sink."""
        self._filled.append(member)
        self.wake()

    def drained(self, member: Subscriber) -> None:
        """Say that all the member's unsent bytes went out."""
        self._drained.append(member)
        self.wake()

    # The loop.

    async def run(self) -> None:
        """Serve for ever."""
        while True:
            with trio.move_on_at(self._next_wake_ns() / S):
                await self._bell.wait()
            await self.cycle(clock.now_ns())

    async def cycle(self, now_ns: int) -> None:
        """Do everything that is due at ``now_ns``."""
        newcomers = self._lanes.newcomers
        newcomers.begin()
        for lane in self._lanes:
            late_ns = -1
            if lane.tier.interval_ns and not lane.short:
                if now_ns < lane.next_flush_ns:
                    continue
                late_ns = clock.now_ns() - lane.next_flush_ns
                lane.next_flush_ns = lane.tier.next_flush_ns(lane.phase, now_ns)
            await self._flush(lane, now_ns, late_ns)
            self._turns.add(lane.alone)
        self._apply(now_ns)
        self._turns.take(now_ns)
        if newcomers.short or len(newcomers.pending):
            self.wake()
        if now_ns >= self._next_sweep_ns:
            self._lanes.sweep()
            for member in self.life_signs.look(self.members, now_ns):
                self._block(member)
            self._next_sweep_ns = now_ns + self.life_signs.pause_ns
        if self.slowest.waits:
            self.slowest.moved()

    def _next_wake_ns(self) -> int:
        wake = self._next_sweep_ns
        for lane in self._lanes:
            if lane.tier.interval_ns:
                wake = min(wake, lane.next_flush_ns)
            elif lane.alone:
                wake = min([wake, *(member.next_step_ns for member in lane.alone)])
        return wake

    async def _flush(self, lane: Lane, now_ns: int, late_ns: int) -> None:  # noqa: C901 - hot: no call a group
        """Send every group of ``lane`` what is new for it, ``late_ns`` after its moment (-1: it has none)."""
        head = self._lanes.learn()
        began_ns = self.wall_ns()  # after the head: all up to it was published before
        groups = lane.collect(head)
        if not groups:
            return
        marks = Marks()
        blocked: list[tuple[Subscriber, int]] = []
        sends = 0
        moment = Moment(self.rings.epoch, lane.g, self.wall_ns())
        for group in groups:
            if not group.members:  # it waits to be dissolved
                group.step.clear()
                continue
            message, ticks = group.frame(moment, self.symbols)
            group.sent_ns = now_ns
            self.figures.sent(len(message), len(group.members))
            if len(group.members) > YIELD_SENDS:
                await self._offer_widely(group, message, ticks, blocked, marks)
                sends = 0
                continue
            if group.encoding.counted:
                marks.deliveries += ticks * len(group.members)
            for member, offer in group.members.items():
                if not offer(message):
                    blocked.append((member, ticks))
            sends += len(group.members)
            if sends >= YIELD_SENDS:
                sends = 0
                marks.through(self.wall_ns())
                await trio.lowlevel.checkpoint()
        marks.through(self.wall_ns())
        parts = marks.parts()
        for member, ticks in blocked:
            lane.leave(member)
            marks.deliveries -= ticks if member.encoding.counted else 0
            member.ledger.delivered -= ticks
            member.block(ticks)
        lane.record(Flush(began_ns, moment.sent_ns, late_ns, parts, marks.deliveries))
        for group in groups:
            if group.encoding.one_shot:
                self.polls.dissolve(lane, group)
        if lane.g < self.rings.head():
            self.wake()  # more than one flush takes, or new ticks meanwhile
        self.figures.flushed(now_ns, clock.now_ns())

    async def _offer_widely(
        self, group: Group, message: bytes, ticks: int, blocked: list[tuple[Subscriber, int]], marks: Marks
    ) -> None:
        """Offer ``message`` to a group of many, with a turn for others every YIELD_SENDS members."""
        members = list(group.members.items())
        for start in range(0, len(members), YIELD_SENDS):
            for member, offer in members[start : start + YIELD_SENDS]:
                if not offer(message):
                    blocked.append((member, ticks))
            marks.deliveries += ticks * len(members[start : start + YIELD_SENDS])
            marks.through(self.wall_ns())
            await trio.lowlevel.checkpoint()

    def _turn(self, member: Subscriber, now_ns: int) -> Turn:
        # Live already: it was in both queues, and arrived by its turn in the first.
        if member.state is State.GONE or member.state is State.LIVE:
            return Turn.OVER
        lane = self._lanes.get(member)
        if lane is None:
            return Turn.OVER
        owed = len(member.synced)
        member.sent_ns = now_ns
        try:
            if member.encoding.one_shot:
                turn = self.polls.advance(lane, member)
            else:
                turn = self._catch_up.advance(lane, member, now_ns)
        except Exception:
            self._fail(member)
            turn = Turn.OVER
        if turn is Turn.OVER:
            lane.alone.pop(member, None)
        if owed and not member.synced and not member.synced_once:
            member.synced_once = True
            self.synced_sessions += 1
            if self._on_synced is not None:
                self._on_synced()
        return turn

    def _apply(self, now_ns: int) -> None:
        filled, self._filled = self._filled, []
        for member in filled:
            if member.state is not State.GONE:
                self._block(member)
        drained, self._drained = self._drained, []
        for member in drained:
            # A live session's unsent bytes were the WebSocket library's.
            if member.state is not State.GONE and member.state is not State.LIVE:
                member.drained()
                member.sent_ns = now_ns
                if push(member):
                    self._park(member)
                    if member.replayed:
                        self._turns.go_on(member)
        until_ns = clock.now_ns() + CHANGES_NS
        self._while_time(until_ns, self._apply_change, now_ns)
        self.polls.apply(lambda: clock.now_ns() > until_ns)
        until_ns = clock.now_ns() + CHANGES_NS
        self._while_time(until_ns, self._let_leave, now_ns)
        self._while_time(until_ns, lambda now_ns: self._lanes.dissolve_empty(), now_ns)

    def _while_time(self, until_ns: int, one: Callable[[int], bool], now_ns: int) -> None:
        """Do ``one`` thing after the other until it is False, or ask for a cycle that does the rest."""
        while one(now_ns):
            if clock.now_ns() > until_ns:
                self.wake()
                break

    def _apply_change(self, now_ns: int) -> bool:
        if not self._changes:
            return False
        change = self._changes.popleft()
        if change.member.state is not State.GONE:
            try:
                self._change(change, now_ns)
            except Exception:
                self._fail(change.member)
        change.applied.set()
        return True

    def _let_leave(self, now_ns: int) -> bool:
        if not self._leaving:
            return False
        self._remove(self._leaving.popleft())
        return True

    def _fail(self, member: Subscriber) -> None:
        """End a session whose own data broke something; the others go on."""
        self.figures.failures += 1
        log.exception("session failed in the fan-out", session=member.id)
        member.sink.end(CloseCode.INTERNAL)

    # Changes of one session.

    def _leave(self, member: Subscriber) -> None:
        """Take a session, or a poll, out of its lane."""
        lane = self._lanes.get(member)
        if lane is not None:
            lane.leave(member)
        self._turns.discard(member)

    def _block(self, member: Subscriber) -> None:
        """Send nothing to ``member`` until its sink has drained."""
        if member.state is State.LIVE:
            self._leave(member)
        member.block()

    def _park(self, member: Subscriber, at_once: bool = False) -> Lane:
        """Put a session that is alone where its lane's next flush finds it, or have it go on at once."""
        lane = self._lanes.of(member)
        lane.alone[member] = None
        if at_once or not lane.tier.interval_ns:
            self._turns.add([member])
        return lane

    def _change(self, change: SubscriptionChange, now_ns: int) -> None:
        member = change.member
        lane = self._lanes.of(member)
        self._leave(member)
        had = member.interest
        new_names = change.names.minus(member.names)
        added = member.rename(change.names, self._interests.use(change.names), self.rings)
        if not any(map(len, had.symbols)):
            member.g = lane.g
        self._interests.drop(had)
        switched = change.encoding is not member.encoding
        if switched or change.tier is not member.tier:
            self._lanes.discard(lane)
            member.change_lane(change.tier, change.encoding)
        resumption = None
        if change.after is not None:
            resumption = self._catch_up.resume(member, added, new_names, change.after)
            member.replayed = 0
            member.ids = resumption.resumed
        elif any(map(len, added)):
            member.ids = False
        answer = change.answer(resumption)
        if member.backlog and switched:  # what is under way is still in the encoding that was
            member.backlog.append((answer, 0))
        elif answer and not member.sink.offer(answer):
            member.block()
        member.sent_ns = now_ns
        if change.synced:
            member.synced.append(change.request_id)
        self._lanes.apart.pop(member, None)
        if member.tier.every:
            self._lanes.apart[member] = None
        if not member.blocked:
            self._park(member)

    def _remove(self, member: Subscriber) -> None:
        if self.members.pop(member, False) is False:
            return
        self._leave(member)
        self._lanes.apart.pop(member, None)
        lane = self._lanes.get(member)
        if lane is not None:
            self._lanes.discard(lane)
        self._interests.drop(member.interest)
        self.figures.end(member)
        if member.synced_once:
            self.synced_sessions -= 1
