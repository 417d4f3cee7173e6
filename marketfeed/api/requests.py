"""Requests of clients on ``/v1/stream``: one JSON object a frame."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from marketfeed.api.fields import MAX_INT, MIN_INT, Cursor, EncodingName, Name, RequestId, Tier
from marketfeed.api.messages import AlertPattern, ConsumerName

Echo = Annotated[int, Meta(extra_json_schema={"minimum": MIN_INT, "maximum": MAX_INT})] | float | str | None


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all requests have."""

    action: str
    id: Annotated[RequestId | None, Meta(description="Comes back in the answer.")] = None


class Subscribe(Request, frozen=True):
    """Add names to the subscription; change tier, encoding or compression; resume from a cursor."""

    action: Literal["subscribe"]
    quotes: Annotated[list[Name], Meta(description="Names to receive quotes of.")] = []
    trades: Annotated[list[Name], Meta(description="Names to receive trades of.")] = []
    alerts: Annotated[list[AlertPattern], Meta(description="Rules to receive alerts of.")] = []
    consumer: Annotated[
        ConsumerName | None,
        Meta(description="Receive as this durable consumer, and acknowledge; without it a live view."),
    ] = None
    start: Annotated[
        Literal["now", "all"] | None,
        Meta(description="At the first use of the consumer: which alerts it gets; without it `all`."),
    ] = None
    tier: Annotated[Tier | None, Meta(description="Tier of the whole session from now on.")] = None
    encoding: Annotated[
        EncodingName | None, Meta(description="Encoding of the whole session from this answer on.")
    ] = None
    compress: Annotated[
        bool | None,
        Meta(
            description="From this answer on, frames of the whole session may come compressed: "
            "with `encoding` `json`, on a tier with an interval."
        ),
    ] = None
    after: Annotated[Cursor | None, Meta(description="Resume the names of this request from here.")] = None


class Unsubscribe(Request, frozen=True):
    """Remove exactly these names from the subscription."""

    action: Literal["unsubscribe"]
    quotes: Annotated[list[Name], Meta(description="Names to receive no more quotes of.")] = []
    trades: Annotated[list[Name], Meta(description="Names to receive no more trades of.")] = []
    alerts: Annotated[list[AlertPattern], Meta(description="Rules to receive no more alerts of.")] = []


class Acknowledge(Request, frozen=True):
    """Acknowledge alerts of the session's consumer."""

    action: Literal["ack"]
    alerts: Annotated[list[str], Meta(description="Ids, as they came.")] = []


class Ping(Request, frozen=True):
    """Ask for a `pong`."""

    action: Literal["ping"]
    t: Annotated[Echo, Meta(description="Comes back in the answer.")] = None


class Authenticate(Request, frozen=True):
    """Present a key or token: first, where the engine controls access, and again to renew it."""

    action: Literal["auth"]
    token: str = ""


ClientRequest = Subscribe | Unsubscribe | Acknowledge | Ping | Authenticate
REQUESTS: dict[str, type[ClientRequest]] = {
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
    "ack": Acknowledge,
    "ping": Ping,
    "auth": Authenticate,
}
