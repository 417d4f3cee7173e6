"""``connect``: a feed as an asynchronous context manager, on trio or asyncio.

The context owns the tasks of the feed: under trio a nursery of one task, under asyncio a task. It is entered
when there is a connection, and leaving it, by an exception or cancellation too, sends a close frame and
closes the socket. Exceptions of the body pass through unchanged, not in a group. As with every context that
owns tasks, do not leave it in another task than it was entered in, and do not `yield` inside it from an
asynchronous generator.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from marketfeed import __version__
from marketfeed.client.address import Endpoint, endpoint, stream_of
from marketfeed.client.core import Core, Settings
from marketfeed.client.driver import BUFFER_BYTES, Driver
from marketfeed.client.event_loops import running_backend
from marketfeed.client.feed import Feed, listed
from marketfeed.client.nodes import Nodes
from marketfeed.errors import ConfigError, FeedClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

AGENT: Final = f"marketfeed-python/{__version__}"
ENCODINGS: Final = ("json", "binary")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.1


def connect(
    url: str | Endpoint | Sequence[str],
    token: str | None = None,
    *,
    get_token: Callable[[], str | Awaitable[str | None] | None] | None = None,
    quotes: Sequence[str] | str = (),
    trades: Sequence[str] | str = (),
    tier: str | None = None,
    after: str | None = None,
    encoding: str = "json",
    compress: bool = False,
    ca: str | Path | None = None,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    wait: bool = False,
    nodes: bool = False,
    buffer_bytes: int = BUFFER_BYTES,
    connect_s: float = 10.0,
    retry_s: tuple[float, float] = (1.0, 30.0),
    ping_s: float = 10.0,
    mute_s: float | None = None,
) -> Connecting:
    """Return a context manager that connects to an engine and returns its :class:`Feed`.

        async with connect("http://localhost:8765", quotes=["AAPL", "BTC*"], tier="vip") as feed:
            async for message in feed:
                ...

    ``url`` is that of the engine, http:// or https://, or of its stream, ws:// or wss://. Several URLs are
    those of engines of one cluster: the first that can be reached is used. With ``nodes``, the feed asks
    there for the other engines of the cluster, and connects to the one with the most room. ``token`` is a key
    or token. ``get_token`` returns one, and is called before the first connection and before a token
    expires; it may be asynchronous. If it raises, it is called again after a delay. If it returns None, the
    feed ends as unauthorised. ``quotes``, ``trades``, ``tier`` and ``after`` are a first subscription, as
    :meth:`Feed.subscribe` has them. With ``encoding`` `binary`, batches have arrays. With ``compress``, the
    engine may compress JSON; it refuses that on tiers without interval. ``ca`` is a PEM file with the
    certificates to trust, in place of the system's.

    Without ``wait``, entering raises ConnectError if the first connection fails, RefusedError if the engine
    refuses it for good, and RequestRefusedError if it refuses the subscription. With ``wait`` it returns at
    once, and the feed retries the first connection like later ones.

    ``buffer_bytes`` bounds what is received ahead of the caller. An attempt to connect takes at most
    ``connect_s``; delays between attempts grow from the first to the second of ``retry_s``. After ``ping_s``
    a ping is sent; without any byte from the engine within ``mute_s``, which is ``ping_s`` if not given, the
    connection is given up.

    Raises ConfigError for arguments that are not valid.
    """
    homes = _homes(url, None if ca is None else Path(ca))
    where = homes[0]
    if encoding not in ENCODINGS:
        raise ConfigError(f"encoding: one of {', '.join(ENCODINGS)}, not {encoding!r}")
    if compress and encoding != "json":
        raise ConfigError(f"compress: only with encoding 'json', not {encoding!r}")
    if token is not None and get_token is not None:
        raise ConfigError("token, get_token: give one of them")
    settings = Settings(
        where.authority,
        where.resource,
        secure=where.tls is not None,
        headers=_headers(headers),
        token=token,
        renewable=get_token is not None,
        tier=tier,
        encoding=encoding,
        compress=compress,
        wait=wait,
        connect_s=connect_s,
        ping_s=ping_s,
        mute_s=ping_s if mute_s is None else mute_s,
        first_retry_s=retry_s[0],
        max_retry_s=retry_s[1],
    )
    first = {"quotes": listed(quotes), "trades": listed(trades), "tier": tier, "cursor": after or ""}
    if not (quotes or trades):
        first = {}
    return Connecting(Nodes(homes, nodes), settings, first, get_token, buffer_bytes)


def _homes(url: str | Endpoint | Sequence[str], ca: Path | None) -> list[Endpoint]:
    """Return the endpoints at the caller's URLs; raises ConfigError."""
    if isinstance(url, Endpoint):
        return [url]
    found: list[Endpoint] = []
    for one in [url] if isinstance(url, str) else url:
        if one.partition("://")[0] not in ("http", "https", "ws", "wss"):
            raise ConfigError(f"{one}: must be http://HOST:PORT, or https://, ws:// or wss://")
        found.append(endpoint(stream_of(one), ca, "", "ca: "))
    if len({one.tls is None for one in found}) != 1:
        raise ConfigError("url: at least one, and either all with TLS or none")
    return found


def _headers(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of the handshake, with our agent unless they have another one."""
    pairs = list(headers.items() if hasattr(headers, "items") else headers)
    for name, value in pairs:
        if not _HEADER.fullmatch(name) or not value.isprintable() or not value.isascii():
            raise ConfigError(f"headers: {name!r}: not a valid header")
    if not any(name.lower() == "user-agent" for name, _ in pairs):
        pairs.append(("User-Agent", AGENT))
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in pairs]


class Connecting:
    """The context manager that :func:`connect` returns. It can be entered once."""

    def __init__(
        self,
        nodes: Nodes,
        settings: Settings,
        first: dict[str, Any],
        get_token: Callable[[], Any] | None,
        buffer_bytes: int,
    ) -> None:
        self._nodes, self._settings, self._first = nodes, settings, first
        self._get_token, self._buffer_bytes = get_token, buffer_bytes
        self._feed: Feed | None = None

    async def __aenter__(self) -> Feed:
        """Connect; return the feed."""
        if self._feed is not None:
            raise FeedClosedError("a context of connect() can be entered once")
        backend = running_backend()
        core = Core(self._settings)
        limits = (self._buffer_bytes, self._settings.connect_s)
        driver = Driver(core, self._nodes, backend, self._get_token, *limits)
        self._feed = Feed(driver)
        self._background = backend.background(driver.run)
        await self._background.__aenter__()
        try:
            if not self._settings.wait:
                await self._wait(driver)
            elif self._first:
                core.subscribe(driver.now(), **self._first, vital=True)
        except BaseException:
            await self._background.__aexit__(None, None, None)
            raise
        return self._feed

    async def _wait(self, driver: Driver) -> None:
        """Wait for the first connection, and for the answer to the first subscription, if there is one."""
        if self._first:
            await driver.answer(driver.core.subscribe(driver.now(), **self._first))
        while driver.core.state.name != "connected":
            if driver.over:
                raise driver.failure
            await driver.wait_changed()

    async def __aexit__(self, *_: object) -> None:
        """Close the feed."""
        await self._background.__aexit__(None, None, None)
