"""Revocations: bodies of requests and answers, and parameters, on the admin port."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, UnsetType

from marketfeed.api.answers import Body
from marketfeed.api.fields import Count, Micros

SUBJECTS: Final = ("sub", "tenant", "token")  # what can be revoked

Until = Annotated[
    int | None,
    Meta(description="µs since the Unix epoch; null: for ever. All that it revokes has expired then."),
]


class RevokeBody(Body, frozen=True):
    """Revoke what was issued up to now to a `sub` or tenant, or one token or key; exactly one of these."""

    sub: str | None = None
    tenant: str | None = None
    token: Annotated[
        str | None, Meta(description="A token's `jti`, the id of a key, or a whole token or key.")
    ] = None
    comment: str = ""


class Subject(Body, frozen=True, omit_defaults=True):
    """What was revoked."""

    sub: str | UnsetType = UNSET
    tenant: str | UnsetType = UNSET
    token: str | UnsetType = UNSET


class RevokedAnswer(Body, frozen=True):
    """A revocation that is on disk, and in force in all processes."""

    revoked: Subject
    until: Until
    sessions: Annotated[Count, Meta(description="How many sessions it ends, within a second.")]


class RevocationRow(Body, frozen=True):
    """A revocation in force."""

    kind: Literal["sub", "tenant", "token"]
    value: str
    at: Micros
    until: Until
    comment: str


class RevocationList(Body, frozen=True):
    """All revocations in force, the oldest first."""

    revocations: list[RevocationRow]


# Parameters in the query.


class RevokeParameters(Body, frozen=True):
    """Parameters of `DELETE /v1/revoke`: exactly one of them."""

    sub: str
    tenant: str
    token: str
