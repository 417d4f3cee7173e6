"""Which web pages may use the gateway from a browser. Source: the Fetch standard, "CORS protocol"."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from marketfeed.core.authority import DEFAULT_PORTS, parse_authority, parse_origin
from marketfeed.gateway.exchange import TOKEN, Headers

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFLIGHT_S: Final = 7200  # how long a browser may remember the answer to a preflight
# What clients of event streams and polls send, whether or not a preflight names it.
REQUEST_HEADERS: Final = ("Authorization", "Cache-Control", "Content-Type", "If-None-Match", "Last-Event-ID")
RESPONSE_HEADERS: Final = "ETag, Retry-After, X-Cursor"  # beside those that scripts may always read
MAX_ASKED: Final = 64  # headers in a preflight


class Origins:
    """The origins whose pages may connect; "*" among them allows all, ``https://*.example.com`` sub-domains.

    A request without Origin comes from no web page, and is not judged here.
    """

    def __init__(self, allowed: Iterable[str], tls: bool = False) -> None:
        """``tls`` tells that the listener speaks TLS, so that a page of its own comes by https alone."""
        texts = list(allowed)
        parsed = [origin for text in texts if (origin := parse_origin(text)) is not None]
        self._any = "*" in texts
        self._exact = frozenset(origin for origin in parsed if not origin.host.startswith("*"))
        self._below = [(o.scheme, o.host[1:], o.port) for o in parsed if o.host.startswith("*")]
        self._own_schemes = ("https",) if tls else tuple(DEFAULT_PORTS)

    def allows(self, origin: str | None, authority: str | None = None) -> bool:
        """Tell whether a request with this Origin header is to be served.

        ``authority`` is the host and port that the request is for, where that host is known to be ours
        (hosts.py): then a page of the same host and port was served from here, or from a proxy in front of
        us, by whatever address it was reached. Without the judgement of hosts this would let everybody in
        whose name resolves to us. Behind a proxy that ends TLS the page comes by https, the request by http.
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

    def permission(self, origin: str | None, authority: str | None = None) -> Headers:
        """Return the headers by which a browser lets a page of ``origin`` read the answer."""
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
        """Return what a preflight asks for, beside :meth:`permission`.

        Every header in ``asked`` is permitted: none of them means anything here that could do harm, and
        clients add their own, for caches or for tracing. ``private`` is whether the browser asks if a
        public page may reach this private address (Private Network Access).
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
    """Return the origins of pages that come from a listener on ``host`` and ``port`` of this machine.

    One on all addresses has further ones, which only the Host header of a request tells.
    """
    names = {"localhost"}
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        names.add(host)
    else:
        if address.is_loopback or address.is_unspecified:
            names |= {"127.0.0.1", "[::1]"}
        if not address.is_unspecified:
            names.add(f"[{address}]" if address.version == 6 else str(address))
    schemes = ("https",) if tls else ("http", "https")
    return frozenset(f"{scheme}://{name}:{port}" for scheme in schemes for name in names if name)
