"""Long polls: subscribers for the length of one answer.

    poll ──► something missed since its cursor ──► answered by a step of its own
        └──► nothing ──► member of a group of polls ──► answered by the flush of its tick

A poll waits as a session does, as a position; so ten thousand that wait for
the same names cost one frame. They are at phase 0 of their tier, and outside
the ledger: what a poll did not get is behind the cursor that it got.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
import trio

from marketfeed.core.cursor import Cursor
from marketfeed.fanout.catchup import CatchUp, Turn
from marketfeed.fanout.interest import Interests, Names
from marketfeed.fanout.resume import Resumption
from marketfeed.fanout.state import State
from marketfeed.fanout.subscriber import Subscriber
from marketfeed.fanout.wire import MAX_POLL_BYTES, POLL, FrameContent, Moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.core.rings import Rings
    from marketfeed.errors import CloseCode
    from marketfeed.fanout.group import Group
    from marketfeed.fanout.lane import Lane
    from marketfeed.fanout.lanes import Lanes
    from marketfeed.fanout.tiers import Tier


@dataclass(frozen=True, slots=True)
class PollAnswer:
    """What a long poll brought: ``body`` is a whole JSON object, None if nothing came in time."""

    cursor: str
    body: bytes | None


class LongPoll:
    """One long poll, and the sink of its subscriber: the first frame is its answer.

    It does not refer to the subscriber: an answered poll would be a cycle, and as the collector looks
    at no old objects, its answer of up to a megabyte would stay for good.
    """

    __slots__ = (
        "after",
        "answer",
        "answered",
        "failed",
        "looked",
        "names",
        "received",
        "resumption",
    )

    def __init__(self, names: Names, after: Cursor | None) -> None:
        self.names = names
        self.after = after
        self.resumption = Resumption(())
        self.answer: PollAnswer | None = None
        self.answered = trio.Event()
        self.failed = False
        self.looked = False  # whether there was something for it has been looked at
        self.received = 0

    def offer(self, frame: bytes) -> bool:
        """Take ``frame``, which begins with the cursor, as the answer."""
        start = len(b'{"cursor":"')
        cursor = frame[start : frame.index(b'"', start)].decode("ascii")
        tail = b',"resumed":%b,"reset":%b}' % (
            b"true" if self.resumption.resumed else b"false",
            orjson.dumps(self.resumption.reset),
        )
        self.settle(PollAnswer(cursor, frame + tail))
        return True

    def settle(self, answer: PollAnswer) -> None:
        """Have it answered, unless it is."""
        if self.answer is None:
            self.answer = answer
            self.answered.set()

    def acknowledged(self) -> int:
        """Return 0: nothing of a poll ever waits here."""
        return 0

    def unsent(self) -> int:
        """Return 0: nothing of a poll ever waits here."""
        return 0

    def pace(self, send_buffer_bytes: int) -> None:
        """Do nothing: an answer is bounded by itself."""

    def end(self, code: CloseCode) -> None:
        """Give it up, because the fan-out failed at it."""
        self.failed = True
        self.answered.set()


class Polls:
    """All long polls of a shard. But for :meth:`answer`, called by the shard between flushes only."""

    def __init__(
        self,
        rings: Rings,
        interests: Interests,
        catch_up: CatchUp,
        lanes: Lanes,
        park: Callable[[Subscriber, bool], Lane],
        leave: Callable[[Subscriber], None],
        wake: Callable[[], None],
    ) -> None:
        """``park(member, at_once)`` puts a member into its lane, alone; ``leave`` takes it out."""
        self._rings = rings
        self._interests = interests
        self._catch_up = catch_up
        self._lanes = lanes
        self._park = park
        self._leave = leave
        self._wake = wake
        self._waiting: dict[Subscriber, LongPoll] = {}
        self._new: deque[Subscriber] = deque()
        self._over: list[Subscriber] = []  # their time is up, or their client has gone

    def __len__(self) -> int:
        """Return how many polls wait."""
        return len(self._waiting)

    async def answer(self, names: Names, tier: Tier, after: Cursor | None, timeout_s: float) -> PollAnswer:
        """Return what there is for ``names`` behind ``after``, at the latest after ``timeout_s``.

        Cancelling it takes the poll out. Raises RuntimeError if the fan-out failed at it.
        """
        poll = LongPoll(names, after)
        member = Subscriber("poll", poll, tier, POLL, self._interests.use(Names()), 0)
        member.phase = 0
        self._waiting[member] = poll
        self._new.append(member)
        self._wake()
        try:
            with trio.move_on_after(timeout_s):
                await poll.answered.wait()
            if not poll.answered.is_set():
                # Its cursor is where it stands between two flushes, not within one.
                self._over.append(member)
                self._wake()
                await poll.answered.wait()
        finally:
            if member in self._waiting:
                member.end()
                self._over.append(member)
                self._wake()
        if poll.answer is None:
            raise RuntimeError("the fan-out failed at a poll")
        return poll.answer

    def apply(self, late: Callable[[], bool]) -> None:
        """Begin what is new, until it is ``late``, and end what is over."""
        while self._new:
            member = self._new.popleft()
            poll = self._waiting.get(member)
            if poll is not None and member.state is not State.GONE:
                self._begin(member, poll)
            if late():
                self._wake()
                break
        over, self._over = self._over, []
        for member in over:
            poll = self._waiting.get(member)
            if poll is None:
                continue
            if not poll.looked and member.state is not State.GONE and self._at_once(member, poll):
                self._over.append(member)  # however little time it has, what is there comes first
                self._wake()
            else:
                poll.settle(PollAnswer(str(self._cursor(member, poll)), None))
                self._end(member)

    def _begin(self, member: Subscriber, poll: LongPoll) -> None:
        empty = member.interest
        added = member.rename(poll.names, self._interests.use(poll.names), self._rings)
        self._interests.drop(empty)
        # A snapshot comes at once; what was missed, with the tier's next flush.
        self._lanes.of_polls(member.tier)
        lane = self._park(member, self._at_once(member, poll))
        member.g = lane.g
        if poll.after is not None:
            poll.resumption = self._catch_up.resume(member, added, poll.names, poll.after)
            if poll.resumption.resumed and self._catch_up.level(lane, member):
                poll.looked = True
                lane.leave(member)
                lane.join(member)

    @staticmethod
    def _at_once(member: Subscriber, poll: LongPoll) -> bool:
        return poll.after is None or not member.tier.interval_ns

    def _cursor(self, member: Subscriber, poll: LongPoll) -> Cursor:
        if member.state is not State.LIVE and poll.after is not None:
            return poll.after  # nothing was done about it yet
        return Cursor(self._rings.epoch, self._lanes.of_polls(member.tier).g)

    def _end(self, member: Subscriber) -> None:
        self._leave(member)
        self._lanes.apart.pop(member, None)
        self._interests.drop(member.interest)
        del self._waiting[member]

    def advance(self, lane: Lane, member: Subscriber) -> Turn:
        """Answer a poll that is alone, or let it wait in a group if there is nothing for it."""
        poll = self._waiting.get(member)
        if poll is None:
            return Turn.OVER
        poll.looked = True
        step = FrameContent(mixed=True)
        # A little less than what is cut: snapshots as of another moment differ in length.
        if not self._catch_up.gather(lane, member, step, MAX_POLL_BYTES * 7 // 8):
            return Turn.LATER  # the lane has still to come to its cursor
        if len(step) or step.messages or not poll.resumption.resumed:
            poll.offer(POLL.frame(step, Moment(self._rings.epoch, member.g, 0)))
            self._end(member)
        else:
            lane.alone.pop(member, None)
            lane.join(member)
        return Turn.OVER

    def dissolve(self, lane: Lane, group: Group) -> None:
        """Let a group go whose flush has answered all its members."""
        lane.dissolve(group)
        for member in group.members:
            self._interests.drop(member.interest)
            del self._waiting[member]
        group.members.clear()  # they refer to the group

    def __contains__(self, member: Subscriber) -> bool:
        """Tell whether ``member`` is a poll that waits."""
        return member in self._waiting
