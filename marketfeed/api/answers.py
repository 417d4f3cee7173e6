"""Bodies of answers and parameters of requests over HTTP, on the gateway's port."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from marketfeed.api.fields import Count, Cursor, Micros, Name, Nanos, Symbol, Tier
from marketfeed.api.messages import AlertPattern, ConsumerName, Gap, Quote, Trade

# Each status of an error answer, and its meaning.
STATUSES: Final = {
    400: "The request is malformed or ambiguous, or a name, tier, cursor or parameter is invalid.",
    401: "A key or token is needed, on the admin port that in `admin.token_file`; or it is not valid.",
    403: "The page's origin is not allowed (`gateway.allowed_origins`), or this is not entitled.",
    404: "There is no such path, alert, episode, silence, consumer, revocation or log.",
    405: "The path does not support this method; the header Allow lists those it supports.",
    409: "The key is that of a notice of this publisher to another consumer.",
    413: "The body is too long.",
    414: "The request line is too long.",
    421: "The host is not served (`gateway.hosts`, `admin.hosts`).",
    426: "The version of the WebSocket protocol is not 13.",
    429: "Too many requests from this address; come back after Retry-After.",
    431: "The head of the request is too long.",
    500: "A fault of the engine, which its log has.",
    503: "A limit on sessions or handshakes is reached, the engine is shutting down, alerts or access"
    " control are off or cannot be kept, or no token can be verified yet (`auth.jwks`);"
    " come back after Retry-After, if there is one.",
    504: "The notice was not acknowledged in time; it is on disk, and remains to be delivered.",
}


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A body or an object in it."""


class ErrorDetail(Body, frozen=True):
    """The error."""

    code: Annotated[int, Meta(description="The HTTP status.", extra_json_schema={"enum": [*STATUSES]})]
    msg: Annotated[str, Meta(description="The reason, for people.")]


class ErrorAnswer(Body, frozen=True):
    """Body of every error answer."""

    error: ErrorDetail


class PollAnswer(Body, frozen=True):
    """What is new since the cursor of a long poll, or the snapshot."""

    cursor: Annotated[Cursor, Meta(description="Send it as `after` of the next poll.")]
    messages: list[Quote | Trade | Gap]
    resumed: Annotated[bool, Meta(description="Everything missed since `after` is here; `reset` is empty.")]
    reset: Annotated[list[Name], Meta(description="Names that got a snapshot instead.")]


class TicketAnswer(Body, frozen=True):
    """A ticket for the URL of one event stream or WebSocket."""

    ticket: Annotated[str, Meta(description="Send it as `ticket`.")]
    expires_s: Annotated[int, Meta(description="Seconds within which it has to be used.")]


class SymbolRow(Body, frozen=True):
    """A symbol, and when its first and last tick were received; 0 before there is one."""

    S: Symbol
    first: Micros
    last: Micros
    feed: Annotated[str, Meta(description="That of the newest tick; absent without one.")] | UnsetType = UNSET
    flags: (
        Annotated[
            int,
            Meta(
                ge=1,
                description="Absent if 0. 2: the feed of the newest tick is not live; 4: the newest quote is"
                " crossed or locked; 8: its venue time went back.",
            ),
        ]
        | UnsetType
    ) = UNSET


class SymbolList(Body, frozen=True):
    """All symbols of the engine."""

    symbols: list[SymbolRow]


class LatencyFigures(Body, frozen=True):
    """Figures of a histogram; all are 0 if nothing was measured."""

    count: Count
    min_ns: Nanos
    p50_ns: Nanos
    p90_ns: Nanos
    p99_ns: Nanos
    p99_9_ns: Nanos
    p99_99_ns: Nanos
    max_ns: Nanos
    beyond: Annotated[Count, Meta(description="Values above 60 s, if there are any.")] | UnsetType = UNSET


class HopLatency(Body, frozen=True):
    """Latency of one hop."""

    last: Annotated[LatencyFigures, Meta(description="The last interval of `latency.interval_s`.")]
    since_start: LatencyFigures


class TickAge(Body, frozen=True):
    """Mean age of ticks when the kernel accepted them, in the last interval."""

    mean_ns: Nanos
    deliberate_ns: Annotated[Nanos, Meta(description="Of this, the delay that the tier promises.")]
    ours_ns: Annotated[Nanos, Meta(description="Of this, the rest.")]


class LedgerRow(Body, frozen=True):
    """Ticks: matched = delivered + conflated + lost + pending + abandoned."""

    matched: Count
    delivered: Count
    conflated: Count
    lost: Count
    pending: Count
    abandoned: Count


class TierLatency(Body, frozen=True):
    """Latency of one tier, and what became of its ticks."""

    interval_ms: Annotated[float, Meta(ge=0, description="The tier's interval; 0 if it sends at once.")]
    hops: Annotated[dict[str, HopLatency], Meta(description="By hop.")]
    age: TickAge
    symbols: Annotated[
        dict[str, LatencyFigures], Meta(description="Hop `total` of the busiest symbols, by symbol.")
    ]
    ledger: Annotated[
        LedgerRow, Meta(description="Ticks of all sessions since the start; it may be some seconds old.")
    ]


class LatencyLog(Body, frozen=True):
    """The file that latencies are written to."""

    path: str
    written: Annotated[bool, Meta(description="The last write succeeded.")]
    problem: Annotated[str | None, Meta(description="Why it failed.")]


class Latency(Body, frozen=True):
    """Latency of all tiers that delivered something and, for a token, are entitled."""

    tiers: Annotated[dict[str, TierLatency], Meta(description="By tier.")]
    log: Annotated[LatencyLog, Meta(description="On the admin port only.")] | UnsetType = UNSET


# Parameters in the query, by route.


class SubscriptionParameters(msgspec.Struct):
    """Parameters of events and long polls."""

    quotes: Annotated[list[Name], Meta(description="Names to receive quotes of; one name here or in trades.")]
    trades: Annotated[list[Name], Meta(description="Names to receive trades of.")]
    tier: Annotated[Tier, Meta(description="A tier; without it `gateway.default_tier`.")]
    after: Annotated[Cursor, Meta(description="Resume from this cursor.")]


class EventsParameters(SubscriptionParameters):
    """Parameters of ``/v1/events``."""

    alerts: Annotated[list[AlertPattern], Meta(description="Rules to receive alerts of.")]
    consumer: Annotated[
        ConsumerName, Meta(description="Receive alerts as this durable consumer; without it a live view.")
    ]
    start: Annotated[
        Literal["now", "all"], Meta(description="At the first use of the consumer; without it `all`.")
    ]
    ticket: Annotated[str, Meta(description="Of `POST /v1/tickets`, where no header can be sent.")]


class StreamParameters(msgspec.Struct):
    """Parameters of ``/v1/stream``."""

    ticket: Annotated[str, Meta(description="Of `POST /v1/tickets`, where no header can be sent.")]


class PollParameters(SubscriptionParameters):
    """Parameters of ``/v1/poll``."""

    timeout_s: Annotated[
        float,
        Meta(
            description="Answer with 204 after so long without anything new.",
            extra_json_schema={"minimum": 0, "maximum": 300, "default": 30},
        ),
    ]


class LatestParameters(msgspec.Struct):
    """Parameters of ``/v1/quotes`` and ``/v1/trades``."""

    symbols: Annotated[list[Name], Meta(description="Names to return the latest tick of; at least one.")]
    tier: Annotated[Tier, Meta(description="A tier; without it `gateway.default_tier`.")]
