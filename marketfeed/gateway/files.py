"""Static files and the documents of the API: a fixed list, read or built once.

Paths of requests are never used as file paths, so path traversal is impossible.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import TYPE_CHECKING, Final

from marketfeed.api import asyncapi, openapi
from marketfeed.gateway.http import Request, Response, Route, tagged
from marketfeed.gateway.query import check_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# By path: the file in marketfeed/web and its content type.
FILES: Final[Mapping[str, tuple[str, str]]] = {
    "/robots.txt": ("robots.txt", "text/plain; charset=utf-8"),
}
# By path: what builds the document, as JSON.
DOCUMENTS: Final[Mapping[str, Callable[[], bytes]]] = {
    "/asyncapi.json": asyncapi.document,
    "/openapi.json": openapi.document,
}


class StaticFile:
    """One file. Its ETag is a hash of its content, so it changes only when the content does."""

    def __init__(self, body: bytes, content_type: str) -> None:
        self._whole = Response(body, content_type)
        self._tag = hashlib.sha256(body).hexdigest()[:16]

    async def get(self, request: Request) -> Response:
        """Return the file, or 304 if the client has it."""
        check_keys(request.query, ())
        return tagged(request, self._tag, lambda: self._whole)


def file_routes() -> dict[str, Mapping[str, Route]]:
    """Return the routes of ``FILES`` and ``DOCUMENTS``."""
    folder = resources.files("marketfeed") / "web"
    found = {
        path: StaticFile((folder / name).read_bytes(), content_type)
        for path, (name, content_type) in FILES.items()
    }
    found |= {path: StaticFile(build(), "application/json") for path, build in DOCUMENTS.items()}
    return {path: {"GET": file.get} for path, file in found.items()}
