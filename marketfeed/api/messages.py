"""Messages of the engine: on ``/v1/stream``, in events of ``/v1/events``, and in bodies of ``/v1/poll``.

``protocol.py`` encodes answers from these structs. The fan-out writes ticks and what surrounds them by hand,
for speed; the tests validate what it writes against these structs.

The structs refuse unknown fields, so that the tests find a field that is not described. The published
documents allow them: clients have to ignore fields that they do not recognise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from marketfeed.api.fields import (
    Count,
    Cursor,
    EncodingName,
    Epoch,
    Micros,
    Name,
    Position,
    Price,
    RequestId,
    Size,
    Symbol,
    TickNumber,
    Tier,
)
from marketfeed.errors import CloseCode, ErrorCode

# Reasons that a `closing` message may give; before the other codes there is none.
CLOSING: Final = (
    CloseCode.DRAINING,
    CloseCode.INTERNAL,
    CloseCode.IDLE,
    CloseCode.OVERLOADED,
    CloseCode.TOKEN_EXPIRED,
    CloseCode.BAD_REQUEST,
    CloseCode.AUTHENTICATION,
    CloseCode.REVOKED,
    CloseCode.ABUSE,
)


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="T"):
    """A message; ``T`` names its type."""


class Answer(Message, frozen=True, kw_only=True):
    """A message that may answer a request."""

    id: RequestId | UnsetType = UNSET


class Tick(Message, frozen=True, kw_only=True):
    """What quotes and trades have in common."""

    t: Annotated[Micros, Meta(description="The venue's time; 0 if it sent none or an impossible one.")]
    r: Annotated[Micros, Meta(description="Time of receipt, by the engine's clock.")]
    n: TickNumber
    g: Position


class Quote(Tick, frozen=True, tag="q"):
    """The best bid and the best ask of a symbol."""

    S: Symbol
    bp: Annotated[Price | None, Meta(description="Bid price; null if and only if the bid size is 0.")]
    bs: Annotated[Size, Meta(description="Bid size; 0 if there is no bid.")]
    ap: Annotated[Price | None, Meta(description="Ask price; null if and only if the ask size is 0.")]
    as_: Annotated[Size, Meta(description="Ask size; 0 if there is no ask.")] = field(name="as")
    snap: Annotated[Literal[1], Meta(description="Present in snapshots only.")] | UnsetType = UNSET


class Trade(Tick, frozen=True, tag="t"):
    """A trade."""

    S: Symbol
    p: Price
    s: Size
    d: Annotated[Literal["b", "s", "-"], Meta(description="Aggressor: buyer, seller, or unknown.")]
    i: Annotated[Count, Meta(description="The venue's id of the trade; 0 if it sent none.")]
    c: (
        Annotated[
            list[Annotated[str, Meta(min_length=1, max_length=1)]],
            Meta(min_length=1, max_length=4, description="Conditions, as the venue's letters."),
        ]
        | UnsetType
    ) = UNSET
    snap: Annotated[Literal[1], Meta(description="Present in snapshots only.")] | UnsetType = UNSET


AlertId = Annotated[str, Meta(description="A ULID: the same cause has the same id.")]
AlertPattern = Annotated[
    str,
    Meta(
        description="The name of a rule, the beginning of one followed by *, or * for all.",
        extra_json_schema={"pattern": r"^([A-Za-z0-9_.-]{1,64}\*?|\*)$"},
    ),
]
ConsumerName = Annotated[
    str,
    Meta(
        description="A durable consumer: 1 to 64 printable ASCII characters without space.",
        extra_json_schema={"pattern": "^[!-~]{1,64}$"},
    ),
]
Severity = Literal["info", "warning", "critical"]


class Alert(Message, frozen=True, tag="a", kw_only=True):
    """What a rule found, or a notice that somebody published."""

    id: AlertId
    key: Annotated[
        str, Meta(description="The same on `raised` and `cleared`; of a notice, its publisher's own key.")
    ]
    rule: Annotated[str, Meta(description="Name of the rule; `notice` and `watcher` are the engine's.")]
    S: Annotated[str, Meta(description="The symbol, or the feed; empty if it is about neither.")]
    sev: Severity
    state: Literal["raised", "cleared", "notice"]
    v: Annotated[float | None, Meta(description="What was measured, in the rule's unit.")]
    th: Annotated[float | None, Meta(description="What it was compared with, in the same unit.")]
    t: Annotated[Micros, Meta(description="The venue's time of the cause; 0 = none.")]
    r: Annotated[Micros, Meta(description="Arrival time of the cause.")]
    msg: Annotated[str, Meta(description="One line for people.")]
    try_: Annotated[int, Meta(ge=1, description="Which delivery to this consumer it is.")] = field(name="try")
    ack: Annotated[bool, Meta(description="It has to be acknowledged; false in a live view.")]
    suppressed: Annotated[Count, Meta(description="Episodes kept back by the cool-down since the last one.")]
    to: Annotated[ConsumerName, Meta(description="The only consumer that gets it.")] | UnsetType = UNSET
    data: Annotated[dict[str, Any], Meta(description="Of a notice, as published.")] | UnsetType = UNSET


class Acked(Answer, frozen=True, tag="acked"):
    """Answer to `ack`: these alerts are settled, on disk, and do not come again."""

    alerts: Sequence[AlertId]
    unknown: (
        Annotated[
            Sequence[str],
            Meta(description="Ids that are not this consumer's, or were acknowledged before."),
        ]
        | UnsetType
    ) = UNSET


class Connected(Message, frozen=True, tag="success"):
    """The first message of each WebSocket session."""

    msg: Literal["connected"]
    protocol: Annotated[Literal[1], Meta(description="Version of the protocol.")]
    epoch: Epoch
    session: Annotated[str, Meta(description="The id of the session in logs and in /v1/sessions.")]
    tiers: Annotated[
        Mapping[str, Literal["every", "latest"]],
        Meta(description="By tier, whether it sends every tick, or the latest of each symbol."),
    ]


class Authenticated(Answer, frozen=True, tag="success"):
    """Answer to `auth`."""

    msg: Literal["authenticated"]
    tier: Tier
    ttl_s: Annotated[
        int | msgspec.UnsetType,
        Meta(description="Seconds for which the token is good; absent: it does not expire."),
    ] = msgspec.UNSET


class Subscription(Answer, frozen=True, tag="subscription"):
    """Answer to `subscribe` and `unsubscribe`: the whole subscription."""

    quotes: Sequence[Name]
    trades: Sequence[Name]
    alerts: Annotated[Sequence[AlertPattern], Meta(description="Patterns of the rules whose alerts come.")]
    tier: Tier
    encoding: EncodingName
    compress: (
        Annotated[bool, Meta(description="true: frames may come compressed; absent if not.")] | UnsetType
    ) = UNSET
    consumer: (
        Annotated[ConsumerName, Meta(description="The consumer whose alerts come; absent in a live view.")]
        | UnsetType
    ) = UNSET
    resumed: (
        Annotated[bool, Meta(description="After `after` only: everything missed follows; `reset` is empty.")]
        | UnsetType
    ) = UNSET
    reset: (
        Annotated[Sequence[Name], Meta(description="After `after` only: names that get a snapshot instead.")]
        | UnsetType
    ) = UNSET


class Synced(Answer, frozen=True, tag="synced"):
    """End of a snapshot or a catch-up: everything up to the cursor has been sent."""

    cursor: Cursor


class Gap(Message, frozen=True, tag="gap"):
    """Ticks of a symbol were overwritten before this session read them."""

    S: Symbol
    channel: Literal["quotes", "trades"]
    lost: Annotated[Count, Meta(description="How many ticks were lost.")]
    n: Annotated[TickNumber, Meta(description="Number of the next tick.")]


class Lag(Message, frozen=True, tag="lag"):
    """The session fell behind (`on` is true), or has caught up (false)."""

    on: bool
    conflated: (
        Annotated[Count, Meta(description="With `on` false only: how many quotes were left out.")] | UnsetType
    ) = UNSET


class Heartbeat(Message, frozen=True, tag="heartbeat"):
    """Nothing else was sent for `limits.heartbeat_s`."""

    t: Annotated[Micros, Meta(description="Time of sending.")]


class Pong(Answer, frozen=True, tag="pong"):
    """Answer to `ping`."""

    t: Annotated[int | float | str, Meta(description="`t` of the request.")] | UnsetType = UNSET


class Error(Answer, frozen=True, tag="error"):
    """A request was refused; the session continues unless `closing` follows."""

    code: Annotated[int, Meta(extra_json_schema={"enum": [int(code) for code in ErrorCode]})]
    msg: Annotated[str, Meta(description="The reason, for people.")]


class Closing(Message, frozen=True, tag="closing"):
    """The last message of a session. Codes from 4500 on are permanent: do not reconnect."""

    code: Annotated[int, Meta(extra_json_schema={"enum": [int(code) for code in CLOSING]})]
    msg: Annotated[str, Meta(description="The reason, for people.")]
    retry_ms: Annotated[Count, Meta(description="Reconnect after so many milliseconds.")] | UnsetType = UNSET
    url: Annotated[str, Meta(description="Reconnect to this engine of the same cluster.")] | UnsetType = UNSET


class Source(Message, frozen=True, tag="source"):
    """State of the source of the engine's ticks, in a cluster: `stale` while it is not heard.

    The session continues; what it is sent meanwhile may be out of date.
    """

    shard: Annotated[str, Meta(description="The shard whose ticks the engine serves.")]
    state: Literal["stale", "live"]
    t: Annotated[Micros, Meta(description="When it got into that state.")]


Types = tuple[type[Message], ...]
ON_EVENTS: Final[Types] = (Quote, Trade, Alert, Gap, Subscription, Synced, Lag, Error, Source, Closing)
ON_STREAM: Final[Types] = (*ON_EVENTS, Acked, Connected, Authenticated, Heartbeat, Pong)
