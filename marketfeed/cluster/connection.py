"""One client of nats-py, from its first attempt to connect until it is given up.

The client reconnects by itself. It is given up, so that the caller makes another, when the server refuses it,
when no server can be reached for a while, when it closes, and when nothing is heard over it: its read loop
can end while it still counts as connected.

Messages arrive in callbacks alone: `next_msg` and `async for` of nats-py make tasks for each message.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import nats.errors
from nats.aio.client import Client, RawCredentials

from marketfeed.cluster.link_settings import creds_text
from marketfeed.cluster.link_state import LinkState, Problem, State
from marketfeed.cluster.nats_errors import explained, is_permission, is_refusal
from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

    from marketfeed.cluster.link_settings import LinkSettings
    from marketfeed.cluster.link_state import LinkCounts
    from marketfeed.cluster.queues import Inbound, Outbound

PENDING_BYTES: Final = 16 << 20  # most that nats-py keeps unsent
FLUSH_BYTES: Final = 8 << 20  # unsent bytes from which the sender waits for the server
RECONNECT_S: Final = 0.1  # between attempts
CONNECT_S: Final = 2  # of one attempt
PING_S: Final = 1
PINGS: Final = 2  # unanswered, then the client reconnects
CHECK_S: Final = 1.0  # from a sign of life to the next check, and of a check without one
MISSES: Final = 2  # such checks in a row, then the client is given up: about 3 s after the last sign of life
UNREACHABLE_S: Final = 10.0  # without a connection, then the client is given up
CLOSE_S: Final = 1.0
FINISH_S: Final = 1.0  # for what is still to be sent at the end


class GivenUp(NamedTuple):
    """Why a client was given up."""

    reason: str
    refused: bool = False  # by servers or the configuration, or no server answers: another has to wait
    restart: bool = False  # it was connected and useless


class Connection:
    """A client with its subscriptions; runs in the loop of the NATS thread."""

    def __init__(
        self,
        settings: LinkSettings,
        inbound: Inbound,
        outbound: Outbound,
        subjects: Collection[str],
        counts: LinkCounts,
        tell: Callable[[State | Problem], None],
        lasts: Callable[[], None],
    ) -> None:
        """``subjects`` are those to subscribe to; when there are more, call :meth:`match`.

        ``tell`` is called with each connect, each loss and each attempt that failed, and with what the server
        refuses. ``lasts`` is called once, when a check has heard something.
        """
        self._settings, self._inbound, self._outbound = settings, inbound, outbound
        self._subjects, self._counts, self._tell, self._lasts = subjects, counts, tell, lasts
        self._client = Client()
        self._subscribed: set[str] = set()
        self._matching = asyncio.Lock()
        self._was_begun = self._was_connected = False
        self._given_up: asyncio.Future[GivenUp] = asyncio.get_running_loop().create_future()
        self.connected = asyncio.Event()
        self.queued = asyncio.Event()  # set by whoever puts into the outbound queue
        self.lasted = False  # `lasts` was called
        self._reason = "no NATS server can be reached"  # why it is not connected
        self._idle = asyncio.Event()  # nothing was queued when the sender looked last

    async def run(self) -> GivenUp:
        """Connect, subscribe, and serve until given up; return why."""
        tasks = [self._started(work) for work in (self._connect(), self._send(), self._check())]
        try:
            return await self._given_up
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._close()

    async def match(self) -> None:
        """Subscribe to the subjects that are new."""
        if not self._was_connected:
            return  # _connect does it
        async with self._matching:
            for subject in set(self._subjects) - self._subscribed:
                await self._client.subscribe(subject, cb=self._received)
                self._subscribed.add(subject)

    def jetstream(self, timeout_s: float) -> JetStreamContext:
        """Return JetStream over this client; its requests take at most ``timeout_s``."""
        return self._client.jetstream(timeout=timeout_s)

    async def flush(self) -> None:
        """Return when the server has all that was queued before. Raises nats.errors.Error."""
        self._idle.clear()
        self.queued.set()
        await self._idle.wait()
        await self._client.rtt()

    async def finish(self) -> None:
        """Send what is queued, for at most FINISH_S, and give the client up."""
        if self.connected.is_set():
            with suppress(TimeoutError, nats.errors.Error, OSError):
                async with asyncio.timeout(FINISH_S):
                    await self.flush()
        self.give_up(GivenUp("the link ends"))

    def give_up(self, why: GivenUp) -> None:
        """Have :meth:`run` end. The first reason counts."""
        if not self._given_up.done():
            self._given_up.set_result(why)

    def _started(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            refused = isinstance(error, ConfigError) or not self.connected.is_set()
            self.give_up(GivenUp(str(error) if isinstance(error, ConfigError) else explained(error), refused))

    async def _connect(self) -> None:
        settings = self._settings
        further: dict[str, Any] = {} if settings.tls is None else {"tls": settings.tls}
        if settings.creds is not None:
            further["user_credentials"] = RawCredentials(creds_text(settings.creds))
        elif settings.user is not None:
            further |= {"user": settings.user, "password": self._password}
        self._was_begun = True
        await self._client.connect(
            list(settings.servers),
            name=settings.name,
            error_cb=self._failed,
            disconnected_cb=self._disconnected,
            reconnected_cb=self._reconnected,
            closed_cb=self._closed,
            connect_timeout=CONNECT_S,
            reconnect_time_wait=RECONNECT_S,  # type: ignore[arg-type] # seconds, also fractions
            max_reconnect_attempts=-1,
            ping_interval=PING_S,
            max_outstanding_pings=PINGS,
            pending_size=PENDING_BYTES,
            inbox_prefix=f"_INBOX.mf.{settings.name}.{secrets.token_hex(4)}",
            **further,
        )
        self._was_connected = True
        await self.match()
        await self._reconnected()

    def _password(self) -> str:
        """Return the password, which nats-py asks for just before it sends it."""
        self._require_tls()
        assert self._settings.password is not None, "settings with a user have a password"
        return self._settings.password.reveal()

    def _require_tls(self) -> None:
        # nats-py would go on without TLS where the server, or somebody in between, offers none.
        offers = self._client._server_info.get("tls_required")  # noqa: SLF001 # nothing public tells
        if self._settings.tls is not None and not offers:
            raise nats.errors.SecureConnWantedError

    # What nats-py calls; it requires coroutines.

    async def _received(self, message: Msg) -> None:
        self._inbound.put(message.subject, message.data)

    async def _reconnected(self) -> None:
        try:
            self._require_tls()
        except nats.errors.SecureConnWantedError as error:
            self.give_up(GivenUp(explained(error), refused=True))
            return
        self.connected.set()
        self._counts.connects += 1
        self._counts.max_payload = self._client.max_payload
        server = self._client.connected_url
        self._tell(State(LinkState.CONNECTED, "" if server is None else server.netloc))

    async def _disconnected(self) -> None:
        if self.connected.is_set():
            self.connected.clear()
            self._disconnect("the connection to the NATS server is lost")

    async def _failed(self, error: Exception) -> None:
        if is_permission(error):
            self._tell(Problem(False, explained(error)))
        elif is_refusal(error) or isinstance(error, nats.errors.SecureConnWantedError):
            self.connected.clear()
            self.give_up(GivenUp(explained(error), refused=True))
        elif not self.connected.is_set():
            self._disconnect(explained(error))

    def _disconnect(self, reason: str) -> None:
        self._reason = reason
        self._tell(State(LinkState.CONNECTING, reason))

    async def _closed(self) -> None:
        self.connected.clear()
        error = self._client.last_error
        self.give_up(GivenUp(explained(error or nats.errors.ConnectionClosedError()), refused=True))

    # Tasks.

    async def _send(self) -> None:
        """Hand over what is queued while connected; otherwise it waits in the bounded queue."""
        while True:
            await self.queued.wait()
            self.queued.clear()
            await self.connected.wait()
            while self.connected.is_set() and (message := self._outbound.next()) is not None:
                subject, payload = message
                try:
                    await self._client.publish(subject, payload)
                except nats.errors.MaxPayloadError:  # another server's is smaller
                    self._counts.oversized += 1
                    self._tell(
                        Problem(False, f"{len(payload)} bytes for {subject} are too many for the server")
                    )
                    continue
                except nats.errors.OutboundBufferLimitError:
                    continue  # disconnected just now, and nats-py's buffer is full: lost on the way
                self._counts.sent += 1
                self._counts.sent_bytes += len(payload)
                if self._client.pending_data_size >= FLUSH_BYTES:
                    with suppress(TimeoutError):  # _check decides what that means
                        await self._client.rtt(CONNECT_S)
            if self.connected.is_set():
                self._idle.set()
            else:  # lost in between, and some may wait
                self.queued.set()

    async def _check(self) -> None:
        """Give the client up after MISSES checks without a message and without an answer to a ping.

        And after UNREACHABLE_S without a connection.
        Counts checks, not time: a process that was stopped for a while has missed nothing.
        """
        misses, seen = 0, -1
        while misses < MISSES:
            if not misses:
                await asyncio.sleep(CHECK_S)
            try:
                async with asyncio.timeout(UNREACHABLE_S):
                    await self.connected.wait()
            except TimeoutError:
                self.give_up(GivenUp(self._reason, refused=True))
                return
            heard, seen = self._client.stats["in_msgs"] != seen, self._client.stats["in_msgs"]
            if not heard:
                with suppress(nats.errors.Error, TimeoutError, OSError):
                    await self._client.rtt(CHECK_S)  # type: ignore[arg-type] # seconds, also fractions
                    heard = True
            if heard and not self.lasted:
                self.lasted = True
                self._lasts()
            misses = 0 if heard or not self.connected.is_set() else misses + 1
        self.give_up(GivenUp("connected, but nothing is heard", restart=True))

    async def _close(self) -> None:
        self.connected.clear()
        if not self._was_begun:
            return
        with suppress(TimeoutError, nats.errors.Error, OSError):
            async with asyncio.timeout(CLOSE_S):
                await self._client.close()
        # close() waits for a server that does not read, and does nothing for a client that an error closed.
        transport = self._client._transport  # noqa: SLF001 # nothing public ends the connection at once
        writer = getattr(transport, "_bare_io_writer", None)
        if writer is not None:
            writer.transport.abort()
