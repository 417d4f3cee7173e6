"""Web pages that may use a listener from a browser.

Sources: the Fetch standard, "CORS protocol"; Fetch Metadata Request Headers (W3C), section 2.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketfeed.core.addresses import parse_ip, url_host
from marketfeed.core.authority import DEFAULT_PORTS, parse_authority, parse_origin
from marketfeed.gateway.exchange import TOKEN, Headers

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFLIGHT_S: Final = 7200  # for which browsers may cache the response to a preflight
# Headers that clients of event streams and polls send, always permitted.
REQUEST_HEADERS: Final = ("Authorization", "Cache-Control", "Content-Type", "If-None-Match", "Last-Event-ID")
# In addition to those that scripts may always read.
RESPONSE_HEADERS: Final = "ETag, Retry-After, X-Cursor, X-Source"
MAX_ASKED: Final = 64  # headers in a preflight
API: Final = "/v1/"  # begins the paths that only allowed pages may request
# Values of Sec-Fetch-Site: the request was made by a page of another origin. A browser sends the header to
# https and to loopback.
_OTHER_PAGES: Final = frozenset({"cross-site", "same-site"})


class Origins:
    """The origins whose pages may connect: "*" allows all, ``https://*.example.com`` sub-domains.

    A browser sends no Origin with what a page loads as an image or a script, or with a link. Such a request
    is known by Sec-Fetch-Site. One with neither header does not come from a web page, and is always allowed.
    """

    def __init__(self, allowed: Iterable[str], tls: bool = False) -> None:
        """``tls`` is whether the listener speaks TLS; its own pages are then loaded over https only."""
        texts = list(allowed)
        parsed = [origin for text in texts if (origin := parse_origin(text)) is not None]
        self._any = "*" in texts
        self._exact = frozenset(origin for origin in parsed if not origin.host.startswith("*"))
        self._below = [(o.scheme, o.host[1:], o.port) for o in parsed if o.host.startswith("*")]
        self._own_schemes = ("https",) if tls else tuple(DEFAULT_PORTS)

    def allows(self, origin: str | None, authority: str | None = None) -> bool:
        """Return whether to serve a request with this Origin header.

        ``authority`` is the requested host and port, or None if the host is not one of this engine's
        (hosts.py). A page with the same host and port was loaded from this engine or from a proxy in front
        of it, so it is allowed. Without the check of the host, any page whose name resolves to the engine
        would be. If a proxy terminates TLS, the page is loaded over https and the request arrives over http.
        """
        if origin is None or self._any:
            return True
        parsed = parse_origin(origin)
        if parsed is None or parsed.host.startswith("*"):
            return False
        if parsed in self._exact:
            return True
        scheme, host, port = parsed
        if any(scheme == s and port == p and host.endswith(below) for s, below, p in self._below):
            return True
        ours = None if authority is None else parse_authority(authority)
        if ours is None or scheme not in self._own_schemes:
            return False
        return (ours.host, DEFAULT_PORTS[scheme] if ours.port is None else ours.port) == (host, port)

    def admits(self, path: str, origin: str | None, site: str | None, authority: str | None) -> bool:
        """Return whether to serve a request for ``path``; ``site`` is its Sec-Fetch-Site.

        Without Origin, requests of other pages are refused on the API: a poll changes its consumer.
        """
        if origin is None and site in _OTHER_PAGES and path.startswith(API):
            return self._any
        return self.allows(origin, authority)

    def permission(self, origin: str | None, authority: str | None = None) -> Headers:
        """Return the headers that let a page of ``origin`` read the response."""
        vary = (("Vary", "Origin"),)
        if origin is None or not self.allows(origin, authority):
            return vary
        return (
            *vary,
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", RESPONSE_HEADERS),
        )

    @staticmethod
    def preflight(methods: str, asked: str = "", private: bool = False) -> Headers:
        """Return the headers of the response to a preflight, in addition to :meth:`permission`.

        Every header in ``asked`` is permitted: none has an effect here that could do harm, and clients
        add their own, for caches or for tracing. ``private`` is whether the browser asks if a public page
        may reach this private address (Private Network Access).
        """
        names = {name.lower(): name for name in REQUEST_HEADERS}
        for name in [part.strip() for part in asked.split(",")][:MAX_ASKED]:
            if TOKEN.fullmatch(name):
                names.setdefault(name.lower(), name)
        return (
            ("Access-Control-Allow-Methods", methods),
            ("Access-Control-Allow-Headers", ", ".join(names.values())),
            ("Access-Control-Max-Age", str(PREFLIGHT_S)),
            *((("Access-Control-Allow-Private-Network", "true"),) if private else ()),
        )


def own_origins(host: str, port: int, tls: bool) -> frozenset[str]:
    """Return the origins of pages that are loaded from a listener on ``host`` and ``port`` of this machine.

    A listener on all addresses has further origins, which only the Host headers of requests reveal.
    """
    names = {"localhost"}
    address = parse_ip(host)
    if address is None:
        names.add(host)
    else:
        if address.is_loopback or address.is_unspecified:
            names |= {"127.0.0.1", "[::1]"}
        if not address.is_unspecified:
            names.add(url_host(str(address)))
    schemes = ("https",) if tls else ("http", "https")
    return frozenset(f"{scheme}://{name}:{port}" for scheme in schemes for name in names if name)
