"""Drives the core of a feed: sockets, time, and the bounded buffer between the engine and the caller.

    socket ──► core.py ──► buffer ──► feed.py, the caller          tasks: read; send and keep time; tokens
              requests ◄── subscribe, acknowledge

While the buffer is full, nothing is read from the socket, so the engine conflates or ends the session as its
limits say. While a call waits for an answer of the engine, reading goes on all the same: the answer comes
behind the ticks, and the caller cannot take ticks while it waits.

The tasks share the events that they wait for, so the file is longer than 300 lines.
"""

from __future__ import annotations

import inspect
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from marketfeed.client.alerts import AlertQueue
from marketfeed.client.batch import Batch
from marketfeed.client.dialogue import Answered
from marketfeed.client.intake import Now
from marketfeed.client.messages import Alert, Gap, Quote, Trade
from marketfeed.core.printable import printable
from marketfeed.errors import ConnectError, FeedClosedError, MarketfeedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from marketfeed.client.backend import Backend, Event, Stream
    from marketfeed.client.core import Core
    from marketfeed.client.nodes import Nodes

BUFFER_BYTES: Final = 1 << 20  # of received messages that the caller has not taken
TOKEN_S: Final = 30.0  # for the callback
CLOSE_S: Final = 2.0  # for the close frame, and the engine's
# A batch without one of these tells only about the session. A caller that iterates over alerts alone, or not
# at all, does not take it, so without ticks it does not fill the buffer: the newest are kept.
MOST_NEWS: Final = 1000
_FILLING: Final = frozenset({Quote, Trade, Gap, Alert})


class Driver:
    """The tasks of one feed, and what they hand to its caller.

    ``get_token`` is the caller's callback, None if there is none.
    """

    def __init__(
        self,
        core: Core,
        nodes: Nodes,
        backend: Backend,
        get_token: Callable[[], Any] | None,
        buffer_bytes: int,
        connect_s: float,
    ) -> None:
        self.core, self.nodes, self.backend = core, nodes, backend
        self._get_token = get_token
        self._most_bytes, self._connect_s = buffer_bytes, connect_s
        self._buffer: deque[tuple[Batch, int]] = deque()  # with the bytes that each counts for
        self._size = 0  # bytes in it
        self._alerts: Callable[[], AlertQueue | None] = lambda: None  # of the loop over alerts
        self._told_alerts = 0  # the core's count
        self._some = backend.event()  # the buffer is not empty, or nothing more comes
        self._some_alerts = backend.event()
        self._room = backend.event()
        self._wake = backend.event()  # there is something to send, or an earlier deadline
        self._until_s = 0.0  # deadline for which the sender waits
        self._changed = backend.event()  # the state
        self._token_due = backend.event()
        self._told_state = core.state
        self._waiting: dict[int, _Answer] = {}
        self._settling: list[tuple[set[str], _Answer]] = []
        self._crash: BaseException | None = None

    # For the caller.

    @property
    def over(self) -> bool:
        """Whether the feed has ended."""
        return self.core.closed or self.core.finished is not None or self._crash is not None

    @property
    def failure(self) -> BaseException:
        """What to raise when the feed has ended."""
        return self._crash or self.core.finished or FeedClosedError("the feed is closed")

    def now(self) -> Now:
        """Return the present moment."""
        return Now(self.backend.now(), time.time_ns())

    async def take(self) -> Batch:
        """Return the next batch; raises StopAsyncIteration if the feed was closed, else its failure."""
        await self.backend.checkpoint()
        while not self._buffer:
            self._check_end()
            self._some = self.backend.event()
            await self._some.wait()
        batch, size = self._buffer.popleft()
        self._size -= size
        if self._size < self._most_bytes:
            self._room.set()
        return batch

    async def take_all(self) -> list[Batch]:
        """Return all batches of the buffer, as soon as there is one, as :meth:`take` does."""
        first = await self.take()
        batches = [first, *(batch for batch, _ in self._buffer)]
        self._buffer.clear()
        self._size = 0
        self._room.set()
        return batches

    def divert_alerts(self) -> AlertQueue:
        """Return the queue for :meth:`take_alert`, which gets all alerts while the caller refers to it."""
        queue = self._alerts()
        if queue is None:
            queue = AlertQueue()
            # A full queue that nobody takes from must not stop reading. Garbage is collected in any thread.
            self._alerts = weakref.ref(queue, lambda _: self.backend.soon(lambda: self._room.set()))
        return queue

    async def take_alert(self, queue: AlertQueue) -> Alert:
        """Return the next alert, as :meth:`take` returns batches."""
        await self.backend.checkpoint()
        while (alert := queue.take()) is None:
            if queue.refused is not None:
                raise queue.refused
            self._check_end()
            self._some_alerts = self.backend.event()
            await self._some_alerts.wait()
        self._room.set()
        return alert

    def _check_end(self) -> None:
        if self.over:
            raise StopAsyncIteration if self.core.closed and self._crash is None else self.failure

    async def wait_changed(self) -> None:
        """Wait until the state changes or the feed ends."""
        if not self.over:
            await self._changed.wait()

    async def answer(self, number: int) -> None:
        """Wait for the answer to the request ``number``. Raises RequestRefusedError."""
        answer = self._waiting[number] = _Answer(self.backend.event())
        try:
            await self._wait(answer)
        finally:
            self._waiting.pop(number, None)

    async def settlement(self, alerts: Sequence[str]) -> None:
        """Acknowledge ``alerts``, and wait until that is settled. Raises RequestRefusedError."""
        entry = (set(alerts), _Answer(self.backend.event()))
        self._settling.append(entry)
        self.core.acknowledge(self.now(), alerts)
        try:
            await self._wait(entry[1])
        finally:
            if entry in self._settling:
                self._settling.remove(entry)

    async def _wait(self, answer: _Answer) -> None:
        if self.over:
            raise self.failure
        self.wake()
        self._room.set()  # read on
        await answer.event.wait()
        if answer.error is not None:
            raise answer.error

    def wake(self) -> None:
        """Send what the core has to send."""
        self._wake.set()

    def close(self) -> None:
        """End the feed; batches in the buffer can still be taken."""
        self.core.close(self.now())
        self._wake_all()

    def _wake_all(self) -> None:
        for event in (self._some, self._some_alerts, self._room, self._wake, self._changed, self._token_due):
            event.set()
        for answer in (*self._waiting.values(), *(answer for _, answer in self._settling)):
            answer.settle(self.failure)

    # The tasks.

    async def run(self) -> None:
        """Keep the feed connected until it is closed, refused or cancelled."""
        try:
            while not self.over:
                await self._attempt()
                while not self.over and self.core.deadline_s > self.backend.now():
                    self._wake = self.backend.event()
                    await self.backend.wait(self._wake, self.core.deadline_s)
        except Exception as error:  # a fault of ours: the caller gets it too
            self._crash = error
            raise
        finally:
            self.close()

    async def _attempt(self) -> None:
        """Connect, and serve the connection until it ends."""
        self.core.attempt(self.now())
        self._state_changed()
        if self.core.wants_token:
            await self._fetch_token()
        if self.core.state.name != "connecting" or self.over:
            return
        core, before = self.core, self.core.intake.counters.connections
        try:
            stream = await self.nodes.open(self.backend, core.token, core.take_directed(), self._connect_s)
        except ConnectError as error:
            self.nodes.tried(good=False)
            self._handle(core.lost(str(error), self.now()))
            return
        try:
            if self.over:  # closed meanwhile
                return
            core.opened(self.now(), self.nodes.now.authority, self.nodes.now.resource)
            await self.backend.together(
                lambda: self._read(stream), lambda: self._keep(stream), self._renew_tokens
            )
        finally:
            if self.core.connected:  # cancelled
                self.core.close(self.now())
            await self.backend.shielded(lambda: self._farewell(stream), CLOSE_S)
            await self.backend.shielded(stream.close, CLOSE_S)
            self.nodes.tried(self.core.intake.counters.connections > before)

    async def _read(self, stream: Stream) -> None:
        """Read until the connection ends."""
        while self.core.connected:
            await self._wait_room()
            try:
                data = await stream.receive()
            except ConnectError as error:
                self._handle(self.core.lost(str(error), self.now()))
                return
            self._handle(self.core.receive_data(data, self.now()))
            if self.core.sends or self.core.deadline_s < self._until_s:
                self._wake.set()

    async def _wait_room(self) -> None:
        """Wait while the buffer or the queue of alerts is full and no call waits for an answer."""
        if not self._full():
            return
        self.core.reading(False, self.now())
        while self._full() and not self.over:
            self._room = self.backend.event()
            await self._room.wait()
        self.core.reading(True, self.now())

    def _full(self) -> bool:
        queue = self._alerts()
        size = max(self._size, 0 if queue is None else queue.size)
        return size >= self._most_bytes and not (self._waiting or self._settling)

    async def _keep(self, stream: Stream) -> None:
        """Send what is to be sent, and do what is due, until the connection ends."""
        broken = False
        while self.core.connected:
            self._wake = self.backend.event()
            if self.core.deadline_s <= self.backend.now():
                self._handle(self.core.tick(self.now()))
            data = self.core.data_to_send() if self.core.connected else b""
            if data and not broken:
                try:
                    await stream.send(data)
                except ConnectError:
                    broken = True  # what the peer has sent before is still to be read
            elif self.core.connected:
                self._until_s = self.core.deadline_s
                await self.backend.wait(self._wake, self._until_s)

    async def _renew_tokens(self) -> None:
        while True:
            if self.core.wants_token:
                await self._fetch_token()
                self._wake.set()
            self._token_due = self.backend.event()
            await self._token_due.wait()

    async def _fetch_token(self) -> None:
        """Call the callback, and pass on what it returns or raises."""
        assert self._get_token is not None
        try:
            token = self._get_token()
            if inspect.isawaitable(token):
                token = await self.backend.limited(token, TOKEN_S)
            if token is not None and not isinstance(token, str):
                raise TypeError(f"it returned {type(token).__name__}, not a string or None")
        except Exception as error:
            reason = printable(f"{type(error).__name__}: {error}")
            self._handle(self.core.token_failed(reason, self.now()))
        else:
            self._handle(self.core.take_token(token, self.now()))

    async def _farewell(self, stream: Stream) -> None:
        """Send the close frame, and read until the engine has closed, lest a reset overtakes it."""
        data = self.core.data_to_send()
        if not data:
            return
        try:
            await stream.send(data)
            while await stream.receive():
                pass
        except ConnectError:
            pass  # the peer has gone

    # Events of the core.

    def _handle(self, events: Sequence[Any]) -> None:
        alerts = self.core.intake.counters.alerts
        new_alerts, self._told_alerts = alerts - self._told_alerts, alerts
        for event in events:
            if isinstance(event, Batch):
                self._put(self._without_alerts(event) if new_alerts else event)
            elif isinstance(event, Answered):
                if (answer := self._waiting.get(event.id)) is not None:
                    answer.settle(event.error)
            else:
                self._settle(set(event.alerts), event.error)
        if self.core.state is not self._told_state:
            self._state_changed()
        if self.core.wants_token:
            self._token_due.set()
        if self.over:
            self._wake_all()

    def _state_changed(self) -> None:
        self._told_state = self.core.state
        self._changed.set()
        self._changed = self.backend.event()

    def _without_alerts(self, batch: Batch) -> Batch:
        """Return ``batch`` without its alerts, if a loop takes them."""
        found = [message for message in batch.messages if type(message) is Alert]
        for alert in found:
            alert.__dict__["_settle"] = self.settlement
        queue = self._alerts()
        if not found or queue is None:
            return batch
        parts = len(batch.messages) + len(batch.quotes) + len(batch.trades)
        queue.put(found, len(batch.data) // parts + 1)
        self._some_alerts.set()
        batch.messages = [message for message in batch.messages if type(message) is not Alert]
        return batch

    def _put(self, batch: Batch) -> None:
        ticks = len(batch.quotes) + len(batch.trades)
        if not (batch.messages or ticks or batch.symbols):
            return
        filling = ticks or any(type(message) in _FILLING for message in batch.messages)
        size = len(batch.data) if filling or self._size else 0
        if not filling and not self._size and len(self._buffer) >= MOST_NEWS:
            self._buffer.popleft()
        self._buffer.append((batch, size))
        self._size += size
        self._some.set()

    def _settle(self, alerts: set[str], error: MarketfeedError | None) -> None:
        """Settle calls for ``alerts``; a refusal that none of them asked for ends the loop over alerts."""
        unasked = set(alerts)
        for wanted, answer in self._settling:
            refused = error is not None and bool(wanted & alerts)
            unasked -= wanted
            wanted -= alerts
            if refused:
                answer.settle(error)
            elif not wanted:
                answer.settle(None)
        queue = self._alerts()
        if error is not None and queue is not None and (unasked or not alerts):
            queue.refused = error
            self._some_alerts.set()


class _Answer:
    """What a call waits for."""

    def __init__(self, event: Event) -> None:
        self.event = event
        self.error: BaseException | None = None
        self._settled = False

    def settle(self, error: BaseException | None) -> None:
        """Let the call go on, or raise ``error``; the first result counts."""
        if not self._settled:
            self._settled, self.error = True, error
            self.event.set()
