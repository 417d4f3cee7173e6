"""How the OpenAPI document describes a route, and what several routes have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from marketfeed.api.schemas import ref

if TYPE_CHECKING:
    from msgspec import Struct

JSON: Final = "application/json"
TEXT: Final = "text/plain"
EVERYWHERE: Final = (400, 401, 403, 421, 429, 503)  # errors that every route of the gateway may return
PUBLIC: Final = (400, 403, 421, 429)  # of those that need no token
ADMIN: Final = (400, 401, 403, 421)
PROBE: Final = (400, 403, 421)  # of routes of the admin port that require no token
NO_CONTENT: Final[dict[str, Any]] = {"description": "Done; the answer has no body."}


@dataclass(frozen=True)
class Route:
    """A method of a path. Where there is GET there is HEAD, whose answer has no body."""

    path: str
    summary: str
    ok: dict[str, Any] | None  # answer 200
    errors: tuple[int, ...] = EVERYWHERE
    parameters: type[Struct] | None = None  # in the query
    headers: dict[str, Any] = field(default_factory=dict)  # parameters in headers of the request
    answers: dict[str, Any] = field(default_factory=dict)  # other answers, by status
    tagged: bool = False  # has an ETag and answers 304 to a matching If-None-Match
    method: str = "GET"
    body: type[Struct] | None = None  # of the request, as JSON
    required: tuple[str, ...] = ()  # names of parameters


def json_answer(schema: dict[str, Any], description: str) -> dict[str, Any]:
    """Return an answer in JSON."""
    return {"description": description, "content": {JSON: {"schema": schema}}}


def text_answer(media: str, description: str) -> dict[str, Any]:
    """Return an answer in text."""
    return {"description": description, "content": {media: {"schema": {"type": "string"}}}}


def struct_answer(struct: type[Struct], description: str = "") -> dict[str, Any]:
    """Return an answer that is a struct; ``description`` replaces the struct's own."""
    return json_answer(ref(struct), description or (struct.__doc__ or "").partition("\n")[0])
