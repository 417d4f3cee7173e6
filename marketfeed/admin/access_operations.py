"""Revocations, for operators."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, cast

from marketfeed.access.token_ids import ID_RULE, MAX_ID, id_of, looks_secret
from marketfeed.api.access import (
    SUBJECTS,
    RevocationList,
    RevocationRow,
    RevokeBody,
    RevokedAnswer,
    RevokeParameters,
    Subject,
)
from marketfeed.errors import AccessError, ErrorCode, RequestError, RevocationError
from marketfeed.gateway.alert_routes import parsed, text_of
from marketfeed.gateway.http import Request, Response, error_response, json_response
from marketfeed.gateway.query import check_keys

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from marketfeed.access.revocations import Kind, Revocation
    from marketfeed.gateway.http import Routes

    Handler = Callable[["Revoking", Request], Awaitable[Response]]

REVOKE: Final = "/v1/revoke"
REVOCATIONS: Final = "/v1/revocations"
OFF: Final = "there is no access control: auth.mode is none"
MAX_COMMENT: Final = 2000  # characters


class Revoking(Protocol):
    """What revokes: the engine's access control, or a command while no engine runs."""

    def revocations(self) -> tuple[Revocation, ...]: ...

    async def revoke(self, kind: Kind, value: str, comment: str) -> tuple[Revocation, int]: ...

    async def take_back(self, kind: Kind, value: str) -> bool: ...


class AccessOperations:
    """The handlers; without ``access`` they answer 503."""

    def __init__(self, access: Revoking | None) -> None:
        self._access = access
        self.routes: Routes = {
            REVOKE: {"POST": self._route(_revoke), "DELETE": self._route(_take_back)},
            REVOCATIONS: {"GET": self._route(_list)},
        }

    def _route(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def route(request: Request) -> Response:
            if self._access is None:
                return error_response(503, OFF)
            return await _answered(partial(handler, self._access, request))

        return route


async def _answered(work: Callable[[], Awaitable[Response]]) -> Response:
    try:
        return await work()
    except RevocationError as error:
        return error_response(503, f"nothing has changed: {error}")


async def _revoke(access: Revoking, request: Request) -> Response:
    """Revoke what was issued to a `sub` or tenant, or one token or key."""
    check_keys(request.query, ())
    body = parsed(request, RevokeBody)
    if len(body.comment) > MAX_COMMENT:
        raise RequestError(ErrorCode.SYNTAX, f"comment: at most {MAX_COMMENT} characters")
    comment = text_of("comment", body.comment)
    if looks_secret(comment):
        raise RequestError(ErrorCode.SYNTAX, "comment: it has a key or token, which would be kept and logged")
    kind, value = _one_of({name: getattr(body, name) for name in SUBJECTS})
    revocation, ended = await access.revoke(kind, value, comment)
    subject = Subject(**{revocation.kind: revocation.value})
    return json_response(RevokedAnswer(subject, _until(revocation), ended))


async def _take_back(access: Revoking, request: Request) -> Response:
    """Remove a revocation."""
    check_keys(request.query, RevokeParameters.__struct_fields__)
    kind, value = _one_of({name: request.query.get(name, [None])[0] for name in SUBJECTS})
    if not await access.take_back(kind, value):
        return error_response(404, f"no revocation of the {kind} {value[:64]!a}")
    return Response(b"", status=204)


async def _list(access: Revoking, request: Request) -> Response:
    """List revocations, the oldest first."""
    check_keys(request.query, ())
    rows = [
        RevocationRow(one.kind, one.value, int(one.at_s * 1e6), _until(one), one.comment)
        for one in access.revocations()
    ]
    return json_response(RevocationList(rows))


def _one_of(given: dict[str, str | None]) -> tuple[Kind, str]:
    """Return the one subject that is given; raises RequestError."""
    found = [(kind, value) for kind, value in given.items() if value is not None]
    if len(found) != 1:
        raise RequestError(
            ErrorCode.SYNTAX, f"exactly one of {', '.join(SUBJECTS)}, not {len(found)} of them"
        )
    kind, value = found[0]
    if kind == "token":
        try:
            return "token", id_of(value)
        except AccessError as error:
            raise RequestError(ErrorCode.SYNTAX, f"token: {error}") from None
    if not 1 <= len(value) <= MAX_ID or not value.isprintable():
        raise RequestError(ErrorCode.SYNTAX, f"{kind}: {ID_RULE}")
    if looks_secret(value):
        raise RequestError(ErrorCode.SYNTAX, f"{kind}: it looks like a key or token: revoke it as a token")
    return cast("Kind", kind), value


def _until(revocation: Revocation) -> int | None:
    return None if revocation.until_s is None else int(revocation.until_s * 1e6)
