"""Publishers for ``push`` feeds: under trio, under asyncio, and without an event loop.

async with publisher("127.0.0.1:8770") as out:     with publisher("./push.sock") as out:
    out.quote("EUR-USD", bid=1.0849, ask=1.0851)       out.quote("EUR-USD", bid=1.0849, ask=1.0851)
    await out.drain()                                  out.drain()
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from marketfeed.client.event_loops import running_backend
from marketfeed.client.publishing import BUFFER_BYTES, Publishing
from marketfeed.client.push_link import PushLink, log
from marketfeed.client.tick_records import quote_record, trade_record
from marketfeed.core.binary import Kind
from marketfeed.core.counts import amount
from marketfeed.errors import MarketfeedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from marketfeed.client.backend import Backend
    from marketfeed.client.publishing import Cut
    from marketfeed.client.tick_records import Price
    from marketfeed.core.records import Records

HEARTBEAT_S: Final = 5.0
CLOSE_S: Final = 5.0


class UnsentError(MarketfeedError):
    """A publisher was closed with ticks that it could not send; the text says how many, and why."""


@dataclass(frozen=True, slots=True)
class PublisherStatistics:
    """Counts of a publisher; of ticks, if nothing else is said.

    ``quotes`` + ``trades`` = ``sent`` + ``waiting`` + ``discarded``.
    """

    state: str  # disconnected, connecting or connected
    reason: str  # why it is disconnected
    quotes: int  # taken
    trades: int  # taken
    sent: int  # handed to the kernel
    waiting: int  # in the buffer
    waiting_bytes: int
    in_flight: int  # sent on this connection, and not known to be published yet
    in_doubt: int  # at most so many were lost at cuts
    discarded: int
    connects: int
    cuts: int


class _Sink:
    """What both kinds of publisher have. All of its methods may be called from any thread."""

    def __init__(self, link: PushLink) -> None:
        self._link = link

    def announce(self, names: Mapping[str, int] | Iterable[str]) -> NDArray[np.uint16]:
        """Give each name its id, or without ids a free one; return the ids, in order.

        Ids are the publisher's own: the engine maps them to its own. A name and an id belong together from
        then on. Raises ValueError.
        """
        with self._core() as core:
            return core.announce(names, time.time_ns())

    def quotes(self, records: Records) -> None:
        """Publish QUOTE records, shape ``(k,)``, of announced ids. Copies them; never waits.

        Set ``symbol``, ``ts_event``, prices and sizes; leave ``ts_recv`` 0 for the time of arrival. Raises
        ValueError for records that the engine would not take, and PublisherFullError if the buffer has no
        room; nothing of the array is taken then.
        """
        with self._core() as core:
            core.quotes(records, time.time_ns())

    def trades(self, records: Records) -> None:
        """Publish TRADE records, shape ``(k,)``, as :meth:`quotes` does."""
        with self._core() as core:
            core.trades(records, time.time_ns())

    def quote(
        self,
        name: str,
        *,
        bid: Price | None = None,
        ask: Price | None = None,
        bid_size: float = 1.0,
        ask_size: float = 1.0,
        ts_event_ns: int = 0,
    ) -> None:
        """Publish one quote of ``name``. A side without price is missing.

        Prices are numbers or decimal text, rounded to 1e-9. Raises as :meth:`quotes` does.
        """
        with self._core() as core:
            (symbol,) = core.announce([name], now_ns := time.time_ns())
            core.quotes(quote_record(symbol, bid, ask, bid_size, ask_size, ts_event_ns), now_ns)

    def trade(
        self,
        name: str,
        *,
        price: Price,
        size: float,
        side: str = "-",
        trade_id: int = 0,
        conditions: str = "",
        ts_event_ns: int = 0,
    ) -> None:
        """Publish one trade of ``name``; ``side`` is the aggressor's: b, s or -. Raises as :meth:`quotes`."""
        with self._core() as core:
            (symbol,) = core.announce([name], now_ns := time.time_ns())
            core.trades(trade_record(symbol, price, size, side, trade_id, conditions, ts_event_ns), now_ns)

    def discard(self) -> int:
        """Drop what waits in the buffer, for example because it is too old; return how many ticks."""
        with self._core() as core:
            return core.discard()

    @property
    def state(self) -> str:
        """``disconnected``, ``connecting`` or ``connected``."""
        return self._link.state

    def statistics(self) -> PublisherStatistics:
        """Return the counts until now."""
        link, core = self._link, self._link.core
        with link.lock:
            return PublisherStatistics(
                state=link.state,
                reason=link.reason,
                quotes=core.taken[Kind.QUOTES],
                trades=core.taken[Kind.TRADES],
                sent=core.handed,
                waiting=core.waiting,
                waiting_bytes=core.waiting_bytes,
                in_flight=core.in_flight,
                in_doubt=core.in_doubt,
                discarded=core.discarded,
                connects=link.connects,
                cuts=link.cuts,
            )

    @contextmanager
    def _core(self) -> Iterator[Publishing]:
        """Hold the lock within the block, and send after it."""
        with self._link.lock:
            self._check()
            yield self._link.core
            self._link.send()

    def _check(self) -> None:
        """Raise RuntimeError if the publisher is closed, or its thread has failed."""
        if self._link.failure is not None:
            raise RuntimeError("the publisher has failed") from self._link.failure
        if self._link.ended:
            raise RuntimeError("the publisher is closed")

    def _sent(self) -> bool:
        self._check()
        return not self._link.core.waiting

    def _connected(self) -> bool:
        self._check()
        return self._link.state == "connected"


class BlockingPublisher(_Sink):
    """A publisher for programs without an event loop."""

    def drain(self, timeout_s: float | None = None) -> None:
        """Wait until everything was handed to the kernel; raises TimeoutError after ``timeout_s``."""
        self._wait(self._sent, timeout_s)

    def wait_connected(self, timeout_s: float | None = None) -> None:
        """Wait until it is connected; raises TimeoutError after ``timeout_s``."""
        self._wait(self._connected, timeout_s)

    def _wait(self, done: Callable[[], bool], timeout_s: float | None) -> None:
        with self._link.lock:
            if not self._link.changed.wait_for(done, timeout_s):
                raise TimeoutError(f"{self._link.shown}: {self._link.reason or self._link.state}")


class Publisher(_Sink):
    """A publisher under trio or asyncio."""

    def __init__(self, link: PushLink, backend: Backend) -> None:
        super().__init__(link)
        self._backend = backend

    async def drain(self) -> None:
        """Wait until everything was handed to the kernel, also over cuts."""
        await self._wait(self._sent)

    async def wait_connected(self) -> None:
        """Wait until it is connected."""
        await self._wait(self._connected)

    async def _wait(self, done: Callable[[], bool]) -> None:
        await self._backend.checkpoint()
        while True:
            event = self._backend.event()
            wake = partial(self._backend.soon, event.set)
            with self._link.lock:
                if done():
                    return
                self._link.wakers.append(wake)
            try:
                await event.wait()
            finally:
                with self._link.lock:
                    self._link.wakers.remove(wake)

    async def wait_ended(self) -> None:
        """Wait until its thread has ended."""
        await self._wait(lambda: self._link.ended)


class publisher:  # noqa: N801 - it is called like a function
    """Open a publisher to the ``push`` feed that listens at ``address``.

    ``address`` is HOST:PORT or the path of a Unix socket, which has a slash. Use it with ``async with`` under
    trio or asyncio, or with ``with``. It connects in the background, also again after a cut; what was
    published meanwhile waits in a buffer of ``buffer_bytes``, and all names are announced again.

    ``names`` are announced at once. ``on_cut`` is called with each :class:`Cut`: in the event loop, or under
    ``with`` in another thread. Cuts are logged too. After ``heartbeat_s`` without ticks a heartbeat is sent.

    The block ends when what waits was sent and the engine has read it, or after ``close_s``; it raises
    UnsentError if ticks could not be sent. Raises ConfigError for an invalid address.
    """

    def __init__(
        self,
        address: str,
        *,
        names: Mapping[str, int] | Iterable[str] = (),
        buffer_bytes: int = BUFFER_BYTES,
        heartbeat_s: float = HEARTBEAT_S,
        close_s: float = CLOSE_S,
        on_cut: Callable[[Cut], object] | None = None,
    ) -> None:
        core = Publishing(buffer_bytes)
        core.announce(names, time.time_ns())
        self._link = PushLink(address, core, heartbeat_s, close_s)
        self._on_cut = on_cut
        self._async: Publisher | None = None

    def __enter__(self) -> BlockingPublisher:
        self._link.start(self._on_cut)
        return BlockingPublisher(self._link)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._link.end(flush=error is None)
        self._link.join()
        self._tell_unsent(error)

    async def __aenter__(self) -> Publisher:
        backend, on_cut = running_backend(), self._on_cut
        self._link.start(None if on_cut is None else lambda cut: backend.soon(partial(on_cut, cut)))
        self._async = Publisher(self._link, backend)
        return self._async

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._async is not None
        self._link.end(flush=error is None)
        try:
            await self._async.wait_ended()
        except BaseException:  # cancelled: the thread ends by itself
            self._link.end(flush=False)
            raise
        self._link.join()
        self._tell_unsent(error)

    def _tell_unsent(self, error: BaseException | None) -> None:
        """Raise UnsentError if ticks were not sent; log it instead if the block raised ``error``."""
        if waiting := self._link.core.waiting:
            text = f"{self._link.shown}: {amount(waiting, 'ticks')} not sent: {self._link.reason}"
            if error is None:
                raise UnsentError(text)
            log.warning("%s", text)
