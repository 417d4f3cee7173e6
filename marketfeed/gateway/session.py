"""Transport-independent base class and shared state of client sessions."""

from __future__ import annotations

import random
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog
import trio

from marketfeed import clock
from marketfeed.access.quotas import Limited
from marketfeed.access.usage import user_of
from marketfeed.errors import CLOSE_TEXT, CloseCode, ErrorCode
from marketfeed.fanout.change import SubscriptionChange
from marketfeed.fanout.interest import Names
from marketfeed.fanout.wire import JSON, Encoding
from marketfeed.gateway import entitled, protocol
from marketfeed.gateway.authentication import Authentication
from marketfeed.gateway.clients import NO_SDK
from marketfeed.gateway.cluster_view import ClusterView
from marketfeed.gateway.handshakes import FLOOR_MS, Handshakes
from marketfeed.gateway.proxies import Proxies
from marketfeed.gateway.session_alerts import SessionAlerts
from marketfeed.gateway.turns import Turns
from marketfeed.gateway.ws_reader import Parsers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from marketfeed.access.access import Access
    from marketfeed.access.entitlement import Entitlement
    from marketfeed.access.grant import Grant
    from marketfeed.access.quotas import Over
    from marketfeed.alerts.service import AlertService
    from marketfeed.fanout.resume import Resumption
    from marketfeed.fanout.shard import Shard
    from marketfeed.fanout.subscriber import Subscriber
    from marketfeed.fanout.tiers import Tier
    from marketfeed.gateway.expiries import Expiries
    from marketfeed.gateway.hosts import Hosts
    from marketfeed.gateway.limits import Admits, Counters, Limits
    from marketfeed.gateway.live_alerts import LiveViews
    from marketfeed.gateway.outbox import Outbox
    from marketfeed.gateway.overview import Overview
    from marketfeed.gateway.tls import Certificate

FAREWELL_S: Final = 1.0  # for the `closing` message and the close
# Closed without a `closing` message: by the client, or as RFC 6455 requires.
SILENT: Final = frozenset(
    {CloseCode.NORMAL, CloseCode.PROTOCOL, CloseCode.ABNORMAL, CloseCode.INVALID_DATA, CloseCode.TOO_BIG}
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Service:
    """Objects and settings that all sessions of a gateway share."""

    shard: Shard
    tiers: Mapping[str, Tier]
    default_tier: Tier
    limits: Limits
    allowed_origins: frozenset[str]  # with the gateway's own
    admission: Admits
    counters: Counters
    handshakes: Handshakes = field(default_factory=Handshakes)
    hosts: Hosts | None = None  # None: any host
    encoding: Encoding = JSON  # of new sessions
    proxies: Proxies = field(default_factory=Proxies)
    certificate: Certificate | None = None  # None: plain TCP
    overview: Overview | None = None
    alerts: AlertService | None = None  # None: alerts are off
    views: LiveViews | None = None
    access: Access | None = None  # None: everybody may see everything
    expiries: Expiries | None = None
    cluster: ClusterView = field(default_factory=ClusterView)
    limited: Limited = field(default_factory=Limited)  # tenants that exceed a quota
    parsers: Parsers = field(default_factory=Parsers)
    # Held during requests that take milliseconds, so that only one of them delays other work at a time.
    large: trio.Lock = field(default_factory=trio.Lock)
    turns: Turns = field(default_factory=Turns)  # of clients whose HTTP requests do


class Session(ABC):
    """A connected subscriber."""

    def __init__(self, service: Service, address: str, sdk: str = NO_SDK) -> None:
        self.id = secrets.token_hex(8)
        self.address = address
        self.sdk = sdk
        self.opened_at_s = trio.current_time()
        self.retry_ms = FLOOR_MS  # range of the delay before a reconnect, if `closing` allows one
        self.leaves = False  # for another node of the cluster, if there is one: the engine ends
        self._service = service
        self._ending: CloseCode | None = None
        self._reading = trio.CancelScope()
        self._outbox: Outbox | None = None
        self.member: Subscriber | None = None  # once it has entered the shard
        self.alerts: SessionAlerts | None = None  # likewise
        self.grant: Grant | None = None  # what its key or token gives; None without access control
        self._unlimited_tier: Tier | None = None  # which it had before its tenant exceeded a quota
        self.ends_s: float | None = None  # Unix time at which its token ends, with the grace
        self.authentication = None if service.access is None else Authentication(self, service.access)

    @property
    def unsent_bytes(self) -> int:
        """Return the unsent bytes in the outbox and in the kernel."""
        return 0 if self._outbox is None else self._outbox.waiting_bytes + self._outbox.unsent()

    @property
    def counters(self) -> Counters:
        """Return the counters of the gateway."""
        return self._service.counters

    @property
    def entitlement(self) -> Entitlement:
        """Return what the session may see now."""
        return entitled.entitlement_of(self._service.access is not None, self.grant)

    def entitle(self, names: Names, tier: Tier) -> tuple[Names, Tier]:
        """Return what of ``names`` is entitled now, and ``tier`` or the one that is entitled in its place.

        While its tenant exceeds a quota, a session gets nothing, or the slowest tier.
        """
        if self._service.access is None:
            return names, tier
        entitlement, over = self.entitlement, self.over
        if over is not None and over.action == "stop":
            return Names(), tier
        tier = self._tier_held(entitlement, tier)
        if over is not None:
            slow = entitled.slowest(entitlement, self._service.tiers)
            if tier is not slow:
                self._unlimited_tier, tier = tier, slow
        return entitled.narrowed(entitlement, names), tier

    def _tier_held(self, entitlement: Entitlement, tier: Tier) -> Tier:
        return entitled.tier_for(entitlement, self._service.tiers, tier)

    @property
    def over(self) -> Over | None:
        """Return the quota that the session's tenant exceeds; None if it exceeds none."""
        return None if self.grant is None else self._service.limited.of(self.grant.claims.tenant)

    def limit(self) -> None:
        """Apply between flushes, and tell, that the tenant exceeds a quota, or does so no more."""
        member, alerts, over = self.member, self.alerts, self.over
        if member is None or alerts is None:
            return
        tier = member.tier
        if over is None:
            tier, self._unlimited_tier = self._unlimited_tier or tier, None

        def answer(_: Resumption | None) -> bytes:
            about = (member.names, member.tier.name, member.encoding.name, None, None)
            payloads = [
                protocol.subscription(*about, alerts.patterns, alerts.consumer, member.encoding.packs)
            ]
            if over is not None:
                payloads.insert(0, protocol.error(ErrorCode.TOO_MANY_REQUESTS, f"over quota: {over.reason}"))
            wall_ns = self._service.shard.wall_ns()
            return b"".join(member.encoding.messages(payload, wall_ns) for payload in payloads)

        change = SubscriptionChange(
            member, Names(), tier, member.encoding, answer, True, revise=_same, entitle=self.entitle
        )
        self._service.shard.submit(change)

    def keep(self, grant: Grant) -> None:
        """Hold ``grant`` from now on, and end when it does."""
        self.grant = grant
        self._meter()
        access, expiries = self._service.access, self._service.expiries
        if access is not None:
            self.ends_s = grant.ends_s(access.now_s())
        if expiries is not None:
            expiries.add(self)

    async def renew(self, grant: Grant, id_: protocol.RequestId = None) -> None:
        """Hold ``grant`` and answer, as :meth:`regrant` does; at once if there is no subscription yet."""
        member, alerts, outbox = self.member, self.alerts, self._outbox
        assert member is not None
        assert alerts is not None
        assert outbox is not None
        if (
            any(member.names)
            or alerts.patterns
            or self._tier_held(grant.entitlement, member.tier) != member.tier
        ):
            applied = await self.regrant(grant, id_, renewal=True)
            await applied.wait()
            assert self.authentication is not None
            await self.authentication.release(grant, member.names)
            return
        self.keep(grant)
        alerts.entitlement = grant.entitlement
        assert self.authentication is not None
        answer = self.authentication.answer(grant, member.tier.name, id_)
        if not outbox.offer(member.encoding.messages(answer, self._service.shard.wall_ns())):
            self._service.shard.filled(member)
        if self.over is not None:
            self.limit()

    async def regrant(
        self, grant: Grant, id_: protocol.RequestId = None, renewal: bool = False
    ) -> trio.Event:
        """Hold ``grant``; what it no longer entitles to leaves the subscription between flushes, and is told.

        A ``renewal`` is answered. Returns the event of its application.
        """
        member, alerts, authentication = self.member, self.alerts, self.authentication
        assert member is not None
        assert alerts is not None
        assert authentication is not None
        tier, gone = member.tier, Names()
        self.keep(grant)

        def revise(names: Names) -> Names:
            nonlocal gone
            kept = entitled.entitled(grant.entitlement, names)
            gone = names.minus(kept)
            return kept

        def answer(_: Resumption | None) -> bytes:
            payloads = [authentication.answer(grant, member.tier.name, id_)] if renewal else []
            if any(gone) or lost or (member.tier is not tier and not renewal):
                what = ", ".join([*sorted(gone.distinct()), *lost]) or f"tier {tier.name}"
                payloads.append(protocol.error(ErrorCode.NOT_ENTITLED, f"no longer entitled: {what}"[:500]))
                about = (member.names, member.tier.name, member.encoding.name, None, None)
                payloads.append(
                    protocol.subscription(*about, alerts.patterns, alerts.consumer, member.encoding.packs)
                )
            wall_ns = self._service.shard.wall_ns()
            return b"".join(member.encoding.messages(payload, wall_ns) for payload in payloads)

        lost = await alerts.regrant(grant.entitlement)
        change = SubscriptionChange(
            member,
            Names(),
            tier,
            member.encoding,
            answer,
            any(member.names),
            id_,
            revise=revise,
            entitle=self.entitle,
        )
        return self._service.shard.submit(change)

    def adopt(self, service: Service) -> None:
        """Use ``service`` from now on. Settings that apply to new sessions do not change."""
        self._service = service

    @abstractmethod
    async def serve(self, outbox: Outbox, nursery: trio.Nursery) -> None:
        """Serve the client until either side ends the session; ``nursery`` sends a consumer's alerts."""

    def end(self, code: CloseCode) -> None:
        """Request the end of the session; the first ``code`` counts."""
        if self._ending is None:
            self._ending = code
            self._reading.cancel()

    def drained(self) -> None:
        """Have the shard continue with the session: its outbox holds no unsent bytes any more."""
        if self.member is not None:
            self._service.shard.drained(self.member)
        if self.alerts is not None:
            self.alerts.drained()

    def ponged(self, payload: bytes) -> None:
        """Have the shard record the round trip of the ping that the client has answered, if it has."""
        if self.member is not None:
            self._service.shard.keepalive.ponged(self.member, payload, clock.now_ns())

    @abstractmethod
    async def _read(self, outbox: Outbox, member: Subscriber) -> CloseCode | None:
        """Serve requests until the client closes; return its code, None if the server ends the session."""

    async def _live(
        self, outbox: Outbox, tier: Tier, encoding: Encoding, nursery: trio.Nursery
    ) -> CloseCode | None:
        """Enter the shard, run :meth:`_read`, and leave the shard. Alerts are sent in ``nursery``.

        Returns the code of the close to send; None if the client has closed.
        """
        counters, shard = self._service.counters, self._service.shard
        counters.accepted += 1
        self._service.handshakes.done(trio.current_time())
        member = self.member = shard.enter(self.id, outbox, tier, encoding)
        self._outbox = outbox
        if self._service.cluster.stale:
            self.tell_source()
        self._meter()
        alerts = self.alerts = SessionAlerts(self._service, self.id, member, outbox, nursery)
        alerts.entitlement = self.entitlement
        closed: CloseCode | None = None
        try:
            with self._reading:
                closed = await self._read(outbox, member)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            closed = CloseCode.ABNORMAL  # reset by the peer
        except Exception:
            log.exception("session failed", session=self.id, address=self.address)
            self._ending = CloseCode.INTERNAL
        finally:
            shard.leave(member)
            alerts.end()
            self._ending = self._ending or closed or CloseCode.INTERNAL
            if self._ending is CloseCode.SLOW:
                outbox.reset()
            counters.close(self._ending, trio.current_time() - self.opened_at_s)
            log.info(
                "session closed",
                session=self.id,
                address=self.address,
                code=int(self._ending),
                reason=CLOSE_TEXT[self._ending],
            )
        return self._ending if closed is None else None

    def _meter(self) -> None:
        """Meter the session as that of its grant's holder."""
        if self.grant is not None and self.member is not None:
            self._service.shard.meter.attach(self.member, user_of(self.grant))

    async def _send_closing(self, outbox: Outbox, member: Subscriber, code: CloseCode) -> None:
        """Send the `closing` message, unless the code has none."""
        if code not in SILENT:
            retry_ms = random.randint(*self.retry_ms) if code < CloseCode.BAD_REQUEST else None
            await outbox.send_all(self._closing(member, code, retry_ms))

    def _closing(self, member: Subscriber, code: CloseCode, retry_ms: int | None) -> bytes:
        url = self._service.cluster.url_for(self._key) if self.leaves else None
        return member.encoding.messages(protocol.closing(code, retry_ms, url), self._service.shard.wall_ns())

    @property
    def _key(self) -> str:
        """Return what identifies the client over its sessions: the holder of its token, or its address."""
        return self.address if self.grant is None else self.grant.claims.sub

    def tell_source(self) -> None:
        """Send the state of the source of ticks."""
        member, outbox = self.member, self._outbox
        if member is None or outbox is None:
            return
        shard = self._service.shard
        if not outbox.offer(member.encoding.messages(self._service.cluster.message(), shard.wall_ns())):
            shard.filled(member)


def _same(names: Names) -> Names:
    return names
