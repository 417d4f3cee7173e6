"""The link of a node to NATS, for tasks of trio.

There is no NATS client for trio: nats-py runs in a thread with its own event loop (nats_thread.py), and
bounded queues lie in between. Only requests to the bucket and :meth:`Link.flush` wait for the network.

Core NATS delivers each message at most once, in order of a subject. Requests and replies between nodes are
messages to subjects of the nodes.
"""

from __future__ import annotations

import re
import sys
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio

from marketfeed.cluster import bucket
from marketfeed.cluster.link_state import LinkState, LinkStatistics, Problem, State
from marketfeed.cluster.nats_thread import NatsThread
from marketfeed.cluster.queues import Inbound, Message, Outbound
from marketfeed.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from marketfeed.cluster.bucket import Entry
    from marketfeed.cluster.link_settings import LinkSettings
    from marketfeed.cluster.nats_thread import Operation, Resolve

log = structlog.get_logger()

REQUEST_S: Final = 2.0  # of a request to the bucket
END_S: Final = 5.0  # for the thread to end; it takes two seconds at most if servers do not answer
SWITCH_S: Final = 0.0005  # with Python's default, 5 ms, a message may wait as long for either thread
MOST_MESSAGES: Final = 1000  # of one call of receive()
MOST_TOLD: Final = 100  # distinct reasons and problems in the log, until the next connect
ENDED: Final = "the link to NATS has ended"


_SUBJECT: Final = re.compile(r"[!-~]+")  # its tokens, between dots, are not empty


class _Request:
    """A request to the NATS thread, and its result."""

    def __init__(self) -> None:
        self._done = trio.Event()
        self._result: Any = None
        self._error: ClusterError | None = None

    def resolve(self, result: Any, error: ClusterError | None) -> None:
        """Set the result; the first one counts."""
        if not self._done.is_set():
            self._result, self._error = result, error
            self._done.set()

    async def result(self) -> Any:
        """Wait for the result and return it; raises ClusterError."""
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._result


class Link:
    """A connection to NATS that is kept up until the block of :func:`open_link` ends."""

    def __init__(self, settings: LinkSettings, token: trio.lowlevel.TrioToken) -> None:
        self._has_bucket = settings.bucket is not None
        self._outbound, self._inbound = Outbound(settings.queue_bytes), Inbound(settings.queue_bytes)
        self._thread = NatsThread(settings, self._inbound, self._outbound, token, self._tell, self._end)
        self._requests: set[_Request] = set()
        self._ended = trio.Event()
        self._state, self._reason, self._server = LinkState.CONNECTING, "no attempt yet", ""
        self._bucket_problem = ""
        self._oversized = 0
        self._told: set[str] = set()

    @property
    def state(self) -> LinkState:
        """Whether messages pass."""
        return self._state

    @property
    def max_payload(self) -> int:
        """Most bytes of a message that the server accepts; 0 before the first connect."""
        return self._thread.counts.max_payload

    def publish(self, subject: str, payload: bytes, *, urgent: bool = False) -> bool:
        """Queue a message; return False, and count it, if there is no room. Never waits.

        Urgent messages are sent before those that wait. Without a connection, messages wait for the next one.
        Raises ClusterError for a message larger than ``max_payload``, and ValueError for an invalid subject.
        """
        _check(subject)
        most = self._thread.counts.max_payload
        if most and len(payload) > most:
            self._oversized += 1
            raise ClusterError(
                f"{len(payload)} bytes for {subject}: the NATS server accepts {most} (max_payload)"
            )
        if not self._outbound.put(subject, payload, urgent):
            return False
        self._thread.wake()
        return True

    def subscribe(self, subject: str) -> None:
        """Receive what is published to ``subject``, which may have wildcards. Idempotent.

        Raises ValueError for an invalid subject.
        """
        _check(subject)
        self._thread.subscribe(subject)

    async def receive(self, most: int = MOST_MESSAGES) -> list[Message]:
        """Wait for messages, and return those that wait, at most ``most``; for one task. Always a checkpoint.

        Those of one subscription are in order. Raises trio.ClosedResourceError at the end of the link.
        """
        if self._inbound:
            await trio.lowlevel.checkpoint()
        while not self._inbound:
            if self._ended.is_set():
                raise trio.ClosedResourceError
            await trio.lowlevel.wait_readable(self._inbound.descriptor)
            self._inbound.quiet()
        return self._inbound.take(most)

    async def get(self, key: str, timeout_s: float = REQUEST_S) -> Entry | None:
        """Return the value of ``key`` and its revision, None if it has none. Raises ClusterError."""
        found: Entry | None = await self._ask(partial(_get, key), timeout_s)
        return found

    async def create(self, key: str, value: bytes, timeout_s: float = REQUEST_S) -> int | None:
        """Write ``value`` if ``key`` has none; return its revision, else None. Raises ClusterError."""
        return await self.compare_and_set(key, value, 0, timeout_s)

    async def compare_and_set(
        self, key: str, value: bytes, revision: int, timeout_s: float = REQUEST_S
    ) -> int | None:
        """Write ``value`` if the value now has ``revision``; return the new revision, None if it has not.

        Revision 0 is that of a key without a value. Of several that try with one revision, one succeeds.
        Raises ClusterError; then, as after a cancellation, the value may have been written.
        """
        written: int | None = await self._ask(partial(_compare_and_set, key, value, revision), timeout_s)
        return written

    async def flush(self, timeout_s: float = REQUEST_S) -> None:
        """Wait until the server has all that was published before. Raises ClusterError."""
        await self._request(partial(self._thread.flush, timeout_s))

    def statistics(self) -> LinkStatistics:
        """Return state and counts."""
        counts = self._thread.counts
        return LinkStatistics(
            state=self._state,
            reason=self._reason,
            server=self._server,
            max_payload=counts.max_payload,
            connects=counts.connects,
            link_restarts=counts.link_restarts,
            sent=counts.sent,
            sent_bytes=counts.sent_bytes,
            received=self._inbound.received,
            received_bytes=self._inbound.received_bytes,
            dropped_out=self._outbound.dropped,
            dropped_in=self._inbound.dropped,
            oversized=self._oversized + counts.oversized,
            waiting_out_bytes=self._outbound.waiting_bytes,
            waiting_in_bytes=self._inbound.waiting_bytes,
            bucket_problem=self._bucket_problem,
            breakers=self._thread.breakers(),
        )

    async def _ask(self, operation: Operation, timeout_s: float) -> Any:
        if not self._has_bucket:
            raise ClusterError("this link has no bucket")
        return await self._request(lambda resolve: self._thread.ask(operation, timeout_s, resolve))

    async def _request(self, begin: Callable[[Resolve], None]) -> Any:
        if self._ended.is_set():
            raise ClusterError(ENDED)
        request = _Request()
        self._requests.add(request)
        try:
            begin(request.resolve)
            return await request.result()
        finally:
            self._requests.discard(request)

    def _tell(self, news: State | Problem) -> None:
        """Take note of a change, and log it once."""
        match news:
            case State(LinkState.CONNECTED, server):
                self._state, self._reason, self._server = LinkState.CONNECTED, "", server
                self._told.clear()
                log.info("connected to NATS", server=server)
            case State(state, reason):
                self._state, self._reason = state, reason
                self._log_once("not connected to NATS", reason)
            case Problem(of_bucket=True, text=text):
                self._bucket_problem = text
                if not text:
                    log.info("the bucket in NATS can be used")
                self._log_once("the bucket in NATS cannot be used", text)
            case Problem(text=text):
                self._log_once("NATS refuses a message or a subscription", text)

    def _log_once(self, event: str, reason: str) -> None:
        if reason and reason not in self._told and len(self._told) < MOST_TOLD and not self._ended.is_set():
            self._told.add(reason)
            log.warning(event, reason=reason)

    def _end(self) -> None:
        self._ended.set()
        self._state, self._reason = LinkState.DOWN, ENDED
        for request in self._requests:
            request.resolve(None, ClusterError(ENDED))

    async def _close(self) -> None:
        self._thread.end()
        with trio.move_on_after(END_S):
            await self._ended.wait()
        if not self._ended.is_set():
            log.warning("the NATS client does not end; it is left behind")
            self._end()
            return  # its thread may still ring
        trio.lowlevel.notify_closing(self._inbound.descriptor)
        self._inbound.close()


@lru_cache(1024)
def _check(subject: str) -> None:
    """Raise ValueError for a ``subject`` that would end the client."""
    if not _SUBJECT.fullmatch(subject) or not all(subject.split(".")):
        raise ValueError(f"invalid subject of NATS: {subject!r}")


async def _get(key: str, js: Any, name: str) -> Entry | None:
    return await bucket.get(js, name, key)


async def _compare_and_set(key: str, value: bytes, revision: int, js: Any, name: str) -> int | None:
    return await bucket.compare_and_set(js, name, key, value, revision)


@asynccontextmanager
async def open_link(settings: LinkSettings) -> AsyncIterator[Link]:
    """Run a link during the block; its thread ends with it, within some seconds also if servers are gone.

    The block begins before the link is connected. At its end, what was published is sent if that takes less
    than a second. During the block, the threads of the process take turns every SWITCH_S.
    """
    link = Link(settings, trio.lowlevel.current_trio_token())
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    link._thread.start()  # noqa: SLF001 # after what it calls back exists
    try:
        yield link
    finally:
        sys.setswitchinterval(before_s)
        with trio.CancelScope(shield=True):
            await link._close()  # noqa: SLF001
