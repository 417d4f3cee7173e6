"""URLs of peers. Pure: a name is not looked up here.

The path and the query may hold a token, as those of chat services do. So no message and no repr has them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from marketfeed.core.addresses import host_port, is_loopback, is_public, parse_ip, url_host
from marketfeed.core.authority import DEFAULT_PORTS, parse_authority

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?]*)([/?].*)?")
_MOST_CHARACTERS: Final = 2048


@dataclass(frozen=True, slots=True)
class Url:
    """A parsed URL of a peer."""

    scheme: str  # "http" or "https"
    host: str  # a name in lower case, or an IP address, without brackets
    port: int
    target: str = field(repr=False)  # path and query: begins with /

    def __str__(self) -> str:
        return f"{self.scheme}://{host_port(self.host, self.port)}"

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        shown = url_host(self.host)
        return shown if self.port == DEFAULT_PORTS[self.scheme] else f"{shown}:{self.port}"

    def at(self, address: str) -> str:
        """Return the whole URL with the IP ``address`` in place of the host."""
        return f"{self.scheme}://{host_port(address, self.port)}{self.target}"


def parse_url(text: str, suffix: str = "") -> Url:
    """Parse ``text``, with ``suffix`` added to its path; raises ValueError, without ``text``."""
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError("must be a URL of printable ASCII characters without spaces and backslashes")
    found = _URL.fullmatch(text)
    if len(text) > _MOST_CHARACTERS or found is None or found[1].lower() not in DEFAULT_PORTS:
        raise ValueError("must be a URL that begins with https:// or http://")
    scheme, rest, target = found[1].lower(), found[2], found[3] or "/"
    if "@" in rest:
        raise ValueError("must be a URL without user name and password")
    if "#" in text:
        raise ValueError("must be a URL without a fragment (#…)")
    # Refuses hosts such as 2130706433, 0x7f.1 and 127.1, which resolvers read as 127.0.0.1.
    authority = parse_authority(rest)
    if authority is None or "%" in rest or authority.port == 0:
        raise ValueError("must be a URL with a valid host: a name, an IPv4 address, or an IPv6 address in []")
    port = DEFAULT_PORTS[scheme] if authority.port is None else authority.port
    if suffix:
        if "?" in target:
            raise ValueError("must be a URL without a query (?…)")
        target = target.rstrip("/") + suffix
    return Url(scheme, authority.host.strip("[]"), port, target if target[0] == "/" else f"/{target}")


def checked_url(text: str, allow_private: bool, suffix: str = "") -> Url:
    """Parse ``text`` as :func:`parse_url` does; raises ValueError also if its host is plainly not public."""
    url = parse_url(text, suffix)
    address = parse_ip(url.host)
    private = is_loopback(url.host) if address is None else not is_public(address)
    if private and not allow_private:
        raise ValueError(f"{url.host} is not a public address: that requires allow_private = true")
    return url
