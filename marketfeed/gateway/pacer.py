"""Bounds the part of each scheduling round that goes into what clients send.

Trio runs every task that can run once in a round. A piece of what a client sends may cost ten milliseconds,
such as 4 KiB of empty fragments or a TLS handshake, and hundreds of clients may send one at once: the shard,
which has one turn in a round as everybody else, would wait for all of them. So a connection asks here before
it goes on with a piece. Those for which there is no time left in the round wait for a later one, in order.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

ROUND_NS: Final = 4_000_000  # of a round; the last piece that began before may go beyond
WOKEN: Final = 64  # connections that a round may serve if each costs little


class Pacer(trio.abc.Instrument):
    """Shared by all connections of a gateway; to be used in one run of trio. ``clock_ns`` is monotonic."""

    def __init__(self, clock_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self._clock_ns = clock_ns
        self._waiting = trio.lowlevel.ParkingLot()
        self._began_ns = 0  # the first piece of this round; 0: none yet
        self._installed = self._waking = False

    def before_io_wait(self, timeout: float) -> None:
        """Begin a round; called by trio."""
        self._began_ns = 0

    async def turn(self) -> None:
        """Wait until the caller may go on with what it received; a checkpoint only if it has to wait."""
        if not self._installed:
            self._installed = True
            trio.lowlevel.add_instrument(self)
        late = bool(self._waiting)
        while late or self._late():
            if not self._waking:
                self._waking = True
                trio.lowlevel.spawn_system_task(self._wake)
            await self._waiting.park()
            late = False

    def _late(self) -> bool:
        now_ns = self._clock_ns()
        self._began_ns = self._began_ns or now_ns
        return now_ns - self._began_ns > ROUND_NS

    async def _wake(self) -> None:
        """Wake some that wait, each round, as long as there are any."""
        while self._waiting:
            self._waiting.unpark(count=WOKEN)
            await trio.lowlevel.cancel_shielded_checkpoint()
        self._waking = False
