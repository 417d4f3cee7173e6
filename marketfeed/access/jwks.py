"""A set of keys (JWKS, RFC 7517) at an address: fetched in the background, the last good one kept.

    KeySet.run ── https ──► auth.jwks      changed(document) ──► verifiers of all processes
        ▲ refresh(): a token has an unknown `kid`

The address is configuration; no token chooses it. A failed fetch changes nothing but ``problem``, and opens
the circuit breaker: while it is open, nothing is fetched, whoever asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio

from marketfeed import __version__
from marketfeed.access.loading import MAX_SET_BYTES
from marketfeed.access.tokens import keys_of_set
from marketfeed.clock import now_ns
from marketfeed.core.breaker import Breaker, BreakerState, BreakerStatistics
from marketfeed.core.units import S
from marketfeed.errors import AccessError
from marketfeed.http_client import EXCHANGE_ERRORS, beginning, cause_of, http_client, status_line, trusting

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from marketfeed.config.schema import AuthConfig

TIMEOUT_S: Final = 10.0  # of a fetch, from the look-up of the name to the last byte
LEAST_S: Final = 10.0  # from the begin of a fetch to the begin of the next one
FIRST_OPEN_S: Final = 10.0  # after one failure
MOST_OPEN_S: Final = 60.0  # so a token with a new key is refused for at most that long after an outage


class KeySet:
    """The set of keys at ``auth.jwks``, which must be an address; :meth:`run` fetches it.

    ``changed`` is called with each document that differs from the one before it and has a key for the
    algorithm. The constructor raises ConfigError if the authorities that TLS should trust cannot be read.
    """

    def __init__(
        self, config: AuthConfig, changed: Callable[[bytes], None], *, tls: ssl.SSLContext | None = None
    ) -> None:
        assert config.jwks is not None
        assert config.algorithm is not None
        self._address, self._algorithm, self._refresh_s = config.jwks, config.algorithm, config.jwks_refresh_s
        url = urlsplit(config.jwks)
        self._host = url.hostname or ""
        self._tls = tls or trusting(url.scheme, "auth.jwks")
        self._changed = changed
        self._document = b""
        most_s = min(MOST_OPEN_S, self._refresh_s)
        self._breaker = Breaker(1, round(FIRST_OPEN_S * S), round(most_s * S))
        self._running = self._fetching = False
        self._again_s = 0.0  # trio's clock
        self._wanted, self._done = trio.Event(), trio.Event()
        self.problem: str | None = f"auth.jwks: {self._host}: not fetched yet"

    def statistics(self) -> BreakerStatistics:
        """Return the state of the circuit breaker, and how fetches ended."""
        return self._breaker.statistics(now_ns())

    async def run(self) -> None:
        """Fetch at once, then every ``jwks_refresh_s``, and as :meth:`refresh` asks; until cancelled.

        After a failure it tries again after FIRST_OPEN_S, then after twice as long each time, at most
        MOST_OPEN_S and ``jwks_refresh_s``.
        """
        self._running = True
        try:
            while True:
                await self._fetch()
                with trio.move_on_after(self._wait_s(now_ns())):
                    await self._wanted.wait()
                self._wanted = trio.Event()
        finally:
            self._running = False
            self._done.set()

    async def refresh(self) -> None:
        """Have it fetched, and wait for that. Return at once if the last fetch began within LEAST_S.

        If the circuit breaker is open, nothing is fetched.
        Concurrent callers share one fetch, which goes on if they are cancelled.
        """
        if self._running and self._fetching:
            await self._done.wait()
        elif self._running and trio.current_time() >= self._again_s:
            self._wanted.set()
            await self._done.wait()
        else:
            await trio.lowlevel.checkpoint()

    def _wait_s(self, at_ns: int) -> float:
        if self._breaker.state(at_ns) is BreakerState.CLOSED:
            return self._refresh_s
        return self._breaker.wait_ns(at_ns) / S

    async def _fetch(self) -> None:
        """Fetch once, unless the circuit breaker is open."""
        try:
            if (call := self._breaker.admit(now_ns())) is not None:
                self._fetching, self._again_s = True, trio.current_time() + LEAST_S
                await self._call(call)
        finally:
            self._fetching = False
            self._done.set()
            self._done = trio.Event()

    async def _call(self, call: int) -> None:
        """Fetch once, and end ``call`` of the breaker."""
        try:
            why = await self._attempt()
        except BaseException:
            self._breaker.release(call)
            raise
        if why is None:
            self._breaker.succeeded(call)
            self.problem = None
        else:
            self._breaker.failed(call, now_ns())
            kept = "the keys fetched before are used" if self._document else "no token can be verified yet"
            self.problem = f"auth.jwks: {self._host}: {why}; {kept}"

    async def _attempt(self) -> str | None:
        """Fetch a valid set, and put it in use; return why there is none."""
        try:
            with trio.fail_after(TIMEOUT_S):
                document = await self._answer()
            keys_of_set(document, self._algorithm)
        except trio.TooSlowError:
            return f"no whole answer within {TIMEOUT_S:g} s"
        except EXCHANGE_ERRORS as error:
            return cause_of(error)
        except AccessError as error:
            return str(error)
        if document != self._document:
            self._document = document
            self._changed(document)
        return None

    async def _answer(self) -> bytes:
        """Return the body of a 200; raises AccessError for another answer, and EXCHANGE_ERRORS."""
        headers = {
            "user-agent": f"marketfeed/{__version__}",
            "accept": "application/jwk-set+json, application/json",
            "accept-encoding": "identity",
            "connection": "close",
        }
        async with http_client(self._tls) as client:
            request = client.build_request("GET", self._address, headers=headers)
            response = await client.send(request, stream=True)
            try:
                if response.status_code != 200:
                    raise AccessError(status_line(response.status_code))
                document = await beginning(response, MAX_SET_BYTES + 1)
            finally:
                await response.aclose()
        if len(document) > MAX_SET_BYTES:
            raise AccessError(f"the answer has more than {MAX_SET_BYTES:,} bytes")
        return document
