"""``stream``: a feed for scripts and notebooks, without `async`, on an event loop in a thread.

    caller's thread ──► a call, and its result ──► event loop in a thread: connect(), the feed

So it works inside a running event loop too, such as a notebook's. While the caller takes nothing, the feed's
buffer fills, and then nothing is read from the socket: as with the other fronts, the engine conflates.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from marketfeed.client.connecting import Connecting, connect
from marketfeed.errors import FeedClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence

    from marketfeed.client.batch import Batch
    from marketfeed.client.core import State
    from marketfeed.client.driver import Driver
    from marketfeed.client.feed import Feed
    from marketfeed.client.messages import Alert, Message, Quote, Trade
    from marketfeed.client.statistics import Statistics

END_S: Final = 5.0  # for the thread, which sends a close frame and waits for the engine's
T = TypeVar("T")


class _Running(NamedTuple):
    """A feed in its thread, and what ends it."""

    loop: asyncio.AbstractEventLoop
    feed: Feed
    ending: asyncio.Event


def stream(url: str, token: str | None = None, **arguments: Any) -> BlockingFeed:
    """Connect to an engine, and return its feed, which blocks where others wait.

        for message in marketfeed.stream("http://localhost:8765", quotes=["AAPL", "BTC*"]):
            print(message)

    Takes the arguments of :func:`connect`, and raises its errors. The feed ends with its context, with
    :meth:`BlockingFeed.close`, when nothing refers to it any more, and with the program.
    """
    return BlockingFeed(connect(url, token, **arguments))


class BlockingFeed:
    """The feed that :func:`stream` returns, with the methods of :class:`Feed`.

    Iterate over it for messages, or over :meth:`batches`. Ctrl-C interrupts every call.
    """

    def __init__(self, connecting: Connecting) -> None:
        """Use :func:`stream`."""
        started: Future[_Running] = Future()
        thread = threading.Thread(target=_run, args=(connecting, started), name="marketfeed", daemon=True)
        thread.start()
        self._stop = weakref.finalize(self, _end, started, thread)
        try:
            self._running = started.result()
        except BaseException:  # KeyboardInterrupt too
            self._stop()
            raise
        self._driver: Driver = self._running.feed.driver
        self._messages: Iterator[Message] = iter(())
        self._batches: deque[Batch] = deque()
        self._taking: Future[None] | None = None  # under way, perhaps since before an interruption

    def __enter__(self) -> BlockingFeed:
        """Return the feed, which leaving the context closes."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the feed."""
        self.close()

    def close(self) -> None:
        """End the feed and its thread. Idempotent; an iteration over it ends."""
        self._stop()

    # Messages.

    def __iter__(self) -> BlockingFeed:
        """Iterate over messages."""
        return self

    def __next__(self) -> Message:
        """Return the next message."""
        while True:
            for message in self._messages:
                return message
            self._messages = iter(self._next_batch().in_order())
            del self._batches[0]

    def batches(self) -> Iterator[Batch]:
        """Iterate over batches, one per message of the WebSocket, and one per change of the connection."""
        while True:
            try:
                batch = self._next_batch()
            except StopIteration:
                return
            del self._batches[0]
            yield batch

    def _next_batch(self) -> Batch:
        """Return the next batch, which the caller deletes from the queue.

        Raises StopIteration if the feed was closed, else its failure. Ctrl-C may raise KeyboardInterrupt in
        every call, so a batch is always in the queue, or about to be appended by the other thread, until the
        caller has it.
        """
        while not self._batches:
            try:
                self._taking = self._taking or self._submit(_take_into(self._batches, self._driver))
                failure = self._taking.exception()
            except (CancelledError, FeedClosedError):
                raise StopIteration from None
            self._taking = None
            if isinstance(failure, StopAsyncIteration | FeedClosedError):
                raise StopIteration
            if failure is not None:
                raise failure
        return self._batches[0]

    # The state.

    @property
    def state(self) -> State:
        """Whether the feed is connected, and why not."""
        return self._running.feed.state

    @property
    def tier(self) -> str:
        """The tier as the engine last told it."""
        return self._running.feed.tier

    @property
    def source(self) -> str:
        """`stale` while the engine does not hear the source of its ticks, else `live`."""
        return self._running.feed.source

    @property
    def cursor(self) -> str | None:
        """Cursor up to which all requests for ticks have been served: see :attr:`Feed.cursor`."""
        return self._running.feed.cursor

    def statistics(self) -> Statistics:
        """Return the counters of the feed and its latencies, since it began."""
        return self._there(self._running.feed.statistics)

    def latest(self, symbol: str, channel: str = "quotes") -> Quote | Trade | None:
        """Return the newest received tick of ``symbol``, None if there is none."""
        return self._there(lambda: self._running.feed.latest(symbol, channel))

    def frame(self, channel: str = "quotes") -> Any:
        """Return the newest received tick of each symbol as a pandas DataFrame; raises ImportError."""
        return self._there(lambda: self._running.feed.frame(channel))

    # Requests.

    def subscribe(
        self, quotes: Sequence[str] | str = (), trades: Sequence[str] | str = (), **more: Any
    ) -> None:
        """Add names to the subscription, as :meth:`Feed.subscribe` does."""
        self._call(self._running.feed.subscribe(quotes, trades, **more))

    def unsubscribe(
        self, quotes: Sequence[str] | str = (), trades: Sequence[str] | str = (), **more: Any
    ) -> None:
        """Remove names from the subscription, as :meth:`Feed.unsubscribe` does."""
        self._call(self._running.feed.unsubscribe(quotes, trades, **more))

    def set_tier(self, tier: str) -> None:
        """Change the tier of the feed. Raises RequestRefusedError."""
        self._call(self._running.feed.set_tier(tier))

    def alerts(self, patterns: Sequence[str] | str = ("*",), **more: Any) -> Iterator[Alert]:
        """Iterate over alerts, as :meth:`Feed.alerts` does; :meth:`acknowledge` is for single ones."""
        found = self._running.feed.alerts(patterns, **more)
        while True:
            try:
                alert = self._call(found.__anext__())
            except (StopAsyncIteration, CancelledError, FeedClosedError):
                return
            yield alert

    def acknowledge(self, alerts: Iterable[str]) -> None:
        """Acknowledge alerts by their ids, and wait until that is on disk."""
        self._call(self._running.feed.acknowledge(alerts))

    def publish(self, msg: str, **more: Any) -> str:
        """Publish a notice, as :meth:`Feed.publish` does; return the id of its alert."""
        return self._call(self._running.feed.publish(msg, **more))

    def request(self, path: str, **more: Any) -> Any:
        """Request another route of the engine, as :meth:`Feed.request` does."""
        return self._call(self._running.feed.request(path, **more))

    # The other thread.

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of ``work``, which is cancelled if the caller is interrupted."""
        future = self._submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _there(self, work: Callable[[], T]) -> T:
        async def call() -> T:
            return work()

        return self._call(call()) if self._stop.alive else work()

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if not self._stop.alive:
            work.close()
            raise FeedClosedError("the feed is closed")
        return asyncio.run_coroutine_threadsafe(work, self._running.loop)


async def _take_into(batches: deque[Batch], driver: Driver) -> None:
    """Append all received batches: one call into the other thread costs 100 µs."""
    batches.extend(await driver.take_all())


def _run(connecting: Connecting, started: Future[_Running]) -> None:
    """Run the feed until it is to end; the first result is given to ``started``."""

    async def run() -> None:
        ending = asyncio.Event()
        async with connecting as feed:
            # False if the caller was interrupted, and has gone.
            if started.set_running_or_notify_cancel():
                started.set_result(_Running(asyncio.get_running_loop(), feed, ending))
                await ending.wait()

    try:
        asyncio.run(run())
    except BaseException as error:
        if not started.done():
            started.set_exception(error)
        elif not started.cancelled():
            raise


def _end(started: Future[_Running], thread: threading.Thread) -> None:
    """End the thread, whether it has connected or not."""
    if started.cancel():  # the thread ends by itself once it has connected, or has failed to
        return
    if started.exception() is None:
        running = started.result()
        running.loop.call_soon_threadsafe(running.ending.set)
    if thread is not threading.current_thread():  # where the garbage collector may run
        thread.join(END_S)
