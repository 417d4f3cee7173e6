"""The engine's own probes: one subscriber per tier that measures latency over a real socket.

    shard ──► outbox ──► TCP over loopback ──► probe: from the tick's ``r`` to the kernel's time of arrival

A probe subscribes to the symbol with the most ticks. It does not pass through the gateway: it counts in no
limit and in no ledger, and feeds do not wait for it. The time of arrival is the kernel's
(``SO_TIMESTAMPNS``); the probe's own clock would include the time until the event loop runs it.

So a frame may be read at any time before the next one is sent, whose time would replace its own: the probe
reads then, and once a second. To wait for each frame would cost a pass of the event loop per tick.
"""

from __future__ import annotations

import functools
import socket
import struct
import time
from typing import TYPE_CHECKING, Final

import orjson
import trio

from marketfeed.fanout.change import SubscriptionChange
from marketfeed.fanout.interest import Names
from marketfeed.fanout.wire import PROBE
from marketfeed.fanout.ws_frames import TEXT, payload_span
from marketfeed.gateway.outbox import Nobody, Outbox
from marketfeed.latency.arrivals import Arrivals

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.fanout.shard import Shard
    from marketfeed.fanout.subscriber import Subscriber
    from marketfeed.fanout.tiers import Tier
    from marketfeed.latency.recorder import TierRecorder

CHOOSE_S: Final = 30.0  # between choices of the busiest symbol
FIRST_CHOICE_S: Final = 0.2
READ_S: Final = 1.0  # at most, between the arrival of a frame and its reading
SO_TIMESTAMPNS: Final = 35  # asm-generic/socket.h
RECEIVE_BYTES: Final = 1 << 18
TRIES: Final = 3
_TIMESPEC: Final = struct.Struct("qq")
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_TIMESPEC.size)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection over loopback; raises OSError."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        for _ in range(TRIES):
            near = socket.create_connection(listener.getsockname())
            far, peer = listener.accept()
            if peer == near.getsockname():
                near.setblocking(False)
                far.setblocking(False)
                far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return near, far
            near.close()  # another process connected first
            far.close()
    raise OSError("cannot connect to this process over loopback")


class _ProbeOutbox(Outbox):
    """An outbox whose peer reads before each frame that is sent to it."""

    __slots__ = ("full", "read")

    read: Callable[[], None]
    full: Callable[[], None]  # called if a frame has to wait until the peer has read

    def offer(self, frame: bytes) -> bool:
        """As in :class:`Outbox`."""
        self.read()
        taken = super().offer(frame)
        if not taken:
            self.full()
        return taken


class OwnProbe(Nobody):
    """The probe of one tier."""

    def __init__(self, shard: Shard, tier: Tier, recorder: TierRecorder, limit_ns: int) -> None:
        self._shard = shard
        self._tier = tier
        self._recorder = recorder
        recorder.arrivals = Arrivals(0 if tier.every else tier.interval_ns, limit_ns)
        self._data = bytearray()
        self._ticks_before: dict[str, int] = {}
        self._running = trio.CancelScope()
        self._member: Subscriber | None = None
        self._full = trio.Event()
        self._choose_s = 0.0  # when to choose again

    def stop(self) -> None:
        """End :meth:`run`."""
        self._running.cancel()

    def drained(self) -> None:
        """Have the shard continue: the outbox holds no unsent bytes any more."""
        if self._member is not None:
            self._shard.drained(self._member)

    async def run(self, nursery: trio.Nursery) -> None:
        """Measure until :meth:`stop`; the outbox's drainer runs in ``nursery``."""
        near, far = tcp_pair()
        near.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        outbox = _ProbeOutbox(far, nursery, self)
        outbox.read = functools.partial(self._read, near)
        outbox.full = self._full_again
        shard = self._shard
        member = self._member = shard.enter(f"probe-{self._tier.name}", outbox, self._tier, PROBE)
        self._choose_s = trio.current_time() + FIRST_CHOICE_S
        try:
            with near, self._running:
                while True:
                    with trio.move_on_after(min(READ_S, max(self._choose_s - trio.current_time(), 0))):
                        await self._full.wait()
                    self._full = trio.Event()
                    while outbox.waiting_bytes:
                        await trio.lowlevel.wait_readable(near)
                        self._read(near)
                    self._read(near)
                    await self._choose(member)
        finally:
            shard.leave(member)
            outbox.close()

    def _full_again(self) -> None:
        self._full.set()

    async def _choose(self, member: Subscriber) -> None:
        """Subscribe to the busiest symbol, if it is time."""
        if trio.current_time() < self._choose_s:
            return
        symbol = self._busiest()
        self._choose_s = trio.current_time() + (FIRST_CHOICE_S if symbol is None else CHOOSE_S)
        if symbol is not None and member.names.quotes != (symbol,):
            names = Names((symbol,), (symbol,))
            change = SubscriptionChange(member, names, self._tier, PROBE, lambda resumption: b"", False)
            await self._shard.change(change)

    def _busiest(self) -> str | None:
        """Return the symbol with the most ticks since the last call, None if there were none."""
        names, ticks = self._shard.ticks()
        now = dict(zip(names, ticks.tolist(), strict=True))
        more = {name: count - self._ticks_before.get(name, 0) for name, count in now.items()}
        self._ticks_before = now
        busiest = max(more, key=lambda name: more[name], default=None)
        return busiest if busiest is not None and more[busiest] else None

    def _read(self, near: socket.socket) -> None:
        """Record what has arrived."""
        while True:
            try:
                data, ancillary, _, _ = near.recvmsg(RECEIVE_BYTES, _ANCILLARY_BYTES)
            except OSError:  # nothing more; or the shard closed the probe, and logged why
                return
            if not data:
                return
            arrived_ns = time.time_ns()
            for level, kind, payload in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                    seconds, ns = _TIMESPEC.unpack(payload[: _TIMESPEC.size])
                    arrived_ns = seconds * 1_000_000_000 + ns
            self._data += data
            for payload in texts_of(self._data):
                self._record(payload, arrived_ns)

    def _record(self, payload: bytes, arrived_ns: int) -> None:
        histogram = self._recorder.hops["client"]
        for message in orjson.loads(payload):
            if message["T"] in ("q", "t") and "snap" not in message:
                self._recorder.arrivals.take(message["r"] * 1000, arrived_ns, histogram)


def texts_of(data: bytearray) -> list[bytes]:
    """Remove the complete WebSocket frames from ``data``; return the payloads of text frames."""
    texts, at = [], 0
    while (span := payload_span(data, at)) is not None:
        start, length = span
        if len(data) < start + length:
            break
        if data[at] == TEXT:
            texts.append(bytes(data[start : start + length]))
        at = start + length
    del data[:at]
    return texts
