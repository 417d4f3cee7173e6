"""A set of keys (JWKS, RFC 7517) at an address: fetched in the background, the last good one kept.

    KeySet.run ── https ──► auth.jwks      changed(document) ──► verifiers of all processes
        ▲ refresh(): a token has an unknown `kid`

The address is configuration; no token chooses it. A failed fetch changes nothing but ``problem``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio

from marketfeed import __version__
from marketfeed.access.loading import MAX_SET_BYTES
from marketfeed.access.tokens import keys_of_set
from marketfeed.errors import AccessError
from marketfeed.http_client import EXCHANGE_ERRORS, beginning, cause_of, http_client, status_line, trusting

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from marketfeed.config.schema import AuthConfig

TIMEOUT_S: Final = 10.0  # of a fetch, from the look-up of the name to the last byte
LEAST_S: Final = 10.0  # from the begin of a fetch to the begin of the next one


@dataclass(frozen=True, slots=True)
class KeySetStatistics:
    """Fetches so far."""

    fetched: int
    failed: int


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
        self._fetched = self._failed = 0
        self._running = self._fetching = False
        self._again_s = 0.0  # trio's clock
        self._wanted, self._done = trio.Event(), trio.Event()
        self.problem: str | None = f"auth.jwks: {self._host}: not fetched yet"

    def statistics(self) -> KeySetStatistics:
        """Return the counters."""
        return KeySetStatistics(self._fetched, self._failed)

    async def run(self) -> None:
        """Fetch at once, then every ``jwks_refresh_s``, and as :meth:`refresh` asks; until cancelled.

        After a failure it tries again after LEAST_S, then after twice as long each time.
        """
        retry_s = LEAST_S
        self._running = True
        try:
            while True:
                if await self._fetch():
                    wait_s, retry_s = self._refresh_s, LEAST_S
                else:
                    wait_s, retry_s = retry_s, min(2 * retry_s, self._refresh_s)
                with trio.move_on_after(wait_s):
                    await self._wanted.wait()
                self._wanted = trio.Event()
        finally:
            self._running = False
            self._done.set()

    async def refresh(self) -> None:
        """Have it fetched, and wait for that. Return at once if the last fetch began within LEAST_S.

        Concurrent callers share one fetch, which goes on if they are cancelled.
        """
        if self._running and self._fetching:
            await self._done.wait()
        elif self._running and trio.current_time() >= self._again_s:
            self._wanted.set()
            await self._done.wait()
        else:
            await trio.lowlevel.checkpoint()

    async def _fetch(self) -> bool:
        """Fetch once; return whether that gave a valid set."""
        self._fetching, self._again_s = True, trio.current_time() + LEAST_S
        try:
            with trio.fail_after(TIMEOUT_S):
                document = await self._answer()
            keys_of_set(document, self._algorithm)
        except trio.TooSlowError:
            self._fail(f"no whole answer within {TIMEOUT_S:g} s")
            return False
        except EXCHANGE_ERRORS as error:
            self._fail(cause_of(error))
            return False
        except AccessError as error:
            self._fail(str(error))
            return False
        else:
            self._fetched += 1
            self.problem = None
            if document != self._document:
                self._document = document
                self._changed(document)
            return True
        finally:
            self._fetching = False
            self._done.set()
            self._done = trio.Event()

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

    def _fail(self, why: str) -> None:
        kept = "the keys fetched before are used" if self._document else "no token can be verified yet"
        self._failed += 1
        self.problem = f"auth.jwks: {self._host}: {why}; {kept}"
