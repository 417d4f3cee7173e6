"""Static files: the page, the browser client and the documents of the API. A fixed list, read or built once.

Paths of requests are never used as file paths, so path traversal is impossible. Every file is compressed
once, at the start.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final, NamedTuple

from marketfeed.api import asyncapi, openapi
from marketfeed.gateway.http import NO_CACHE, Request, Response, Route, tagged
from marketfeed.gateway.query import check_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from importlib.resources.abc import Traversable

    from marketfeed.gateway.exchange import Headers

TYPES: Final[Mapping[str, str]] = {  # by suffix; files with another one are not served
    "": "text/plain; charset=utf-8",  # licences
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
# By path: the file in marketfeed/web.
FILES: Final[Mapping[str, str]] = {
    "/": "index.html",
    "/robots.txt": "robots.txt",
}
SDK: Final = "/marketfeed.js"
# Modules of their own: most pages do not need them.
INFLATE: Final = "/marketfeed-inflate.js"
NODES: Final = "/marketfeed-nodes.js"
FOLDER: Final = "page"  # in marketfeed/web: every file below it is served, under /page/
# Under which name requests for other paths are counted, and described in openapi.json.
PAGE_FILE: Final = "/page/{file}"
SDK_VERSION: Final = "/marketfeed-{hash}.js"
# By path: what builds the document, as JSON.
DOCUMENTS: Final[Mapping[str, Callable[[], bytes]]] = {
    "/asyncapi.json": asyncapi.document,
    "/openapi.json": openapi.document,
}
SAFE: Final[Headers] = (("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"))
# Nothing but what this engine serves, no script in the page itself, and no frame around it.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
OF_HTML: Final[Headers] = (
    ("Content-Security-Policy", POLICY),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)
OURS: Final[Headers] = (("Cross-Origin-Resource-Policy", "same-origin"),)
ANYBODYS: Final[Headers] = (("Cross-Origin-Resource-Policy", "cross-origin"),)  # pages of any origin load it
GZIP: Final = ("Content-Encoding", "gzip")
FOREVER: Final[Headers] = (("Cache-Control", "public, max-age=31536000, immutable"),)


class StaticFile:
    """One file. Its ETag is a hash of its content, so it changes only when the content does."""

    def __init__(
        self, body: bytes, content_type: str, caching: Headers = NO_CACHE, headers: Headers = ()
    ) -> None:
        self.hash = hashlib.sha256(body).hexdigest()[:16]
        self._headers = (*SAFE, *headers, ("Vary", "Accept-Encoding"))
        self._caching = caching
        self._any_query = content_type.startswith(
            "text/html"
        )  # links to a page may get parameters on their way
        self._whole = Response(body, content_type)
        packed = gzip.compress(body, mtime=0)
        self._packed = Response(packed, content_type) if len(packed) < len(body) else None

    async def get(self, request: Request) -> Response:
        """Return the file, or 304 if the client has it."""
        if not self._any_query:
            check_keys(request.query, ())
        headers = (*self._caching, *self._headers)
        packed = self._packed
        if packed is None or not accepts_gzip(request.header(b"accept-encoding")):
            return tagged(request, self.hash, lambda: self._whole, headers)
        answer = tagged(request, f"{self.hash}-gzip", lambda: packed, headers)
        # Not of a 304, which has no content: RFC 9110, section 15.4.5.
        return answer if answer.status == 304 else replace(answer, headers=(*answer.headers, GZIP))


class Files(NamedTuple):
    """The static files of a gateway."""

    routes: dict[str, Mapping[str, Route]]
    labels: dict[str, str]  # by path, where the path is not the label
    sdk: str  # path of this version of the browser client


def accepts_gzip(header: str | None) -> bool:
    """Return whether a client with this Accept-Encoding gets gzip; RFC 9110, section 12.5.3."""
    weights: dict[str, float] = {}
    for part in (header or "").split(","):
        name, _, parameters = part.partition(";")
        key, _, value = parameters.partition("=")
        try:
            weight = float(value) if key.strip().lower() == "q" else 1.0
        except ValueError:
            weight = 0.0
        weights[name.strip().lower()] = weight
    weight = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return weight > 0 and weight >= weights.get("identity", 0.0)


@cache
def files() -> Files:
    """Return the static files, read once per process."""
    web = resources.files("marketfeed") / "web"
    found = {path: _file(web / name) for path, name in FILES.items()}
    page = {f"/{FOLDER}/{name}": _file(source) for name, source in _below(web / FOLDER)}
    client = (web / SDK[1:]).read_bytes()
    found[SDK] = StaticFile(client, TYPES[".js"], NO_CACHE, ANYBODYS)
    for path in (INFLATE, NODES):
        found[path] = StaticFile((web / path[1:]).read_bytes(), TYPES[".js"], NO_CACHE, ANYBODYS)
    sdk = SDK_VERSION.format(hash=found[SDK].hash)
    found[sdk] = StaticFile(client, TYPES[".js"], FOREVER, ANYBODYS)
    found |= {path: StaticFile(build(), TYPES[".json"]) for path, build in DOCUMENTS.items()}
    labels = {sdk: SDK_VERSION, **dict.fromkeys(page, PAGE_FILE)}
    return Files({path: {"GET": file.get} for path, file in (found | page).items()}, labels, sdk)


def _file(source: Traversable) -> StaticFile:
    content_type = TYPES[_suffix(source.name)]
    headers = OURS + (OF_HTML if content_type.startswith("text/html") else ())
    return StaticFile(source.read_bytes(), content_type, NO_CACHE, headers)


def _below(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    """Yield the files below ``folder`` that have a known type, with their paths from there."""
    for one in sorted(folder.iterdir(), key=lambda one: one.name) if folder.is_dir() else ():
        if one.is_dir():
            yield from _below(one, f"{prefix}{one.name}/")
        elif _suffix(one.name) in TYPES and not one.name.startswith("."):
            yield f"{prefix}{one.name}", one


def _suffix(name: str) -> str:
    return name[name.rfind(".") :] if "." in name[1:] else ""
