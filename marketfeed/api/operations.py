"""Bodies of answers and parameters of requests over HTTP, on the admin port."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from marketfeed.api.answers import Body, LedgerRow
from marketfeed.api.fields import Count, Epoch, Tier


def _one_of(*values: str) -> Meta:
    return Meta(extra_json_schema={"enum": list(values)})


class HealthAnswer(Body, frozen=True):
    """The engine runs."""

    status: Literal["ok"]
    epoch: Epoch


class ReadinessAnswer(Body, frozen=True):
    """Whether the engine can serve subscribers; without the token of the admin port, the status alone."""

    status: Annotated[str, _one_of("starting", "ready", "not ready", "draining")]
    feeds: (
        Annotated[
            dict[str, Annotated[str, _one_of("starting", "live", "stale", "down", "done", "failed")]],
            Meta(description="State of each feed, by name."),
        ]
        | UnsetType
    ) = UNSET
    problems: Annotated[list[str], Meta(description="Why subscribers cannot be served.")] | UnsetType = UNSET
    warnings: Annotated[list[str], Meta(description="Everything else that is wrong.")] | UnsetType = UNSET


class Channels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number per channel."""

    quotes: Count
    trades: Count


class SessionRow(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One session."""

    worker: (
        Annotated[Count, Meta(description="The worker process that serves it; only with `engine.workers`.")]
        | UnsetType
    ) = UNSET
    session: Annotated[str, Meta(description="Its id, as in `connected`.")]
    address: Annotated[str, Meta(description="The client's address, also behind trusted proxies.")]
    sub: Annotated[str, Meta(description="Whose key or token it presented, if any.")] | UnsetType = UNSET
    tenant: Annotated[str, Meta(description="That holder's tenant, if any.")] | UnsetType = UNSET
    transport: Annotated[str, _one_of("websocket", "sse")]
    tier: Tier
    phase: Annotated[Count, Meta(description="Which of the tier's phases; 0 on a tier without interval.")]
    encoding: Annotated[str, _one_of("json", "binary", "sse")]
    age_s: Annotated[float, Meta(ge=0, description="Seconds since it connected.")]
    state: Annotated[str, _one_of("live", "lagging", "alone")]
    slow: Annotated[str | None, Meta(description="Why it is slow; null if it is not.")]
    names: Annotated[Channels, Meta(description="How many names and patterns it has subscribed to.")]
    symbols: Annotated[Channels, Meta(description="How many symbols these match.")]
    alerts: Annotated[Count, Meta(description="How many names and patterns of rules it has subscribed to.")]
    consumer: (
        Annotated[str, Meta(description="The durable consumer that it takes alerts of, if any.")] | UnsetType
    ) = UNSET
    consumer_state: (
        Annotated[str, _one_of("live", "stalled", "away"), Meta(description="State of that consumer.")]
        | UnsetType
    ) = UNSET
    unsent_bytes: Annotated[Count, Meta(description="Bytes that wait in the engine for its socket.")]
    ledger: Annotated[dict[str, LedgerRow], Meta(description="By tier.")]


class SessionList(msgspec.Struct, forbid_unknown_fields=True):
    """Sessions, the slow ones first."""

    sessions: Annotated[Count, Meta(description="Sessions now.")] = 0
    slow: Annotated[Count, Meta(description="Slow sessions now.")] = 0
    shown: list[SessionRow] = []


class SessionsParameters(msgspec.Struct):
    """Parameters of ``/v1/sessions``."""

    slow: Annotated[
        str,
        Meta(description="1: slow sessions only.", extra_json_schema={"enum": ["0", "1"], "default": "0"}),
    ]
    limit: Annotated[
        int,
        Meta(
            description="At most so many sessions.",
            extra_json_schema={"minimum": 1, "maximum": 1000, "default": 100},
        ),
    ]
