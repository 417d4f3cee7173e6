"""The shard: the sessions of one process, and the loop that advances them.

One cycle flushes the lanes that are due, applies the changes that sessions have requested since the last
cycle, and advances the sessions that are catching up. Sessions change groups only between flushes. During a
flush the loop yields about every thousand sends; requests that arrive meanwhile wait until the flush ends.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import structlog
import trio

from marketfeed import clock
from marketfeed.core.units import MS, S
from marketfeed.errors import CloseCode
from marketfeed.fanout.bell import Bell, DoorBell
from marketfeed.fanout.catchup import CatchUp, Outcome
from marketfeed.fanout.catchup_scheduler import CatchUpScheduler
from marketfeed.fanout.figures import Figures
from marketfeed.fanout.flushes import Flushes
from marketfeed.fanout.interest import NO_NAMES, Interests
from marketfeed.fanout.keepalive import KeepAlive, Timing
from marketfeed.fanout.lanes import Lanes
from marketfeed.fanout.meter import Meter
from marketfeed.fanout.polls import Polls
from marketfeed.fanout.slowest import Slowest
from marketfeed.fanout.state import State
from marketfeed.fanout.subscriber import Sink, Subscriber
from marketfeed.fanout.wire import JSON, Encoding

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.core.rings import Rings
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.fanout.change import SubscriptionChange
    from marketfeed.fanout.lane import Lane
    from marketfeed.fanout.tiers import Tier
    from marketfeed.latency.recorder import LatencyRecorder

QUIET_NS: Final = MS  # without ticks, after which a shard is quiet
FEW_SESSIONS: Final = 64  # whose frames take less time than a pass of the event loop
CHANGES_NS: Final = 2_000_000  # of each cycle, for changes and removals: hundreds may come at the same time

log = structlog.get_logger()


class Shard:
    """Owns lanes, groups and subscribers; only the shard changes them.

    ``wall_ns`` is the Unix clock of message stamps, ``now_ns`` the monotonic clock of the schedule.
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
        self.keepalive = KeepAlive(timing, wall_ns)
        self.wall_ns = wall_ns
        self._interests = Interests(symbols)
        self._catch_up = CatchUp(rings, symbols, resume_ticks, wall_ns)
        self._lanes = Lanes(rings, symbols, self._interests, recorder)
        self.ticks, self.latest = self._lanes.ticks, self._lanes.latest
        self.members: dict[Subscriber, None] = {}
        self.figures = Figures(rings, self.members, self._lanes)
        self.meter = Meter(self._lanes, symbols, self.wake)
        self.slowest = Slowest(self._lanes, self.keepalive)
        self._scheduler = CatchUpScheduler(self._advance, self.wake)
        self.polls = Polls(
            rings, self._interests, self._catch_up, self._lanes, self._park, self._leave, self.wake
        )
        self.poll, self.mark_stale = self.polls.answer, self._catch_up.mark_stale
        self._flushes = Flushes(rings, symbols, self._lanes, self.polls, self.figures, wall_ns, self.wake)
        self._changes: deque[SubscriptionChange] = deque()
        self._leaving: deque[Subscriber] = deque()
        self._filled: list[Subscriber] = []
        self._drained: list[Subscriber] = []
        self._next_sweep_ns = 0
        self.synced_sessions = 0  # sessions that were sent their first `synced`
        self._on_synced = on_synced
        self._rest: trio.CancelScope | None = None  # in which run() waits for the bell, or until `_due_ns`
        self._due_ns = 0
        self._direct_ns = 0  # duration of what sessions did themselves since the last cycle
        self._ticked_ns = -QUIET_NS
        self._fault: Exception | None = None

    # For other tasks. These do not change groups.

    def enter(self, id: str, sink: Sink, tier: Tier, encoding: Encoding = JSON) -> Subscriber:
        """Add a new session, which has no subscription yet."""
        now_ns = clock.now_ns()
        sink.pace(tier.send_buffer_bytes)
        member = Subscriber(id, sink, tier, encoding, self._interests.use(NO_NAMES), now_ns)
        self.members[member] = None
        return member

    async def change(self, change: SubscriptionChange) -> None:
        """Apply ``change`` between flushes; return when its answer is with the sink, or in the backlog.

        A checkpoint only if it has to wait. While the shard rests, the caller does its work, which saves a
        tenth of the time of a new session.
        """
        if self._changes or not self._may_act():
            await self.submit(change).wait()
            return
        now_ns = clock.now_ns()
        self._changes.append(change)
        self._apply_change(now_ns)
        self._scheduler.run(now_ns)
        newcomers = self._lanes.newcomers
        due_ns = self._lanes.next_wake_ns(self._due_ns, now_ns)
        if newcomers.short or len(newcomers.pending) or due_ns < self._due_ns:
            self.wake()
        self._direct_ns += clock.now_ns() - now_ns

    def submit(self, change: SubscriptionChange) -> trio.Event:
        """Have ``change`` applied after the flush in progress; return the event of its application."""
        change.applied = change.applied or trio.Event()
        self._changes.append(change)
        self.wake()
        return change.applied

    def leave(self, member: Subscriber) -> None:
        """End a session; it is removed between flushes."""
        member.end()
        self._leaving.append(member)
        if self._may_act():
            now_ns = clock.now_ns()
            self._let_leave(now_ns)
            self._lanes.dissolve_empty()
            self._direct_ns += clock.now_ns() - now_ns
        if self._leaving:
            self.wake()

    def _may_act(self) -> bool:
        """Return whether a session may change the shard now: no flush is in progress, nor is one delayed."""
        return self._rest is not None and self._direct_ns < CHANGES_NS and not self.slowest.waits

    def filled(self, member: Subscriber) -> None:
        """Report that the member's sink holds unsent bytes that the shard did not send, such as an answer."""
        self._filled.append(member)
        self.wake()

    def drained(self, member: Subscriber) -> None:
        """Report that the member's sink holds no unsent bytes any more."""
        self._drained.append(member)
        self.wake()

    # The loop.

    async def run(self) -> None:
        """Run cycles until cancelled."""
        while True:
            self._due_ns = self._lanes.next_wake_ns(self._next_sweep_ns, clock.now_ns())
            with trio.move_on_at(self._due_ns / S) as self._rest:
                await self._bell.wait()
            self._rest = None
            if self._fault is not None:
                raise self._fault
            await self.cycle(clock.now_ns())

    def ticked(self) -> None:
        """Ring the bell after ticks were published; in a quiet shard of few sessions, send them at once.

        That saves a pass of the event loop, a third of the latency of a quote in an idle engine. Ticks within
        QUIET_NS of another are left to the loop, so that those in quick succession share frames.
        """
        now_ns = clock.now_ns()
        quiet = now_ns - self._ticked_ns >= QUIET_NS and len(self.members) <= FEW_SESSIONS
        self._ticked_ns = now_ns
        rest = self._rest
        if rest is None or not quiet or self.slowest.waits:
            self.wake()
            return
        self._rest = None  # whatever the sends lead to waits for the next cycle
        newcomers = self._lanes.newcomers
        newcomers.begin()
        try:
            for lane in self._lanes:
                if not lane.tier.interval_ns:
                    for _ in self._flushes.flush(lane, now_ns):
                        """It has too few sessions to yield for others."""
                    if lane.catching_up:
                        self.wake()
        except Exception as error:
            self._fault = error  # the feed is not to blame: run() raises it
            self.wake()
        if newcomers.short or len(newcomers.pending):
            self.wake()
        if self._lanes.dozing:
            self._due_ns = self._lanes.next_wake_ns(self._next_sweep_ns, now_ns)
            rest.deadline = self._due_ns / S
        self._rest = rest

    async def cycle(self, now_ns: int) -> None:
        """Run one cycle: everything that is due at ``now_ns``."""
        self._direct_ns = 0
        newcomers = self._lanes.newcomers
        newcomers.begin()
        for lane in self._lanes:
            late_ns = -1
            if lane.tier.interval_ns and not lane.short:
                lane.rouse(now_ns)
                if now_ns < lane.next_flush_ns:
                    continue
                late_ns = clock.now_ns() - lane.next_flush_ns
                lane.next_flush_ns = lane.tier.next_flush_ns(lane.phase, now_ns)
            for _ in self._flushes.flush(lane, now_ns, late_ns):
                await trio.lowlevel.checkpoint()
            self._scheduler.add(lane.catching_up)
        self._apply(now_ns)
        self._scheduler.run(now_ns)
        if newcomers.short or len(newcomers.pending):
            self.wake()
        if now_ns >= self._next_sweep_ns:
            self._lanes.sweep()
            for member in self.keepalive.check(self.members, clock.now_ns()):  # round trips begin there
                self._block(member)
            self._next_sweep_ns = now_ns + self.keepalive.pause_ns
        if self.slowest.waits:
            self.slowest.moved()

    def _advance(self, member: Subscriber, now_ns: int) -> Outcome:
        # Live already: it was in both queues and joined when the first one advanced it.
        if member.state is State.GONE or member.state is State.LIVE:
            return Outcome.DONE
        lane = self._lanes.get(member)
        if lane is None:
            return Outcome.DONE
        owed = len(member.synced)
        member.sent_ns = now_ns
        try:
            if member.encoding.one_shot:
                outcome = self.polls.advance(lane, member)
            else:
                outcome = self._catch_up.advance(lane, member, now_ns)
        except Exception:
            self._fail(member)
            outcome = Outcome.DONE
        if outcome is Outcome.DONE:
            lane.catching_up.pop(member, None)
        if owed and not member.synced and not member.synced_once:
            member.synced_once = True
            self.synced_sessions += 1
            if self._on_synced is not None:
                self._on_synced()
        return outcome

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
                if member.send_backlog():
                    self._park(member)
                    if member.replayed:
                        self._scheduler.add_started(member)
        until_ns = clock.now_ns() + CHANGES_NS
        self._while_time(until_ns, self._apply_change, now_ns)
        self.polls.apply(lambda: clock.now_ns() > until_ns)
        until_ns = clock.now_ns() + CHANGES_NS
        self._while_time(until_ns, self._let_leave, now_ns)
        self._while_time(until_ns, lambda now_ns: self._lanes.dissolve_empty(), now_ns)
        self._while_time(clock.now_ns() + CHANGES_NS, self.meter.step, now_ns)

    def _while_time(self, until_ns: int, one: Callable[[int], bool], now_ns: int) -> None:
        """Call ``one`` until it returns False, or until ``until_ns``; then request another cycle."""
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
        if change.applied is not None:
            change.applied.set()
        return True

    def _let_leave(self, now_ns: int) -> bool:
        if not self._leaving:
            return False
        self._remove(self._leaving.popleft())
        return True

    def _fail(self, member: Subscriber) -> None:
        """End a session that raised an exception; it does not affect other sessions."""
        self.figures.failures += 1
        log.exception("session failed in the fan-out", session=member.id)
        member.sink.end(CloseCode.INTERNAL)

    # One session.

    def _leave(self, member: Subscriber) -> None:
        """Remove a session or poll from its lane and from the scheduler."""
        lane = self._lanes.get(member)
        if lane is not None:
            lane.leave(member)
        self._scheduler.discard(member)

    def _block(self, member: Subscriber) -> None:
        """Stop sending to ``member`` until its sink has drained."""
        if member.state is State.LIVE:
            self._leave(member)
        member.block()

    def _park(self, member: Subscriber, at_once: bool = False) -> Lane:
        """Queue a session that is catching up for its lane's next flush, or ``at_once`` for this cycle."""
        lane = self._lanes.of(member)
        lane.catching_up[member] = None
        if at_once or not lane.tier.interval_ns:
            self._scheduler.add([member])
        return lane

    def _change(self, change: SubscriptionChange, now_ns: int) -> None:
        member = change.member
        lane = self._lanes.of(member)
        self._leave(member)
        had = member.interest
        self.meter.note(member)
        names = change.names if change.revise is None else change.revise(member.names)
        granted, new_names, tier = names, names.minus(member.names), change.tier
        if change.entitle is not None:
            granted, tier = change.entitle(names, tier)
            new_names, _ = change.entitle(new_names, tier)
        added = member.rename(names, self._interests.use(granted), self.rings)
        if not any(map(len, had.symbols)):
            member.g = lane.g
        self._interests.drop(had)
        switched = change.encoding is not member.encoding
        if switched or tier is not member.tier:
            self._lanes.discard(lane)
            member.change_lane(tier, change.encoding)
        resumption = None
        if change.after is not None:
            resumption = self._catch_up.resume(member, added, new_names, change.after)
            member.replayed = 0
            member.ids = resumption.resumed
        elif any(map(len, added)):
            member.ids = False
        answer = change.answer(resumption)
        if member.backlog and switched:  # the backlog is still in the previous encoding
            member.backlog.append((answer, 0, 0))
        elif member.answer or self._advances_next(member):
            member.answer += answer
        elif answer and not member.sink.offer(answer):
            member.block()
        member.sent_ns = now_ns
        if change.synced:
            member.synced.append(change.request_id)
        self._lanes.ungrouped.pop(member, None)
        if member.tier.every:
            self._lanes.ungrouped[member] = None
        if not member.blocked:
            self._park(member)

    def _advances_next(self, member: Subscriber) -> bool:
        """Return whether what ``member`` is owed follows its answer at once, so that one send takes both."""
        return not (member.blocked or member.backlog or member.tier.interval_ns or len(self._scheduler))

    def _remove(self, member: Subscriber) -> None:
        if self.members.pop(member, False) is False:
            return
        self._leave(member)
        self._lanes.ungrouped.pop(member, None)
        lane = self._lanes.get(member)
        if lane is not None:
            self._lanes.discard(lane)
        self.meter.end(member)
        self._interests.drop(member.interest)
        self.figures.end(member)
        if member.synced_once:
            self.synced_sessions -= 1
