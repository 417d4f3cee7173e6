"""Usage, on the admin port and in the output of ``marketfeed usage``."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from marketfeed.api.answers import Body
from marketfeed.api.fields import Count, Tier

BY: Final = ("user", "tenant", "symbols")
MAX_DAYS: Final = 366  # of one report
MAX_PREFIX: Final = 24  # characters of a symbol
Day = Annotated[str, Meta(description="The day in UTC, such as 2026-11-28.")]


class UsageCount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was sent on one tier and channel."""

    tier: Tier
    channel: Annotated[str, Meta(extra_json_schema={"enum": ["quotes", "trades", "alerts"]})]
    ticks: Annotated[Count, Meta(description="Ticks; on the channel `alerts` alerts.")]
    bytes: Count


class UsageRow(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Usage of a user, or of all users of a tenant, on one day."""

    day: Day
    tenant: str
    sub: str | UnsetType = UNSET
    users: Annotated[Count, Meta(description="Distinct users; of a tenant only.")] | UnsetType = UNSET
    sessions: Annotated[Count, Meta(description="Sessions now; of today only.")] | UnsetType = UNSET
    peak: Annotated[
        Count, Meta(description="Most sessions at a time; of a tenant the sum of its users'.")
    ] = 0
    symbols: Annotated[Count, Meta(description="Distinct symbols that matched subscriptions or polls.")] = 0
    quotes: Count = 0
    trades: Count = 0
    alerts: Count = 0
    bytes: Count = 0
    counts: list[UsageCount] = []


class PrefixRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who had symbols with a prefix on one day."""

    day: Day
    prefix: str
    users: Annotated[Count, Meta(description="Distinct users: tenant and `sub`.")]
    tenants: Count
    symbols: Annotated[Count, Meta(description="Distinct symbols with the prefix that they had.")]


class UsageAnswer(Body, frozen=True):
    """Usage by user or tenant, or distinct users by prefix."""

    rows: list[UsageRow] | UnsetType = UNSET
    prefixes: list[PrefixRow] | UnsetType = UNSET


class UsageParameters(msgspec.Struct):
    """Parameters of ``/v1/usage``."""

    day: Annotated[
        str,
        Meta(
            description="`today`, `yesterday`, or a day such as 2026-11-28, in UTC.",
            extra_json_schema={"default": "today"},
        ),
    ]
    days: Annotated[
        int,
        Meta(
            description="So many days that end with `day`.",
            extra_json_schema={"minimum": 1, "maximum": MAX_DAYS, "default": 1},
        ),
    ]
    tenant: Annotated[str, Meta(description="Only this tenant.")]
    by: Annotated[
        str,
        Meta(
            description="One row per user, per tenant, or per symbol prefix.",
            extra_json_schema={"enum": list(BY), "default": "user"},
        ),
    ]
    prefix: Annotated[
        int,
        Meta(
            description="With `by=symbols`: characters of a prefix.",
            extra_json_schema={"minimum": 1, "maximum": MAX_PREFIX, "default": 2},
        ),
    ]
    prefixes: Annotated[list[str], Meta(description="With `by=symbols`: these prefixes instead.")]
