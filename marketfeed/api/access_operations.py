"""Routes of access control on the admin port, for the OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketfeed.api import access
from marketfeed.api.routes import ADMIN, NO_CONTENT, Route, struct_answer

if TYPE_CHECKING:
    from msgspec import Struct

OPERATORS: Final = (
    Route(
        "/v1/revoke",
        "Revoke what was issued to a `sub` or tenant, or one token or key.",
        struct_answer(access.RevokedAnswer),
        (*ADMIN, 413, 503),
        method="POST",
        body=access.RevokeBody,
    ),
    Route(
        "/v1/revoke",
        "Take a revocation back.",
        None,
        (*ADMIN, 404, 503),
        access.RevokeParameters,
        method="DELETE",
        answers={"204": NO_CONTENT},
    ),
    Route("/v1/revocations", "List revocations.", struct_answer(access.RevocationList), (*ADMIN, 503)),
)
STRUCTS: Final[tuple[type[Struct], ...]] = (access.RevokedAnswer, access.RevocationList)
BODIES: Final[tuple[type[Struct], ...]] = (access.RevokeBody,)
