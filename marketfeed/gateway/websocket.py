"""WebSocket sessions: handshake, requests and close. Errors end only the session in which they occur.

The session reads messages over the outbox (ws_reader.py); the shard writes complete frames to the same
outbox. The gateway always ends a session by closing its socket.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Final

import structlog
import trio

from marketfeed.api.requests import Acknowledge, Authenticate, ClientRequest, Ping, Subscribe, Unsubscribe
from marketfeed.errors import CloseCode, ErrorCode, RequestError
from marketfeed.fanout.change import SubscriptionChange
from marketfeed.fanout.compression import encoding_after
from marketfeed.gateway import entitled, protocol
from marketfeed.gateway.clients import NO_SDK
from marketfeed.gateway.cursors import reached
from marketfeed.gateway.limits import Bucket
from marketfeed.gateway.scan import FrameScanner
from marketfeed.gateway.session import FAREWELL_S, Service, Session
from marketfeed.gateway.ws_reader import WebSocketClosedError, WebSocketReader, close_frame

if TYPE_CHECKING:
    from marketfeed.access.quotas import Over
    from marketfeed.fanout.interest import Names
    from marketfeed.fanout.resume import Resumption
    from marketfeed.fanout.subscriber import Subscriber
    from marketfeed.fanout.tiers import Tier
    from marketfeed.fanout.wire import Encoding
    from marketfeed.gateway.outbox import Outbox

MAX_BAD_REQUESTS: Final = 10  # in a row
LARGE: Final = 8192  # characters of a request and of its subscription; these take half a millisecond
MAX_REFUSED: Final = 200  # requests above the rate in a row; then the session ends as abuse

log = structlog.get_logger()


class WebSocketSession(Session):
    """A session over a WebSocket."""

    def __init__(self, service: Service, address: str, answer: bytes, sdk: str = NO_SDK) -> None:
        """``answer`` is that to the client's handshake, as upgrade.py returns it."""
        super().__init__(service, address, sdk)
        self._answer_to_handshake = answer
        self._bad_requests = 0
        self._waits_until_s = 0.0  # for `auth`
        self._reader: WebSocketReader | None = None
        self._farewell = b""  # the close frame to send, if the client began the end

    async def serve(self, outbox: Outbox, nursery: trio.Nursery) -> None:
        """Serve the client until either side ends the session; ``nursery`` sends a consumer's alerts."""
        scanner = FrameScanner()
        outbox.attach(self, scanner)
        reader = self._reader = WebSocketReader(
            outbox, scanner, self._service.parsers, self._service.limits.request_bytes
        )
        outbox.offer(self._answer_to_handshake + self._connected())
        self._answer_to_handshake = b""  # free the memory
        if self._ending is not None:
            self._service.counters.refused["handshake broken"] += 1
            return
        tier = self._tier_held(self.entitlement, self._service.default_tier)
        code = await self._live(outbox, tier, self._service.encoding, nursery)
        await self._close(reader, outbox, code)

    # Requests.

    async def _read(self, outbox: Outbox, member: Subscriber) -> CloseCode | None:
        """Serve requests until the client closes; return its code, None if the server ends the session."""
        reader = self._reader
        assert reader is not None
        if not await self._begin(outbox, member):
            return None
        bucket = Bucket(self._service.limits.requests_per_s, trio.current_time())
        refused = 0
        while True:
            try:
                # Without a coroutine in between, of 230 bytes in each quiet session.
                told = self.authentication is None or self.grant is not None
                text = await (reader.message() if told else self._in_time(reader))
                if text is None:
                    what = f"no auth within {self._service.limits.handshake_s:g} s"
                    self._send_error(outbox, member, ErrorCode.AUTHENTICATION_TIMEOUT, what, None)
                    assert self.authentication is not None
                    self.end(self.authentication.timeout_code)
                    return None
            except WebSocketClosedError as closed:
                self._farewell = closed.farewell
                return closed.code
            try:
                if not bucket.take(trio.current_time()):
                    refused += 1
                    most = self._service.limits.requests_per_s
                    msg = f"more than {most:g} requests a second"
                    self._send_error(outbox, member, ErrorCode.TOO_MANY_REQUESTS, msg, protocol.id_of(text))
                else:
                    refused = 0
                    async with self._lock_of(text, member):
                        await self._answer(protocol.parse_request(text), outbox, member)
                    self._bad_requests = 0
            except RequestError as error:
                self._bad_requests += 1
                self._send_error(outbox, member, error.code, str(error), error.request_id)
            except protocol.NotJsonError as error:
                self._bad_requests = MAX_BAD_REQUESTS
                self._send_error(outbox, member, ErrorCode.SYNTAX, f"not JSON: {error}", None)
            if self._bad_requests >= MAX_BAD_REQUESTS or refused >= MAX_REFUSED:
                self.end(CloseCode.BAD_REQUEST if refused < MAX_REFUSED else CloseCode.ABUSE)
                return None
            del text  # it may be large, and the next request may never come
            # Do not read from a client that does not read its answers.
            if outbox.waiting_bytes:
                await outbox.wait_send_all_might_not_block()

    async def _begin(self, outbox: Outbox, member: Subscriber) -> bool:
        """Answer what the handshake presented; False ends the session."""
        if self.authentication is None:
            return True
        if self.grant is None:
            self._waits_until_s = trio.current_time() + self._service.limits.handshake_s
            return True
        try:
            await self.authentication.admit(self.grant)
            grant = self.authentication.again(self.grant)
        except RequestError as error:
            self._send_error(outbox, member, error.code, str(error), None)
            return False
        await self.renew(grant)
        return True

    def _connected(self) -> bytes:
        """Return the frame of the first message, which shares a send with the answer to the handshake."""
        shard = self._service.shard
        payload = protocol.connected(shard.rings.epoch, self.id, self._service.tiers.values())
        return self._service.encoding.messages(payload, shard.wall_ns())

    async def _in_time(self, reader: WebSocketReader) -> str | bytes | None:
        """Return the next message; None if the session has not authenticated in time."""
        with trio.move_on_at(self._waits_until_s):
            return await reader.message()
        return None

    def _lock_of(self, text: str | bytes, member: Subscriber) -> AbstractAsyncContextManager[None]:
        """Return the lock to hold during a request: large requests are served one at a time."""
        large = len(text) + member.names.size > LARGE
        return self._service.large if large else nullcontext()

    def _send_error(
        self, outbox: Outbox, member: Subscriber, code: ErrorCode, msg: str, id_: protocol.RequestId
    ) -> None:
        self._service.counters.errors[int(code)] += 1
        self._offer(outbox, member, protocol.error(code, msg, id_))

    def _tell_over(self, member: Subscriber, over: Over) -> None:
        assert self._outbox is not None
        told = f"over quota: {over.reason}"
        self._send_error(self._outbox, member, ErrorCode.TOO_MANY_REQUESTS, told, None)

    def _framed(self, member: Subscriber, payload: bytes) -> bytes:
        return member.encoding.messages(payload, self._service.shard.wall_ns())

    def _offer(self, outbox: Outbox, member: Subscriber, payload: bytes) -> None:
        """Send an answer; report to the shard if the socket is full afterwards."""
        if not outbox.offer(self._framed(member, payload)):
            self._service.shard.filled(member)

    async def _answer(self, request: ClientRequest, outbox: Outbox, member: Subscriber) -> None:
        match request:
            case Ping():
                self._offer(outbox, member, protocol.pong(request))
            case Authenticate():
                if self.authentication is None:
                    self._offer(outbox, member, protocol.authenticated(member.tier.name, request.id))
                else:
                    await self.authentication.present(request.token, request.id)
            case _ if self.grant is None and self.authentication is not None:
                raise RequestError(ErrorCode.NOT_AUTHENTICATED, "auth first", request.id)
            case Acknowledge():
                assert self.alerts is not None
                found = await self.alerts.acknowledge(request.alerts, request.id)
                self._offer(outbox, member, protocol.acked(found, request.id))
            case Subscribe():
                asked = protocol.names_of(request)
                entitled.check_names(self.entitlement, asked, request.id)
                names = member.names.plus(asked)
                tier = self._tier_of(request, member)
                try:
                    encoding = encoding_after(member.encoding, request.encoding, request.compress, tier)
                except ValueError as error:
                    raise RequestError(ErrorCode.SYNTAX, str(error), request.id) from None
                await self._change(request, names, tier, encoding, member, synced=True)
            case Unsubscribe():
                names = member.names.minus(protocol.names_of(request))
                await self._change(request, names, member.tier, member.encoding, member, synced=False)

    def _tier_of(self, request: Subscribe, member: Subscriber) -> Tier:
        if request.tier is None:
            return member.tier
        tier = self._service.tiers.get(request.tier)
        if tier is None:
            allowed = ", ".join(self._service.tiers)
            what = f"tier: one of {allowed}, not {request.tier[:40]!r}"
            raise RequestError(ErrorCode.SYNTAX, what, request.id)
        entitled.check_tier(self.entitlement, tier, request.id)
        return tier

    async def _change(
        self,
        request: Subscribe | Unsubscribe,
        names: Names,
        tier: Tier,
        encoding: Encoding,
        member: Subscriber,
        synced: bool,
    ) -> None:
        excess = self._service.limits.excess(names) if synced else None
        if excess is not None:
            raise RequestError(ErrorCode.SYMBOL_LIMIT, excess, request.id)
        entitlement = self.entitlement
        if synced:
            entitled.check_count(entitlement, names, request.id)
        if isinstance(request, Subscribe) and request.alerts:
            entitled.check_alerts(entitlement, request.consumer, request.id)
        after = protocol.cursor_of(request) if isinstance(request, Subscribe) else None
        alerts = self.alerts
        assert alerts is not None
        await reached(self._service.shard.rings, after)
        await self._hold(names, request.id)
        try:
            if isinstance(request, Subscribe):
                await alerts.add(request.alerts, request.consumer, request.start, request.id)
            else:
                await alerts.remove(request.alerts, request.id)
        except RequestError:
            await self._hold(member.names)  # nothing changes
            raise
        if synced and self.over is not None:
            self._tell_over(member, self.over)

        def answer(resumption: Resumption | None) -> bytes:
            about = (member.names, member.tier.name, member.encoding.name, request.id, resumption)
            return self._framed(
                member, protocol.subscription(*about, alerts.patterns, alerts.consumer, member.encoding.packs)
            )

        await self._service.shard.change(
            SubscriptionChange(
                member, names, tier, encoding, answer, synced, request.id, after, entitle=self.entitle
            )
        )
        alerts.send()

    async def _hold(self, names: Names, id_: protocol.RequestId = None) -> None:
        """Count ``names`` with those of the tenant. Raises RequestError."""
        if self.authentication is not None and self.grant is not None:
            await self.authentication.hold(self.grant, names, id_)

    # Close.

    async def _close(self, reader: WebSocketReader, outbox: Outbox, code: CloseCode | None) -> None:
        """Send `closing` and a close frame, unless the peer is gone or does not read; None: the client began.

        Then read until the client's close frame, because unread bytes would turn the end of the connection
        into a reset, which may overtake the frame.
        """
        farewell = self._farewell if code is None else close_frame(code)
        if not farewell or code in (CloseCode.SLOW, CloseCode.ABNORMAL):
            return
        with trio.move_on_after(FAREWELL_S, shield=True):
            try:
                if code is not None:
                    assert self.member is not None
                    await self._send_closing(outbox, self.member, code)
                outbox.shut()
                await outbox.send_all(farewell)
                while not reader.closed and await outbox.receive_some():
                    pass
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                log.debug("gone before the farewell", session=self.id)
