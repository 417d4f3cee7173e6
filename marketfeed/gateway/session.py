"""Transport-independent base class and shared state of client sessions."""

from __future__ import annotations

import random
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio

from marketfeed.errors import CLOSE_TEXT, CloseCode
from marketfeed.fanout.wire import JSON, Encoding
from marketfeed.gateway import protocol
from marketfeed.gateway.clients import NO_SDK
from marketfeed.gateway.handshakes import FLOOR_MS, Handshakes
from marketfeed.gateway.proxies import Proxies

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from marketfeed.fanout.shard import Shard
    from marketfeed.fanout.subscriber import Subscriber
    from marketfeed.fanout.tiers import Tier
    from marketfeed.gateway.hosts import Hosts
    from marketfeed.gateway.limits import Admits, Counters, Limits
    from marketfeed.gateway.outbox import Outbox
    from marketfeed.gateway.tls import Certificate

FAREWELL_S: Final = 1.0  # for the closing message and what follows it
# Closed without a `closing` message: by the client, or as RFC 6455 lays down.
SILENT: Final = frozenset(
    {CloseCode.NORMAL, CloseCode.PROTOCOL, CloseCode.ABNORMAL, CloseCode.INVALID_DATA, CloseCode.TOO_BIG}
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Service:
    """What every session of a gateway shares."""

    shard: Shard
    tiers: Mapping[str, Tier]
    default_tier: Tier
    limits: Limits
    allowed_origins: frozenset[str]  # the gateway's own among them
    admission: Admits
    counters: Counters
    handshakes: Handshakes = field(default_factory=Handshakes)
    hosts: Hosts | None = None  # None: requests for any host are served
    encoding: Encoding = JSON  # what sessions begin with
    proxies: Proxies = field(default_factory=Proxies)
    certificate: Certificate | None = None  # without one, connections are plain
    overview: Callable[[], Awaitable[dict[str, Any]]] | None = None  # what /v1/latency shows
    # Held for milliseconds of work that a client asked for: many at once delay the others by one piece.
    large: trio.Lock = field(default_factory=trio.Lock)


class Session(ABC):
    """A connected subscriber, from its request to its last byte."""

    def __init__(self, service: Service, address: str, sdk: str = NO_SDK) -> None:
        self.id = secrets.token_hex(8)
        self.address = address
        self.sdk = sdk
        self.opened_at_s = trio.current_time()
        self.retry_ms = FLOOR_MS  # when to come back, if it is told to; from and to
        self._service = service
        self._ending: CloseCode | None = None
        self._reading = trio.CancelScope()
        self._outbox: Outbox | None = None
        self.member: Subscriber | None = None  # once it has been let in

    @property
    def unsent_bytes(self) -> int:
        """Return how many bytes wait for the kernel, and in it."""
        return 0 if self._outbox is None else self._outbox.waiting_bytes + self._outbox.unsent()

    def adopt(self, service: Service) -> None:
        """Serve by ``service`` from now on; what was settled when the session began stays."""
        self._service = service

    @abstractmethod
    async def serve(self, outbox: Outbox, nursery: trio.Nursery) -> None:
        """Serve the client until either side ends it, and count why; ``nursery`` is cancelled afterwards."""

    def end(self, code: CloseCode) -> None:
        """Ask the session to end for the reason ``code``; the first reason stands."""
        if self._ending is None:
            self._ending = code
            self._reading.cancel()

    def drained(self) -> None:
        """Have the shard continue with the session: its outbox holds no unsent bytes any more."""
        if self.member is not None:
            self._service.shard.drained(self.member)

    def last_words(self) -> bytes:
        """Return the bytes to send before the socket closes: none."""
        return b""

    @abstractmethod
    async def _read(self, outbox: Outbox, member: Subscriber) -> CloseCode | None:
        """Serve what the client asks until it leaves; return its reason, None if we are to end it."""

    async def _live(self, outbox: Outbox, tier: Tier, encoding: Encoding) -> CloseCode | None:
        """Be a member of the shard while :meth:`_read` runs.

        Returns the code to say goodbye with; None if the client said it first.
        """
        counters, shard = self._service.counters, self._service.shard
        counters.accepted += 1
        self._service.handshakes.done(trio.current_time())
        member = self.member = shard.enter(self.id, outbox, tier, encoding)
        self._outbox = outbox
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

    async def _say_why(self, outbox: Outbox, member: Subscriber, code: CloseCode) -> None:
        """Send the `closing` message, where there is to be one."""
        if code not in SILENT:
            retry_ms = random.randint(*self.retry_ms) if code < CloseCode.BAD_REQUEST else None
            await outbox.send_all(self._farewell(member, code, retry_ms))

    def _farewell(self, member: Subscriber, code: CloseCode, retry_ms: int | None) -> bytes:
        return member.encoding.messages(protocol.closing(code, retry_ms), self._service.shard.wall_ns())
