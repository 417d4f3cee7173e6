"""Limit on the part of each scheduling round that is spent on data from clients.

In each round, Trio runs every runnable task once. Received data may take ten milliseconds to process, such as
4 KiB of empty fragments or a TLS handshake, and hundreds of clients may send at once. The shard runs once per
round, so it would wait for all of them. Connections therefore call :meth:`Pacer.turn` before they process
received data. If no time is left in the round, they wait for a later one, in order. One that is resumed in a
round without time for it keeps its place: if it went to the end, a few of many connections would wait for
longer than ``limits.handshake_s``.
"""

from __future__ import annotations

import itertools
import time
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

ROUND_NS: Final = 4_000_000  # per round; processing that began before may exceed it
WOKEN: Final = 64  # waiting connections that are resumed per round


class Pacer(trio.abc.Instrument):
    """Shared by all connections of a gateway, within one run of Trio. ``clock_ns`` is monotonic."""

    def __init__(self, clock_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self._clock_ns = clock_ns
        self._waiting: list[tuple[int, trio.lowlevel.Task]] = []  # a heap, by place
        self._places = itertools.count()
        self._resumed = 0  # of those, how many will run in this round
        self._turns = 0  # in this round
        self._began_ns = 0  # when the first connection of this round began; 0 if none has
        self._installed = self._waking = False

    def before_io_wait(self, timeout: float) -> None:
        """Begin a round; called by Trio."""
        self._began_ns = 0

    async def turn(self) -> None:
        """Wait until the caller may process received data; a checkpoint only if it has to wait."""
        if not self._installed:
            self._installed = True
            trio.lowlevel.add_instrument(self)
        late = bool(self._waiting or self._resumed)
        place = None
        while late or self._late():
            if place is None:
                place = next(self._places)
            if not self._waking:
                self._waking = True
                trio.lowlevel.spawn_system_task(self._wake)
            await self._wait(place)
            self._resumed -= 1
            late = False
        self._turns += 1

    async def _wait(self, place: int) -> None:
        """Wait until those with lower places have been resumed."""
        waiter = (place, trio.lowlevel.current_task())
        heappush(self._waiting, waiter)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiting.remove(waiter)
            heapify(self._waiting)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _late(self) -> bool:
        now_ns = self._clock_ns()
        self._began_ns = self._began_ns or now_ns
        return now_ns - self._began_ns > ROUND_NS

    async def _wake(self) -> None:
        """Resume waiting connections each round, until none waits.

        Trio runs the tasks of a round in either order. So that no place is passed over for long, not many
        more are resumed than had a turn in the last round, and at most WOKEN.
        """
        while self._waiting:
            count = min(WOKEN, 2 * self._turns + 1, len(self._waiting))
            self._turns, self._resumed = 0, self._resumed + count
            for _ in range(count):
                trio.lowlevel.reschedule(heappop(self._waiting)[1])
            await trio.lowlevel.cancel_shielded_checkpoint()
        self._waking = False
