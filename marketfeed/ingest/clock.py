"""Clock of recorded time shared by several feeds, which keeps quotes and trades of one day in step.

Feeds of one clock begin a pass over their recordings together, at the earliest first tick of all of them.
Within the pass, the feed with the earliest next tick publishes up to the next tick of any other feed, so
that ticks are in order of recorded time at any speed. At full speed quotes and trades alternate every few
ticks: :meth:`ReplayClock.play` then publishes the pending ticks of all feeds from one task, without task
switches. A feed that starts late, because it was added or had failed, joins the pass at its current time.
"""

from __future__ import annotations

import sys
from typing import Final

import trio

from marketfeed.ingest.feed import Pass, PendingBatch

MAX_PLAYED_BATCHES: Final = 64  # per call of play(); each takes about 0.1 ms


class ReplayClock:
    """State shared by the feeds of a clock, which have a seat each, in the order of the configuration."""

    def __init__(self) -> None:
        self.seats: list[Seat] = []
        self.began: tuple[float, int] | None = (
            None  # trio's clock and recorded time at the start of the pass; None between passes
        )

    def first(self) -> Seat | None:
        """Return the seat with the earliest next tick, None if no seat is within a pass."""
        return min((seat for seat in self.seats if seat.next_ns is not None), key=_next_ns, default=None)

    def bound(self, seat: Seat) -> int:
        """Return the last time, inclusive, up to which ``seat`` may publish before any other seat."""
        bound = sys.maxsize
        before = True
        for other in self.seats:
            if other is seat:
                before = False
            elif other.next_ns is not None:
                bound = min(bound, other.next_ns - before)
        return bound

    def play(self, most: int) -> None:
        """Publish up to ``most`` pending ticks of all seats in order of time, until a seat has none left."""
        for _ in range(MAX_PLAYED_BATCHES):
            seat = self.first()
            if seat is None or seat.pending is None or most <= 0:
                return
            most -= seat.pending.publish(self.bound(seat), most)
            if seat.pending.next_ns is None:
                seat.pending = None  # its next tick may have the same time as the last
            else:
                seat.next_ns = seat.pending.next_ns

    def begin_if_ready(self) -> None:
        """Begin a pass if every feed is ready."""
        if self.began is not None or not all(seat.ready for seat in self.seats):
            return
        firsts = [seat.first_ns for seat in self.seats if seat.first_ns is not None]
        self.began = trio.current_time(), min(firsts, default=0)
        for seat in self.seats:
            seat.ready, seat.finished, seat.next_ns = False, seat.first_ns is None, seat.first_ns
            seat.wake()
        self.end_if_over()

    def end_if_over(self) -> None:
        """End the pass if every feed has left it, and begin the next one if all are ready."""
        if self.began is not None and self.first() is None:
            self.began = None
            for seat in self.seats:
                seat.finished = False
                seat.wake()
            if self.seats:
                self.begin_if_ready()


class Seat:
    """Membership of one feed in a clock; initially the only member of a clock of its own."""

    def __init__(self, name: str = "", speed: float = 1.0, loop: bool = False) -> None:
        self.name, self.speed, self.loop = name, speed, loop  # of the clock; "" is never shared
        self.first_ns: int | None = None  # first tick of the pass that it is ready for
        self.ready = False
        self.next_ns: int | None = None  # within a pass: time of its next tick
        self.finished = False  # has completed the current pass
        self.pending: PendingBatch | None = None  # decoded and unpublished
        self._woken = trio.Event()
        self._clock = ReplayClock()
        self._clock.seats.append(self)

    def join(self, clock: ReplayClock) -> None:
        """Move to ``clock``. Call it before the feed runs."""
        self._clock = clock
        clock.seats.append(self)

    def leave(self) -> None:
        """Leave the clock; the other feeds continue."""
        self._clock.seats.remove(self)
        self.next_ns, self.ready, self.pending = None, False, None
        self._clock.end_if_over()
        self._clock.begin_if_ready()
        self._wake_first()

    def wake(self) -> None:
        """Wake the feed if it waits; it checks its condition again."""
        self._woken.set()

    async def _wait(self) -> None:
        self._woken = trio.Event()
        await self._woken.wait()

    def _wake_first(self) -> None:
        first = self._clock.first()
        if first is not None and first is not self:
            first.wake()

    async def begin(self, first_ns: int | None) -> Pass:
        """Wait for the next pass, or join the current one; ``first_ns`` is None without ticks."""
        clock = self._clock
        self.first_ns, self.ready = first_ns, True
        clock.begin_if_ready()
        while self.ready:
            if clock.began is not None and not self.finished:
                first = clock.first()
                self.ready, self.next_ns = False, first_ns
                if first_ns is not None and first is not None and first.next_ns is not None:
                    self.next_ns = max(first_ns, first.next_ns)
                break
            await self._wait()
        began_s, began_ns = clock.began or (trio.current_time(), first_ns or 0)
        return Pass(began_s, began_ns, self.next_ns if self.next_ns is not None else began_ns)

    async def wait_earliest(self, next_ns: int, pending: PendingBatch | None = None) -> int:
        """Wait until no other feed has a tick before ``next_ns``; return the last time before any of theirs.

        From then on :meth:`play` of any seat may publish from ``pending``.
        """
        self.next_ns, self.pending = next_ns, pending
        while self._clock.first() is not self:
            self._wake_first()
            await self._wait()
        return self._clock.bound(self)

    def play(self, most: int) -> None:
        """Publish at most ``most`` pending ticks of all seats in order of time."""
        self._clock.play(most)

    def end(self, finished: bool) -> None:
        """Leave the pass; if not ``finished``, the feed may join it again."""
        self.next_ns, self.ready, self.finished, self.pending = None, False, finished, None
        self._clock.end_if_over()
        self._wake_first()


def _next_ns(seat: Seat) -> int:
    assert seat.next_ns is not None
    return seat.next_ns
