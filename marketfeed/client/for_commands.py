"""Feeds of the commands: how they connect, and what an end means for the person at the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

from marketfeed import __version__
from marketfeed.client.backend import BY_CA
from marketfeed.client.connecting import connect
from marketfeed.client.unknown_symbols import told, unmatched
from marketfeed.client.unreachable import leaf
from marketfeed.errors import (
    CloseCode,
    ConnectError,
    ErrorCode,
    MarketfeedError,
    RefusedError,
    RequestRefusedError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from marketfeed.client.address import Endpoint
    from marketfeed.client.connecting import Connecting
    from marketfeed.client.feed import Feed
    from marketfeed.client.messages import Disconnected

RETRY_S = (0.5, 10.0)  # delays between attempts, the first and the longest
AGENT: Final = {"User-Agent": f"marketfeed-cli/{__version__}"}
ENDS: Final = (ConnectError, RefusedError, RequestRefusedError)  # of a feed, for good
TO_TOKEN: Final = ": MARKETFEED_TOKEN or --token"
TO_CA: Final = "--ca FILE"


def command_feed(engine: Endpoint, token: str | None, **wanted: Any) -> Connecting:
    """Return the context of a feed; ``wanted`` are arguments of :func:`connect`.

    Its failures come as messages: give each Disconnected to :func:`lost`.
    """
    return connect(engine, token, **{"retry_s": RETRY_S, "headers": AGENT, **wanted, "wait": True})


def lost(message: Disconnected, feed: Feed) -> str:
    """Return why a connection ended. Raises one of ENDS if the command is to end, too.

    It does if there has been no session yet, and if the server does not speak the protocol.
    """
    if message.code == CloseCode.PROTOCOL:
        raise RefusedError(message.code, message.reason)
    if not feed.epoch:
        raise ConnectError(message.reason)
    if message.code == CloseCode.ABNORMAL:
        return message.reason
    return f"closed {message.code} ({message.reason})"


def why(error: MarketfeedError, engine: Endpoint, *, named: bool = True) -> str:
    """Return the line that says why a feed ended for good, by one of ENDS; ``named``: with the URL."""
    said = str(error)
    if isinstance(error, RefusedError) and error.code == ErrorCode.NOT_AUTHENTICATED:
        return said + TO_TOKEN
    if isinstance(error, ConnectError) or said.startswith("refused with HTTP"):
        if said.startswith("TLS: "):
            said = said.replace(BY_CA, TO_CA)
        where = f"cannot connect to {engine.url}: " if named else ""
        return f"{where}{said}{engine.hint}"
    return said


def why_ended(group: BaseExceptionGroup, engine: Endpoint, *, named: bool = True) -> str:
    """Return what :func:`why` does for the first exception of ``group``, which holds only ENDS."""
    error = leaf(group)
    assert isinstance(error, MarketfeedError)
    return why(error, engine, named=named)


async def unknown_names(feed: Feed, names: Iterable[str], seen: Iterable[str]) -> dict[str, str]:
    """Return a message for each of ``names``, but ``*``, that matches none of the engine's symbols.

    ``seen`` are symbols that are known to exist. Empty if the engine does not list its symbols.
    """
    missing = unmatched((name for name in names if name != "*"), seen)
    if not missing:
        return {}
    try:
        answer = await feed.request("/v1/symbols")
        known = [str(row["S"]) for row in answer["symbols"]]
    except (*ENDS, KeyError, TypeError):
        return {}  # they only serve suggestions
    # A known symbol may have no ticks yet.
    return {
        name: await trio.to_thread.run_sync(told, name, known, "the engine")
        for name in unmatched(missing, known)
    }


async def known_tiers(feed: Feed) -> list[str]:
    """Return the tiers that a session may choose, the best first; [] if the engine does not tell them."""
    try:
        answer = await feed.request("/v1/engine")
        return [str(row["tier"]) for row in answer["tiers"]]
    except (*ENDS, KeyError, TypeError):
        return []
