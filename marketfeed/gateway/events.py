"""Sessions over Server-Sent Events: one request, and a response body that ends with the session.

The shard produces all of the body except its first lines and the `closing` event; sessions with equal
subscriptions get the same events. Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import structlog
import trio

from marketfeed.errors import CloseCode, ErrorCode, RequestError
from marketfeed.fanout.change import SubscriptionChange
from marketfeed.fanout.wire import SSE
from marketfeed.gateway import entitled, protocol
from marketfeed.gateway.clients import NO_SDK
from marketfeed.gateway.cursors import reached
from marketfeed.gateway.session import FAREWELL_S, Service, Session

if TYPE_CHECKING:
    from marketfeed.alerts.log import Start
    from marketfeed.core.cursor import Cursor
    from marketfeed.fanout.interest import Names
    from marketfeed.fanout.resume import Resumption
    from marketfeed.fanout.subscriber import Subscriber
    from marketfeed.fanout.tiers import Tier
    from marketfeed.gateway.exchange import Headers
    from marketfeed.gateway.outbox import Outbox

CONTENT_TYPE: Final = "text/event-stream"
RECONNECT_MS: Final = 2000  # before a browser reconnects
GONE_S: Final = 120.0  # without an acknowledgement: SSE has no ping that would detect a dead peer
MAX_JUNK_BYTES: Final = 65536  # that a client may send after its request; discarded

log = structlog.get_logger()


class AlertRequest(NamedTuple):
    """The alerts that a client asks for; none without patterns."""

    patterns: tuple[str, ...]
    consumer: str | None
    start: Start | None


NO_ALERTS: Final = AlertRequest((), None, None)


class EventSession(Session):
    """A session over Server-Sent Events."""

    def __init__(
        self,
        service: Service,
        address: str,
        names: Names,
        tier: Tier,
        after: Cursor | None,
        headers: Headers,
        sdk: str = NO_SDK,
        alerts: AlertRequest = NO_ALERTS,
    ) -> None:
        """``headers`` are added to those of the response."""
        super().__init__(service, address, sdk)
        self._names = names
        self._tier = tier
        self._after = after
        self._headers = headers
        self._wanted = alerts

    def check(self, tier_named: bool) -> None:
        """Check what is asked for against the grant; raises RequestError."""
        if self._service.access is not None and self.grant is None:
            self.counters.authentications["missing"] += 1
            what = "a token is needed: Authorization: Bearer, or a ticket of POST /v1/tickets"
            raise RequestError(ErrorCode.NOT_AUTHENTICATED, what)
        entitlement = self.entitlement
        entitled.check_names(entitlement, self._names)
        entitled.check_count(entitlement, self._names)
        if self._wanted.patterns:
            entitled.check_alerts(entitlement, self._wanted.consumer)
        if tier_named:
            entitled.check_tier(entitlement, self._tier)
        else:
            self._tier = entitled.tier_for(entitlement, self._service.tiers, self._tier)

    async def admit(self) -> None:
        """Count the session, and its names, with those of its holder and tenant. Raises RequestError."""
        if self.authentication is not None and self.grant is not None:
            await self.authentication.admit(self.grant)
            try:
                await self.authentication.hold(self.grant, self._names)
            except RequestError:
                self.authentication.leave()
                raise

    async def serve(self, outbox: Outbox, nursery: trio.Nursery) -> None:
        """Serve the client until either side ends the session; ``nursery`` sends a consumer's alerts."""
        outbox.attach(self)
        outbox.give_up_after(GONE_S)
        await outbox.send_all(self._opening())
        code = await self._live(outbox, self._tier, SSE, nursery)
        if code is None or self.member is None or code in (CloseCode.SLOW, CloseCode.ABNORMAL):
            return
        with trio.move_on_after(FAREWELL_S, shield=True):
            try:
                await self._send_closing(outbox, self.member, code)
                await outbox.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                log.debug("gone before the farewell", session=self.id)

    def _opening(self) -> bytes:
        headers = (
            ("Server", "marketfeed"),
            ("Content-Type", CONTENT_TYPE),
            ("Cache-Control", "no-cache, no-transform"),
            ("X-Accel-Buffering", "no"),  # nginx
            ("Connection", "close"),  # the end of the body is the end of the connection
            *self._headers,
        )
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        return f"HTTP/1.1 200 OK\r\n{lines}\r\nretry: {RECONNECT_MS}\n\n".encode("latin-1")

    async def _read(self, outbox: Outbox, member: Subscriber) -> CloseCode | None:
        """Subscribe, and wait until the client disconnects."""
        shard, alerts = self._service.shard, self.alerts
        assert alerts is not None
        try:
            if self.authentication is not None and self.grant is not None:
                self.keep(self.authentication.again(self.grant))
            await alerts.add(*self._wanted, None)
        except RequestError as error:  # the log cannot be read, or the consumer is one too many
            outbox.offer(SSE.messages(protocol.error(error.code, str(error)), shard.wall_ns()))
            self.end(CloseCode.INTERNAL)
            return None

        def answer(resumption: Resumption | None) -> bytes:
            about = (member.names, member.tier.name, "json", None, resumption)
            payload = protocol.subscription(*about, alerts.patterns, alerts.consumer)
            return SSE.messages(payload, shard.wall_ns())

        if self.over is not None:
            told = protocol.error(ErrorCode.TOO_MANY_REQUESTS, f"over quota: {self.over.reason}")
            outbox.offer(SSE.messages(told, shard.wall_ns()))
        await reached(shard.rings, self._after)
        await shard.change(
            SubscriptionChange(
                member,
                self._names,
                self._tier,
                SSE,
                answer,
                synced=True,
                after=self._after,
                entitle=self.entitle,
            )
        )
        alerts.send()
        junk = 0
        while data := await outbox.receive_some():
            junk += len(data)
            if junk > MAX_JUNK_BYTES:
                self.end(CloseCode.ABUSE)
                return None
        return CloseCode.NORMAL

    def _closing(self, member: Subscriber, code: CloseCode, retry_ms: int | None) -> bytes:
        retry = b"" if retry_ms is None else b"retry: %d\n" % retry_ms
        return retry + super()._closing(member, code, retry_ms)
