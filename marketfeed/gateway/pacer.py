"""Limit on the part of each scheduling round that is spent on data from clients.

In each round, Trio runs every runnable task once. Received data may take ten milliseconds to process, such as
4 KiB of empty fragments or a TLS handshake, and hundreds of clients may send at once. The shard runs once per
round, so it would wait for all of them. Connections therefore call :meth:`Pacer.turn` before they process
received data. If no time is left in the round, they wait for a later one, in order.
"""

from __future__ import annotations

import time
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
        self._waiting = trio.lowlevel.ParkingLot()
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
        """Resume up to WOKEN waiting connections per round, until none waits."""
        while self._waiting:
            self._waiting.unpark(count=WOKEN)
            await trio.lowlevel.cancel_shielded_checkpoint()
        self._waking = False
