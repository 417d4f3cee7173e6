"""The answer of ``/v1/engine``: the engine, its feeds and tiers, and what the client's token gives."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from marketfeed.api.answers import Body
from marketfeed.api.fields import Count, Epoch, Micros, Tier

MAX_PATTERNS: Final = 100  # names and prefixes per list of `access`; a token may have 10,000
NODE_STATES: Final = ("starting", "ready", "not ready", "stale", "draining")
FEED_STATES: Final = ("starting", "live", "stale", "down", "done", "failed")


class TierRow(Body, frozen=True):
    """A tier."""

    tier: Tier
    interval_ms: Annotated[float, Meta(ge=0, description="Between two updates; 0: at once.")]
    delivery: Annotated[
        Literal["every", "latest"],
        Meta(description="Every tick, or the latest of each symbol and channel."),
    ]


class FeedRow(Body, frozen=True):
    """A feed."""

    feed: Annotated[str, Meta(description="Its name in the configuration.")]
    state: Annotated[str, Meta(extra_json_schema={"enum": list(FEED_STATES)})]
    since: Annotated[Micros, Meta(description="When it got into that state, µs since the Unix epoch.")]
    reason: Annotated[str | None, Meta(description="Why it is not live, for people; null if it is.")]


class AccessAnswer(Body, frozen=True):
    """What the token of the request gives. Lists of names and prefixes are cut after 100."""

    sub: str
    tenant: Annotated[str, Meta(description="Empty without one.")]
    tiers: Annotated[list[Tier], Meta(description="The best first.")]
    channels: list[Annotated[str, Meta(extra_json_schema={"enum": ["quotes", "trades", "alerts"]})]]
    symbols: Annotated[list[str], Meta(description="Names and prefixes, of any channel.")]
    consumers: Annotated[list[str], Meta(description="Durable consumers of alerts that it may be.")]
    publish: Annotated[list[str], Meta(description="Consumers to which it may send notices; *: everybody.")]
    more: Annotated[Count, Meta(description="Entries of these three lists beyond 100 each.")]
    max_symbols: Annotated[Count | None, Meta(description="Names in a subscription; null: no own limit.")]
    expires: Annotated[Micros | None, Meta(description="When the token expires, µs; null: it does not.")]


class EngineAnswer(Body, frozen=True):
    """The engine. With access control, a request without a token gets `version` and `auth` alone."""

    version: str
    auth: Annotated[Literal["none", "keys", "jwt"], Meta(description="`auth.mode`.")]
    epoch: Epoch | UnsetType = UNSET
    now: Annotated[Micros, Meta(description="The engine's clock.")] | UnsetType = UNSET
    sdk: Annotated[str, Meta(description="Path of this version's `marketfeed.js`.")] | UnsetType = UNSET
    alerts: Annotated[bool, Meta(description="Whether alerts are on, and entitled.")] | UnsetType = UNSET
    default_tier: Annotated[Tier, Meta(description="Of a session that names no tier.")] | UnsetType = UNSET
    tiers: Annotated[list[TierRow], Meta(description="The best first.")] | UnsetType = UNSET
    feeds: list[FeedRow] | UnsetType = UNSET
    access: Annotated[AccessAnswer, Meta(description="Only with access control.")] | UnsetType = UNSET
    admin: (
        Annotated[str, Meta(description="URL of the admin port, if it and the client are on one machine.")]
        | UnsetType
    ) = UNSET


class NodesParameters(Struct):
    """Parameters of ``/v1/nodes``."""

    shard: Annotated[str, Meta(description="Only nodes that serve this shard.")] = ""


class NodeRow(Body, frozen=True):
    """An engine of the cluster; without a cluster, the engine itself."""

    url: Annotated[str, Meta(description="URL to connect to.")]
    site: Annotated[str, Meta(description="Where it is; empty if it is not configured.")]
    sessions: Annotated[Count, Meta(description="Sessions now.")]
    capacity: Annotated[Count, Meta(description="Most sessions.")]
    state: Annotated[
        str,
        Meta(
            description="Whether it serves clients; `stale`: it does not hear the source of its ticks.",
            extra_json_schema={"enum": list(NODE_STATES)},
        ),
    ]
