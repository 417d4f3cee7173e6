"""The thread that runs nats-py in an event loop of asyncio.

    event loop of trio             │ this thread
    outbound, wake() ──────────────┼──► Connection ──► NATS
    inbound, eventfd ◄─────────────┼─── Connection ◄── NATS
    ask(operation, resolve) ───────┼──► BucketRequests
    tell(news), resolve(…) ◄───────┼─── run_sync_soon

A connection that is given up is followed by another. A breaker spaces them if servers refuse them or cannot
be reached.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import nats.errors
import trio

from marketfeed.cluster.bucket_requests import BucketRequests
from marketfeed.cluster.connection import Connection, GivenUp
from marketfeed.cluster.link_state import LinkCounts, LinkState, Problem, State
from marketfeed.cluster.nats_errors import explained
from marketfeed.core.breaker import Breaker
from marketfeed.core.units import S
from marketfeed.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from nats.js import JetStreamContext

    from marketfeed.cluster.link_settings import LinkSettings
    from marketfeed.cluster.queues import Inbound, Outbound
    from marketfeed.core.breaker import BreakerStatistics

    Operation = Callable[[JetStreamContext, str], Awaitable[Any]]  # with the name of the bucket
    Resolve = Callable[[Any, ClusterError | None], None]  # with the result, or why there is none

FIRST_WAIT_NS: Final = S // 2
MOST_WAIT_NS: Final = 2 * S  # by which a link may be later than the servers after an outage
LOST: Final = "the connection to the NATS server was lost before it answered"


class NatsThread:
    """Runs connections, one after the other, from :meth:`start` until :meth:`end`.

    ``tell`` and ``ended`` are called in the event loop of ``token``. Public methods are for its thread.
    """

    def __init__(
        self,
        settings: LinkSettings,
        inbound: Inbound,
        outbound: Outbound,
        token: trio.lowlevel.TrioToken,
        tell: Callable[[State | Problem], None],
        ended: Callable[[], None],
    ) -> None:
        self._settings, self._inbound, self._outbound = settings, inbound, outbound
        self._token, self._tell_trio, self._ended = token, tell, ended
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="nats", daemon=True)
        self._woken = False  # a wake is on its way; coalesces those of many messages
        self._subjects: set[str] = set()
        self._connection: Connection | None = None
        self._connected = asyncio.Event()
        self._ending = asyncio.Event()
        self._breaker = Breaker(1, FIRST_WAIT_NS, MOST_WAIT_NS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests: set[asyncio.Task[Any]] = set()  # to the bucket
        self._bucket: BucketRequests | None = None
        if settings.bucket is not None:
            self._bucket = BucketRequests(settings.bucket, settings.replicas, self._tell)
        self.counts = LinkCounts()

    def breakers(self) -> dict[str, BreakerStatistics]:
        """Return the circuit breakers, by peer: ``nats``, and ``jetstream`` if there is a bucket.

        For any thread: what is read are single values.
        """
        now_ns = time.monotonic_ns()
        found = {"nats": self._breaker.statistics(now_ns)}
        if self._bucket is not None:
            found["jetstream"] = self._bucket.breaker.statistics(now_ns)
        return found

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Have queued messages sent. Repeated calls coalesce."""
        if not self._woken:
            self._woken = True
            self._soon(self._wake)

    def subscribe(self, subject: str) -> None:
        """Subscribe to ``subject`` on this connection and those that follow. Idempotent."""
        self._soon(self._subscribe, subject)

    def ask(self, operation: Operation, timeout_s: float, resolve: Resolve) -> None:
        """Run ``operation`` on the bucket for at most ``timeout_s``, then call ``resolve``."""
        work = partial(self._on_bucket, operation, timeout_s)
        self._soon(lambda: self._begin(self._answer(work, timeout_s, resolve)))

    def flush(self, timeout_s: float, resolve: Resolve) -> None:
        """Call ``resolve`` once the server has all that was queued before, or after ``timeout_s``."""
        self._soon(lambda: self._begin(self._answer(self._flush, timeout_s, resolve)))

    def end(self) -> None:
        """Send what is queued, close the connection and end the thread, within some seconds."""
        self._soon(self._end)

    def _soon(self, function: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: the thread has ended
            self._loop.call_soon_threadsafe(function, *arguments)

    # What follows runs in this thread.

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        finally:
            self._trio_soon(self._ended)

    async def _main(self) -> None:
        while not self._ending.is_set():
            call = self._breaker.admit(time.monotonic_ns())
            if call is not None:
                await self._one(call)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(self._breaker.wait_ns(time.monotonic_ns()) / S):
                    await self._ending.wait()

    async def _one(self, call: int) -> None:
        """Run one connection, until it is given up."""
        connection = Connection(
            self._settings,
            self._inbound,
            self._outbound,
            self._subjects,
            self.counts,
            self._tell,
            partial(self._breaker.succeeded, call),
        )
        self._connection = connection
        try:
            why = await connection.run()
        except Exception as error:  # of nats-py, not foreseen: the link goes on with another client
            why = GivenUp(explained(error), refused=True)
        self._lost()
        self._connection = None
        if why.refused and not connection.lasted:
            self._breaker.failed(call, time.monotonic_ns())
        elif not connection.lasted:
            self._breaker.release(call)
        self.counts.link_restarts += why.restart
        if not self._ending.is_set():
            self._tell(State(LinkState.DOWN, why.reason))

    def _wake(self) -> None:
        # Before the queue is read: a message that is put from now on wakes again.
        self._woken = False
        if self._connection is not None:
            self._connection.queued.set()

    def _subscribe(self, subject: str) -> None:
        self._subjects.add(subject)
        if self._connection is not None:
            self._begin(self._connection.match())

    def _end(self) -> None:
        self._ending.set()
        if self._connection is not None:
            self._begin(self._connection.finish())

    async def _answer(self, work: Callable[[], Awaitable[Any]], timeout_s: float, resolve: Resolve) -> None:
        """Do ``work`` and pass on its result, or why there is none."""
        result, error = None, None
        try:
            async with asyncio.timeout(timeout_s):
                result = await work()
        except TimeoutError:
            why = self._bucket.problem if self._bucket is not None else ""
            error = ClusterError(f"no answer from NATS within {timeout_s:g} s{why and f': {why}'}")
        except ClusterError as refusal:
            error = refusal
        except (nats.errors.Error, OSError) as failure:
            error = ClusterError(explained(failure))
        self._trio_soon(resolve, result, error)

    async def _on_bucket(self, operation: Operation, timeout_s: float) -> Any:
        assert self._bucket is not None, "Link requires a bucket"
        await self._connected.wait()
        assert self._connection is not None, "there is one while connected"
        work = asyncio.create_task(self._bucket.run(self._connection, operation, timeout_s))
        self._requests.add(work)
        try:
            return await work
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # by the timeout, or at the end
                raise
            raise ClusterError(LOST) from None
        finally:
            self._requests.discard(work)

    async def _flush(self) -> None:
        await self._connected.wait()
        assert self._connection is not None, "there is one while connected"
        await self._connection.flush()

    def _tell(self, news: State | Problem) -> None:
        """Take note of ``news``, and pass it on."""
        if isinstance(news, State):
            if news.state is LinkState.CONNECTED:
                assert self._connection is not None, "a connection tells it"
                self._connected.set()
                if self._bucket is not None:
                    self._bucket.connected(self._connection)
            else:
                self._lost()
        self._trio_soon(self._tell_trio, news)

    def _lost(self) -> None:
        self._connected.clear()
        for work in self._requests:  # their answers will not come
            work.cancel()
        if self._bucket is not None:
            self._bucket.disconnected()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` as a task; an error of it ends the connection."""
        task = asyncio.create_task(work)
        self._tasks.add(task)  # the loop itself keeps weak references
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and self._connection is not None:
            self._connection.give_up(GivenUp(explained(error)))

    def _trio_soon(self, function: Callable[..., None], *arguments: Any) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function, *arguments)
