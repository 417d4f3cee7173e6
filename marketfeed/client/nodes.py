"""Which engine a feed connects to: the caller's URLs, and other engines of their cluster.

    `closing.url` ──► /v1/nodes, if asked for ──► the engine of the last session ──► the caller's URLs

One attempt tries these in turn until a connection opens. A URL from an engine is followed only if it is as
secure as the caller's: the token is sent there too.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from marketfeed.client.address import parsed_url, stream_of
from marketfeed.client.http import exchange
from marketfeed.errors import ConfigError, ConnectError, RequestRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketfeed.client.address import Endpoint
    from marketfeed.client.backend import Backend, Stream

MOST_DIRECTED: Final = 3  # times that a feed follows `closing.url` within DIRECTED_S
DIRECTED_S: Final = 60.0
NODES_S: Final = 5.0  # for the answer of /v1/nodes


class Nodes:
    """The engines of one feed. ``homes`` are the caller's; with ``ask``, these are asked for others."""

    def __init__(self, homes: Sequence[Endpoint], ask: bool = False) -> None:
        self.now = homes[0]  # the one that was tried last
        self._homes = list(homes)
        self._ask = ask
        self._good = False  # the last attempt led to a session
        self._followed_s: list[float] = []

    def tried(self, good: bool) -> None:
        """Note whether the last attempt led to a session; if not, the next one begins with another URL."""
        self._good = good
        if not good and self.now in self._homes:
            self._homes = [home for home in self._homes if home is not self.now] + [self.now]

    async def open(
        self, backend: Backend, token: str | None, directed: str | None, connect_s: float
    ) -> Stream:
        """Connect to the first engine that can be reached, from then on :attr:`now`. Raises ConnectError.

        ``directed`` is the URL to which the last session was sent. Each connection may take ``connect_s``.
        """
        for where in (candidates := await self._candidates(backend, token, directed)):
            self.now = where
            try:
                return await backend.open(where.host, where.port, where.tls, connect_s)
            except ConnectError:
                if where is candidates[-1]:
                    raise
        raise AssertionError("there is a home")

    async def _candidates(self, backend: Backend, token: str | None, directed: str | None) -> list[Endpoint]:
        """Return the engines to try in turn."""
        other: Endpoint | None = None
        if directed is not None:
            other = self._followed(directed, backend.now())
        if other is None and self._ask and not self._good:
            other = await self._chosen(backend, token)
        found = [one for one in (other, self.now if self._good else None) if one is not None]
        return list({one.url: one for one in (*found, *self._homes)}.values())

    def _followed(self, url: str, now_s: float) -> Endpoint | None:
        self._followed_s = [at_s for at_s in self._followed_s if now_s - at_s < DIRECTED_S]
        if len(self._followed_s) >= MOST_DIRECTED:
            return None
        self._followed_s.append(now_s)
        return self.endpoint(url)

    def endpoint(self, url: Any) -> Endpoint | None:
        """Return the endpoint at the URL of an engine, None unless it is as secure as the caller's."""
        home = self._homes[0]
        if not isinstance(url, str) or _scheme(url) != ("http" if home.tls is None else "https"):
            return None
        try:
            return replace(home, url=stream_of(url), parts=parsed_url(url))
        except ConfigError:
            return None

    async def _chosen(self, backend: Backend, token: str | None) -> Endpoint | None:
        """Return the engine with the most room, None if none can be had."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        home = self._homes[0]
        try:
            answer = await exchange(backend, home, "GET", "/v1/nodes", None, headers, NODES_S)
            rows = answer.json("GET /v1/nodes")
        except (ConnectError, RequestRefusedError):
            return None
        ready = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        free = [(_load(row), random.random(), row.get("url")) for row in ready if row.get("state") == "ready"]
        for _, _, url in sorted(free, key=lambda one: one[:2]):
            if (other := self.endpoint(url)) is not None:
                return other
        return None


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError:
        return ""


def _load(row: dict[str, Any]) -> float:
    """Return how full an engine is, 0 to 1."""
    sessions, capacity = row.get("sessions"), row.get("capacity")
    if not isinstance(sessions, int) or not isinstance(capacity, int) or capacity <= 0:
        return 1.0
    return sessions / capacity
