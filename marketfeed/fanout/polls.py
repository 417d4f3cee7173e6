"""Long polls: subscribers that end with their first frame.

    poll ──► ticks missed since its cursor ──► answered separately
        └──► none ──► member of a group of polls ──► answered by the flush of the next tick

A poll waits as a position, as a session does, so ten thousand polls for the same names cost one frame. Polls
are at phase 0 of their tier. They have no ledger: ticks that an answer does not hold follow the cursor in it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
import trio

from marketfeed.core.cursor import Cursor
from marketfeed.fanout.catchup import CatchUp, Outcome
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
    """Answer of a long poll: ``body`` is a JSON object, None after a timeout."""

    cursor: str
    body: bytes | None


class LongPoll:
    """One long poll, and the sink of its subscriber: the first frame is its answer.

    It has no reference to the subscriber: the garbage collector does not look at old objects, so a cycle
    would keep an answer of up to a megabyte for ever.
    """

    __slots__ = (
        "after",
        "answer",
        "answered",
        "checked",
        "failed",
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
        self.checked = False  # whether it has been checked for missed ticks
        self.received = 0

    def offer(self, frame: bytes) -> bool:
        """Accept ``frame``, which begins with the cursor, as the answer."""
        start = len(b'{"cursor":"')
        cursor = frame[start : frame.index(b'"', start)].decode("ascii")
        tail = b',"resumed":%b,"reset":%b}' % (
            b"true" if self.resumption.resumed else b"false",
            orjson.dumps(self.resumption.reset),
        )
        self.resolve(PollAnswer(cursor, frame + tail))
        return True

    def resolve(self, answer: PollAnswer) -> None:
        """Set the answer, if there is none yet."""
        if self.answer is None:
            self.answer = answer
            self.answered.set()

    def acknowledged(self) -> int:
        """Return 0: this sink holds no bytes."""
        return 0

    def unsent(self) -> int:
        """Return 0: this sink holds no bytes."""
        return 0

    def pace(self, send_buffer_bytes: int) -> None:
        """Do nothing: the size of an answer is limited."""

    def end(self, code: CloseCode) -> None:
        """Fail the poll: the fan-out raised an exception."""
        self.failed = True
        self.answered.set()


class Polls:
    """All long polls of a shard. The shard calls all methods but :meth:`answer`, between flushes."""

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
        """``park(member, at_once)`` queues a member of its lane for catch-up; ``leave`` removes it."""
        self._rings = rings
        self._interests = interests
        self._catch_up = catch_up
        self._lanes = lanes
        self._park = park
        self._leave = leave
        self._wake = wake
        self._waiting: dict[Subscriber, LongPoll] = {}
        self._new: deque[Subscriber] = deque()
        self._ended: list[Subscriber] = []  # timed out, or cancelled

    def __len__(self) -> int:
        """Return the number of polls that wait."""
        return len(self._waiting)

    async def answer(self, names: Names, tier: Tier, after: Cursor | None, timeout_s: float) -> PollAnswer:
        """Return the ticks of ``names`` after the cursor ``after``, as soon as there are any.

        Returns an answer without a body after ``timeout_s``. Raises RuntimeError if the fan-out raised an
        exception for this poll. Cancellation removes the poll.
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
                # The shard sets its cursor, because the position is defined between flushes only.
                self._ended.append(member)
                self._wake()
                await poll.answered.wait()
        finally:
            if member in self._waiting:
                member.end()
                self._ended.append(member)
                self._wake()
        if poll.answer is None:
            raise RuntimeError("the fan-out failed at a poll")
        return poll.answer

    def apply(self, late: Callable[[], bool]) -> None:
        """Start new polls until ``late()``, and end those that have timed out or were cancelled."""
        while self._new:
            member = self._new.popleft()
            poll = self._waiting.get(member)
            if poll is not None and member.state is not State.GONE:
                self._begin(member, poll)
            if late():
                self._wake()
                break
        over, self._ended = self._ended, []
        for member in over:
            poll = self._waiting.get(member)
            if poll is None:
                continue
            if not poll.checked and member.state is not State.GONE and self._at_once(member, poll):
                self._ended.append(member)  # a timeout comes second to ticks that are there
                self._wake()
            else:
                poll.resolve(PollAnswer(str(self._cursor(member, poll)), None))
                self._end(member)

    def _begin(self, member: Subscriber, poll: LongPoll) -> None:
        empty = member.interest
        added = member.rename(poll.names, self._interests.use(poll.names), self._rings)
        self._interests.drop(empty)
        # Snapshots are sent at once, missed ticks with the tier's next flush.
        self._lanes.of_polls(member.tier)
        lane = self._park(member, self._at_once(member, poll))
        member.g = lane.g
        if poll.after is not None:
            poll.resumption = self._catch_up.resume(member, added, poll.names, poll.after)
            if poll.resumption.resumed and self._catch_up.level(lane, member):
                poll.checked = True
                lane.leave(member)
                lane.join(member)

    @staticmethod
    def _at_once(member: Subscriber, poll: LongPoll) -> bool:
        return poll.after is None or not member.tier.interval_ns

    def _cursor(self, member: Subscriber, poll: LongPoll) -> Cursor:
        if member.state is not State.LIVE and poll.after is not None:
            return poll.after  # it has not been advanced yet
        return Cursor(self._rings.epoch, self._lanes.of_polls(member.tier).g)

    def _end(self, member: Subscriber) -> None:
        self._leave(member)
        self._lanes.ungrouped.pop(member, None)
        self._interests.drop(member.interest)
        del self._waiting[member]

    def advance(self, lane: Lane, member: Subscriber) -> Outcome:
        """Answer a poll that is catching up, or let it wait in a group if it has missed nothing."""
        poll = self._waiting.get(member)
        if poll is None:
            return Outcome.DONE
        poll.checked = True
        content = FrameContent(mixed=True)
        # Below the limit of the encoding, because snapshots as of another time differ in length.
        if not self._catch_up.gather(lane, member, content, MAX_POLL_BYTES * 7 // 8):
            return Outcome.NEXT_FLUSH  # the lane has not reached the poll's cursor
        if len(content) or content.messages or not poll.resumption.resumed:
            poll.offer(POLL.frame(content, Moment(self._rings.epoch, member.g, 0)))
            self._end(member)
        else:
            lane.catching_up.pop(member, None)
            lane.join(member)
        return Outcome.DONE

    def dissolve(self, lane: Lane, group: Group) -> None:
        """Remove a group after a flush that has answered all its members."""
        lane.dissolve(group)
        for member in group.members:
            self._interests.drop(member.interest)
            del self._waiting[member]
        group.members.clear()  # they refer to the group

    def __contains__(self, member: Subscriber) -> bool:
        """Return whether ``member`` is a poll that waits."""
        return member in self._waiting
