"""What only the engine's own process knows, for routes of any process: feeds, latencies of all workers."""

from __future__ import annotations

from typing import Any, Final, Literal, Protocol

import msgspec

LIVE: Final = "live"  # state of a feed whose ticks come
View = Literal["latency", "engine"]


class FeedNow(msgspec.Struct, frozen=True, array_like=True):
    """A feed and its present state."""

    number: int  # field ``feed`` of its records
    feed: str
    state: str
    since: int  # Unix, µs
    reason: str | None = None  # why it is not live; names no file and no address


class NodeNow(msgspec.Struct, frozen=True, array_like=True):
    """An engine that clients can use."""

    url: str  # "": that by which the client has reached this one
    site: str
    sessions: int
    capacity: int  # most sessions
    state: str
    shard: str = ""


class EngineNow(msgspec.Struct, frozen=True, array_like=True):
    """The engine's feeds, in the order of the configuration."""

    feeds: tuple[FeedNow, ...] = ()
    admin: tuple[str, int] | None = None  # host and port of the admin port, if on loopback and without token
    nodes: tuple[NodeNow, ...] = ()  # of the cluster, or this one


class Overview(Protocol):
    """Where routes ask for it; in a worker, the engine answers."""

    async def latency(self) -> dict[str, Any]:
        """Return the body of ``/v1/latency`` on the admin port."""
        ...

    async def engine(self) -> EngineNow:
        """Return the state of the feeds and nodes."""
        ...
