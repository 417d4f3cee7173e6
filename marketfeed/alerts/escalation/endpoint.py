"""An HTTP peer: one POST at a time, behind a circuit breaker, to an address that was checked.

The host is resolved once per attempt. All its addresses must be public, unless ``allow_private``; the
connection is made to one of those addresses, with the name in the Host header and in TLS. So a DNS server
that answers differently the second time changes nothing. No proxy is used, no redirect is followed, and no
connection is kept: one that was opened for another name must not be used again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import httpx
import msgspec
import trio
from msgspec import Meta

from marketfeed import __version__
from marketfeed.alerts.escalation.message import Outcome, Verdict
from marketfeed.alerts.escalation.retry_after import parse_retry_after
from marketfeed.alerts.escalation.url import Url, checked_url
from marketfeed.clock import now_ns as loop_ns
from marketfeed.core.addresses import is_public, parse_ip
from marketfeed.core.breaker import Breaker, BreakerStatistics
from marketfeed.core.units import S
from marketfeed.errors import ConfigError
from marketfeed.http_client import EXCHANGE_ERRORS, beginning, cause_of, http_client, status_line, trusting

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

Timeout = Annotated[float, Meta(ge=0.1, le=60)]
BODY_BYTES: Final = 4096  # read of a response
CONNECT_S: Final = 5.0  # a connection to one of several addresses, at most
# Answers after which the peer is known to work, although it did not take the message.
_ALIVE: Final = frozenset({400, 410})


class Answer(msgspec.Struct, frozen=True):
    """What came of one POST."""

    status: int = 0  # HTTP; 0 if no whole answer came
    reason: str = ""  # one line, without secrets
    body: bytes = b""  # its first BODY_BYTES
    retry_after_s: float | None = None  # that the peer, or the breaker, asks for
    deferred: bool = False  # nothing was sent: the circuit breaker is open

    @property
    def accepted(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def outcome(self, *, refused: frozenset[int] = frozenset()) -> Outcome:
        """Return the outcome for a sender to whom the statuses ``refused`` are final."""
        if self.accepted:
            return Outcome(Verdict.DELIVERED, self.reason)
        if self.deferred:
            return Outcome(Verdict.DEFERRED, self.reason, self.retry_after_s)
        if self.status in refused:
            return Outcome(Verdict.REFUSED, self.reason)
        return Outcome(Verdict.FAILED, self.reason, self.retry_after_s)


class Endpoint:
    """One URL that messages are posted to. Usable from one event loop; calls may overlap.

    The constructor raises ConfigError if the authorities that TLS should trust cannot be read.
    """

    def __init__(
        self,
        url: Url,
        *,
        allow_private: bool = False,
        timeout_s: float = 15.0,
        tls: ssl.SSLContext | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        self.url = url
        self._allow_private, self._timeout_s = allow_private, timeout_s
        self._tls = tls or trusting(url.scheme, "url")
        self._breaker = breaker or Breaker()

    async def post(self, body: bytes, headers: Mapping[str, str], now_ns: int) -> Answer:
        """Post ``body`` once, unless the breaker is open; return within ``timeout_s``.

        ``now_ns`` is the wall clock, Unix, for a Retry-After that is a date.
        """
        call = self._breaker.admit(loop_ns())
        if call is None:
            wait_s = self._breaker.wait_ns(loop_ns()) / S or self._timeout_s
            return Answer(reason="not sent: the circuit breaker is open", retry_after_s=wait_s, deferred=True)
        try:
            answer = await self._attempt(body, headers, now_ns)
        except BaseException:
            self._breaker.release(call)
            raise
        if answer.accepted or answer.status in _ALIVE:
            self._breaker.succeeded(call)
        else:
            self._breaker.failed(call, loop_ns(), round((answer.retry_after_s or 0.0) * S))
        return answer

    def statistics(self, now_ns: int) -> BreakerStatistics:
        """Return the state and the counters of the breaker; ``now_ns`` is the event loop's clock."""
        return self._breaker.statistics(now_ns)

    async def _attempt(self, body: bytes, headers: Mapping[str, str], now_ns: int) -> Answer:
        with trio.move_on_after(self._timeout_s):
            try:
                addresses = await self._resolved()
                return await self._first(addresses, body, headers, now_ns)
            except EXCHANGE_ERRORS as error:
                return Answer(reason=cause_of(error))
        return Answer(reason=f"no whole answer within {self._timeout_s:g} s")

    async def _resolved(self) -> list[str]:
        """Return the addresses of the host, as the resolver orders them; raises OSError if one is refused."""
        host = self.url.host
        if parse_ip(host) is not None:
            addresses = [host]
        else:
            found = await trio.socket.getaddrinfo(host, self.url.port, type=trio.socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            # Without the zone of a link-local address.
            parsed = parse_ip(address.partition("%")[0])
            if not self._allow_private and (parsed is None or not is_public(parsed)):
                raise OSError(
                    f"{host} has the address {address}, which is not public, and is not connected to"
                )
        return addresses

    async def _first(
        self, addresses: list[str], body: bytes, headers: Mapping[str, str], now_ns: int
    ) -> Answer:
        """Post to the first address that accepts a connection; raises the last one's error if none does."""
        connect_s = min(CONNECT_S, self._timeout_s / len(addresses)) if len(addresses) > 1 else None
        for address in addresses[:-1]:
            try:
                return await self._exchange(address, connect_s, body, headers, now_ns)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue  # nothing was sent
        return await self._exchange(addresses[-1], connect_s, body, headers, now_ns)

    async def _exchange(
        self, address: str, connect_s: float | None, body: bytes, headers: Mapping[str, str], now_ns: int
    ) -> Answer:
        """Post to ``address``; raises httpx.HTTPError."""
        own = {
            "host": self.url.authority,
            "user-agent": f"marketfeed/{__version__}",
            "content-type": "application/json",
            "accept-encoding": "identity",
            "connection": "close",
        }
        async with http_client(self._tls, connect_s) as client:
            request = client.build_request(
                "POST",
                self.url.at(address),
                content=body,
                headers={**own, **headers},
                extensions={"sni_hostname": self.url.host},
            )
            response = await client.send(request, stream=True)
            try:
                received = await beginning(response, BODY_BYTES)
            finally:
                await response.aclose()
        status = response.status_code
        wait = response.headers.get("retry-after")
        after_s = None if wait is None or response.is_success else parse_retry_after(wait, now_ns)
        return Answer(status, status_line(status), received, after_s)


def endpoint(url: str, key: str, allow_private: bool, timeout_s: float, suffix: str = "") -> Endpoint:
    """Return an endpoint for ``url`` with ``suffix`` added to its path; raises ConfigError (``key: …``)."""
    try:
        parsed = checked_url(url, allow_private, suffix)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None
    return Endpoint(parsed, allow_private=allow_private, timeout_s=timeout_s)
