"""The gateway: serves HTTP on the connections that it is passed, and hands them over to sessions."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog
import trio

from marketfeed import clock
from marketfeed.errors import AccessError, CloseCode
from marketfeed.gateway.handshakes import SOON_MS
from marketfeed.gateway.limits import Admission, Counters, Limits
from marketfeed.gateway.outbox import Nobody, Outbox
from marketfeed.gateway.pacer import Pacer
from marketfeed.gateway.proxies import ProxyError, parse_preface
from marketfeed.gateway.routes import Routes
from marketfeed.gateway.tls import HANDSHAKE, TlsError, TlsOutbox

if TYPE_CHECKING:
    from marketfeed.access.access import Access
    from marketfeed.access.grant import Grant
    from marketfeed.gateway.session import Service, Session

RETIRE_LOOK_S: Final = 0.05  # between checks for sessions that have finished their handshake
LEAST_PENDING: Final = 1024  # the least limit of connections without a session

log = structlog.get_logger()


class _PendingOwner(Nobody):
    """The owner of a connection on which no session has begun."""

    def __init__(self, counters: Counters, peer: str) -> None:
        self._counters = counters
        self._peer = peer

    def end(self, code: CloseCode) -> None:
        """Count a connection that the outbox cuts for abuse."""
        if code is CloseCode.ABUSE:
            self._counters.refused["TLS abuse"] += 1
            log.warning("a client is cut: it floods TLS", address=self._peer)


class Gateway:
    """Serves HTTP and sessions on the connections that it is passed."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.routes = Routes(service)
        self.sessions: dict[Session, None] = {}
        # Counts connections without a session, so that one address cannot use up all descriptors.
        self._pending = Admission(_pending_limits(service.limits))
        self._pacer = Pacer()
        self._connections = 0
        self._ended = trio.lowlevel.ParkingLot()  # a drain may begin while a retirement waits

    async def serve(self, sock: socket.socket, peer: str, nursery: trio.Nursery) -> None:
        """Serve a connection of ``peer`` until it ends. Does not raise, whatever the peer does.

        In ``nursery``, which all connections may share, bytes are sent that wait for the socket, and alerts
        of a consumer. A nursery for each connection would take a tenth of its time and memory.
        """
        session: Session | None = None
        self._connections += 1
        refused = self._service.counters.refused
        outbox: Outbox | None = None
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            kind = Outbox if self._service.certificate is None else TlsOutbox
            outbox = kind(sock, nursery, _PendingOwner(self._service.counters, peer), self._pacer)
            outbox.give_up_after(self._service.shard.keepalive.timing.gone_s)
            session = await self._serve_http(outbox, peer)
            if session is not None:
                self.sessions[session] = None
                await session.serve(outbox, nursery)
        except Exception as error:
            if session is not None and session.member is None:  # a handshake on which the libraries failed
                refused["broken handshake"] += 1
                log.warning("handshake failed", address=session.address, error=repr(error)[:200])
            else:
                # The socket broke after accept, or a bug: only this connection is affected.
                log.exception("connection failed", address=peer)
        finally:
            if outbox is None:
                sock.close()
            else:
                outbox.close()
            if session is not None:
                if session.authentication is not None:
                    session.authentication.leave()
                    session.authentication = None  # it refers to the session
                self._service.admission.release(session.address)
                del self.sessions[session]
            self._connections -= 1
            self._ended.unpark_all()

    async def _serve_http(self, outbox: Outbox, peer: str) -> Session | None:
        """Serve HTTP until a request begins a session; return the session, or None at the end."""
        refused = self._service.counters.refused
        trusted = self._service.proxies.trusts(peer)
        limit = None if trusted else self._pending.admit(peer, trio.current_time())
        if limit is not None:
            refused[f"too many connections: limits.{limit}"] += 1
            return None
        try:
            if trusted or isinstance(outbox, TlsOutbox):
                client = await self._preamble(outbox, peer, trusted)
                if client is None:
                    return None
            else:
                client = peer
            handover = await self.routes.server.serve(outbox, client)
        except trio.TooSlowError:
            refused["handshake timeout"] += 1
            return None
        except trio.BrokenResourceError:
            return None
        except ProxyError as error:
            refused["broken PROXY header"] += 1
            log.warning("a trusted proxy sent a broken PROXY header", address=peer, reason=str(error))
            return None
        finally:
            if not trusted:
                self._pending.release(peer)
        if handover is None:
            return None
        outbox.replay(handover.behind)
        return handover.session

    async def _preamble(self, outbox: Outbox, peer: str, trusted: bool) -> str | None:
        """Receive what precedes HTTP; return the client's address, None if TLS failed.

        Raises TooSlowError and ProxyError.
        """
        with trio.fail_after(self._service.limits.handshake_s):
            if trusted:
                peer = await self._proxy_address(outbox) or peer
            if isinstance(outbox, TlsOutbox) and not await self._accept_tls(outbox, peer):
                return None
        return peer

    async def _proxy_address(self, outbox: Outbox) -> str | None:
        """Return the client's address from the PROXY header that the connection begins with, if any."""
        data = b""
        while (preface := parse_preface(data)) is None:
            more = await outbox.receive_some(4096)
            if not more:
                break
            data += more
        outbox.replay(data[preface.size if preface else 0 :])
        return preface.address if preface else None

    async def _accept_tls(self, outbox: TlsOutbox, peer: str) -> bool:
        """Perform the TLS handshake; return whether it succeeded."""
        assert self._service.certificate is not None
        refused = self._service.counters.refused
        data = await outbox.receive_some(4096)
        outbox.replay(data)
        if data and not data.startswith(HANDSHAKE):
            refused["no TLS on the TLS port"] += 1
            log.info("a client does not speak TLS", address=peer)
            await self.routes.server.refuse(outbox, 400, "this port speaks TLS: https:// or wss://")
            return False
        try:
            await outbox.handshake(self._service.certificate.context)
        except TlsError as error:
            refused["TLS handshake failed"] += 1
            log.info("TLS handshake failed", address=peer, reason=str(error))
            return False
        return True

    def reload_certificates(self) -> None:
        """Read the certificate's files again, for new connections.

        After a ConfigError, the old certificate stays in use.
        """
        if self._service.certificate is not None:
            self._service.certificate.reload()

    def exchange(self, service: Service) -> None:
        """Replace the configuration of this gateway by ``service``.

        Sessions whose tier has changed or was removed are closed, so that their clients reconnect.
        """
        self._service = service
        self.routes = Routes(service)
        self._pending.limits = _pending_limits(service.limits)
        for session in list(self.sessions):
            session.adopt(service)
            member = session.member
            if member is not None and service.tiers.get(member.tier.name) != member.tier:
                session.retry_ms = SOON_MS
                session.end(CloseCode.DRAINING)

    async def recheck(self) -> None:
        """Hold each session to what its key or token gives now: keys, tenants or revocations have changed."""
        access = self._service.access
        if access is None:
            return
        self.routes.recheck()
        turn = clock.Turn()
        for session in list(self.sessions):
            if session.grant is not None:
                await _recheck(session, session.grant, access)
            if turn.is_over():
                await trio.lowlevel.checkpoint()
                turn = clock.Turn()

    async def tell_sources(self) -> None:
        """Send every session each state of the source of ticks, until cancelled.

        Sessions that begin meanwhile know it. What changes during a turn is told by the next.
        """
        cluster = self._service.cluster
        while True:
            await cluster.changed.wait()
            cluster.changed = trio.Event()
            turn = clock.Turn()
            for session in list(self.sessions):
                session.tell_source()
                if turn.is_over():
                    await trio.lowlevel.checkpoint()
                    turn = clock.Turn()

    def limit(self, tenants: set[str]) -> None:
        """Have the sessions of ``tenants`` told that these exceed a quota, or do so no more."""
        for session in list(self.sessions) if tenants else ():
            if session.grant is not None and session.grant.claims.tenant in tenants:
                session.limit()

    async def drain(self) -> None:
        """Close every session because the engine ends, and answer every poll; return when all have ended.

        Clients are told to reconnect over the time in which their handshakes can be served.
        """
        await self.routes.drain()
        away = bool(self._service.cluster.urls)
        retry_ms = self._service.handshakes.retry_ms(len(self.sessions), at_once=away)
        for session in list(self.sessions):
            session.retry_ms, session.leaves = retry_ms, True
            session.end(CloseCode.DRAINING)
        while self.sessions:
            await self._ended.park()

    async def retire(self, spread_s: float | None) -> None:
        """Close every session, so that its client reconnects to another process; return when all have ended.

        The closes are spread over ``spread_s``, so that the clients do not reconnect all at once. If that is
        None, all are closed at once, and told to reconnect over the time in which their handshakes can be
        served. Handshakes in progress are finished first.
        """
        told: set[Session] = set()
        retry_ms = SOON_MS
        if spread_s is None:
            retry_ms = self._service.handshakes.retry_ms(len(self.sessions), at_once=True)
        await self.routes.drain()
        while self._connections:
            begun = [s for s in self.sessions if s.member is not None and s not in told]
            for session in begun:
                told.add(session)
                session.retry_ms = retry_ms
                session.end(CloseCode.DRAINING)
                await trio.sleep((spread_s or 0.0) / len(begun))
            with trio.move_on_after(RETIRE_LOOK_S):
                await self._ended.park()


async def _recheck(session: Session, grant: Grant, access: Access) -> None:
    try:
        now = access.again(grant)
    except AccessError:
        session.end(CloseCode.REVOKED)
        return
    member, authentication = session.member, session.authentication
    if authentication is None:  # it has ended while others were looked at
        return
    if now.entitlement != grant.entitlement and member is not None:
        applied = await session.regrant(now)
        if access.bounds_symbols(now):
            await applied.wait()
            await authentication.release(now, member.names)
    elif member is None:
        session.grant = now


def _pending_limits(limits: Limits) -> Limits:
    return replace(
        limits,
        sessions=max(limits.sessions, LEAST_PENDING),
        sessions_per_ip=max(limits.sessions_per_ip, LEAST_PENDING),
        handshakes_per_s=0,
    )
