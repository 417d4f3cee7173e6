"""Which web pages may use the gateway from a browser. Source: the Fetch standard, "CORS protocol"."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

Headers = tuple[tuple[str, str], ...]

PREFLIGHT_S: Final = 7200  # how long a browser may remember the answer to a preflight
REQUEST_HEADERS: Final = "Authorization, Content-Type, If-None-Match, Last-Event-ID"
RESPONSE_HEADERS: Final = "ETag, Retry-After, X-Cursor"  # beside those that scripts may always read


class Origins:
    """The origins whose pages may connect; "*" among them allows all.

    A request without Origin comes from no web page, and is not judged here.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(origin.lower() for origin in allowed)

    def allows(self, origin: str | None) -> bool:
        """Tell whether a request with this Origin header is to be served."""
        return origin is None or "*" in self._allowed or origin.lower() in self._allowed

    def permission(self, origin: str | None) -> Headers:
        """Return the headers by which a browser lets a page of ``origin`` read the answer."""
        vary = (("Vary", "Origin"),)
        if origin is None or not self.allows(origin):
            return vary
        return (
            *vary,
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", RESPONSE_HEADERS),
        )

    @staticmethod
    def preflight(methods: str) -> Headers:
        """Return what a preflight asks for, beside :meth:`permission`."""
        return (
            ("Access-Control-Allow-Methods", methods),
            ("Access-Control-Allow-Headers", REQUEST_HEADERS),
            ("Access-Control-Max-Age", str(PREFLIGHT_S)),
        )
