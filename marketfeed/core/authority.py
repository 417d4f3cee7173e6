"""Parse, normalise and validate hosts and origins of URLs and HTTP headers. Pure.

Sources: RFC 3986, section 3.2, and the WHATWG URL standard, "origin", for what browsers send.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Final, NamedTuple

DEFAULT_PORTS: Final = {"http": 80, "https": 443}  # browsers leave these out
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_NAME: Final = re.compile(r"[a-z0-9_][a-z0-9_-]{0,62}(?:\.[a-z0-9_][a-z0-9_-]{0,62})*")
_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")  # never a name: browsers parse it as IPv4
_PORT: Final = re.compile(r"[0-9]{1,5}")
_OPAQUE: Final = re.compile(r"[a-z0-9._~-]+(?::[0-9]{1,5})?")  # after other schemes: an extension's id
# Encoded differently in IDNA 2008 than in Python's IDNA 2003.
_DEVIATIONS: Final = frozenset("ßς\u200c\u200d")
_PAGES_OF: Final = {"ws": "http", "wss": "https"}  # scheme of the pages that open these URLs


class Authority(NamedTuple):
    """The host and port of a URL."""

    host: str  # lower case, without a final dot; IPv6 canonical and in brackets
    port: int | None
    literal: bool  # whether the host is an IP address


class Origin(NamedTuple):
    """An origin as browsers send it in the Origin header."""

    scheme: str
    host: str  # as in Authority; "*.example.com" in a pattern
    port: int | None  # None where the scheme is not HTTP


@lru_cache(256)  # requests repeat few of them
def parse_authority(text: str) -> Authority | None:
    """Parse the value of a Host header; return None if it is neither a name nor an address."""
    host, port = text, ""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or port[:1] not in ("", ":"):
            return None
        port = port[1:]
    elif ":" in text:
        host, _, port = text.partition(":")
    if port and not (_PORT.fullmatch(port) and int(port) <= 65535):
        return None
    number = int(port) if port else None
    try:
        if text.startswith("["):
            return Authority(f"[{ipaddress.IPv6Address(host.replace('%25', '%', 1))}]", number, True)
        return Authority(str(ipaddress.IPv4Address(host)), number, True)
    except ValueError:
        host = host.lower().removesuffix(".")
    named = len(host) <= 253 and _NAME.fullmatch(host) and not _NUMBER.fullmatch(host)
    return Authority(host, number, False) if named else None


def parse_origin(text: str) -> Origin | None:
    """Parse an origin and fill in the default port; return None if it is invalid, such as "null"."""
    match = _SCHEME.match(text)
    if match is None:
        return None
    scheme, rest = match[1].lower(), text[match.end() :]
    if scheme not in DEFAULT_PORTS:
        rest = rest.lower()
        return Origin(scheme, rest, None) if _OPAQUE.fullmatch(rest) else None
    stars = "*." if rest.startswith("*.") else ""
    authority = parse_authority(rest.removeprefix("*."))
    if authority is None or (stars and authority.literal):
        return None
    port = DEFAULT_PORTS[scheme] if authority.port is None else authority.port
    return Origin(scheme, stars + authority.host, port)


def canonical_host(text: str) -> str | None:
    """Return the host, or the pattern ``*.example.com``, that ``text`` probably means, else None."""
    text = text.strip()
    match = _SCHEME.match(text)
    stars, authority = _meant(text[match.end() :] if match else text)
    return None if authority is None else stars + authority.host


def canonical_origin(text: str) -> str | None:
    """Return the origin that ``text`` probably means, as browsers send it, else None."""
    text = text.strip()
    match = _SCHEME.match(text)
    if match is None and (":/" in text or "//" in text):
        return None
    scheme, rest = (match[1].lower(), text[match.end() :]) if match else ("https", text)
    scheme = _PAGES_OF.get(scheme, scheme)
    if scheme not in DEFAULT_PORTS:
        origin = parse_origin(f"{scheme}://{rest.rstrip('/')}")
        return None if origin is None or scheme == "file" else f"{scheme}://{origin.host}"
    stars, authority = _meant(rest)
    if authority is None:
        return None
    shown = authority.port not in (None, DEFAULT_PORTS[scheme])
    return f"{scheme}://{stars}{authority.host}{f':{authority.port}' if shown else ''}"


def _meant(rest: str) -> tuple[str, Authority | None]:
    """Parse what follows a scheme: return "*." or "", and the authority with its name in ASCII."""
    rest = re.split(r"[/?#\\]", rest, maxsplit=1)[0].rpartition("@")[2].strip()
    stars = "*." if rest.startswith("*.") else ""
    rest = rest.removeprefix("*.")
    if rest.count(":") > 1 and not rest.startswith("["):
        rest = _bracketed(rest)
    if "%" in rest:  # a zone of a link-local address, which browsers reject
        return stars, None
    if not rest.isascii():
        name, colon, port = rest.partition(":")
        if not _DEVIATIONS.isdisjoint(name):
            return stars, None
        try:
            rest = name.encode("idna").decode("ascii") + colon + port
        except UnicodeError:
            return stars, None
    authority = parse_authority(rest)
    return stars, None if authority is not None and stars and authority.literal else authority


def _bracketed(text: str) -> str:
    """Add brackets to an IPv6 address without them; four or five digits at its end are a port."""
    match = re.fullmatch(r"(.*[^:]):([0-9]{4,5})", text)
    for host, port in ((match[1], f":{match[2]}"), (text, "")) if match else ((text, ""),):
        try:
            return f"[{ipaddress.IPv6Address(host)}]{port}"
        except ValueError:
            continue
    return text


def host_problem(text: str) -> str | None:
    """Return why no Host header can match ``text``, else None."""
    meant = canonical_host(text)
    if text == "*" or (meant is not None and meant == text.lower()):
        return None
    allowed = 'a name without scheme and port, such as feed.example.com or *.example.com, or "*" for any'
    return f"must be {allowed}, not {text[:100]!r}{_hint(meant)}"


def origin_problem(text: str) -> str | None:
    """Return why no Origin header can match ``text``, else None."""
    meant = canonical_origin(text)
    if text == "*" or (meant is not None and meant == text.lower()):
        return None
    allowed = "an origin as browsers send it, such as https://example.com or https://*.example.com"
    if text.strip().lower() in ("null", "http://*", "https://*") or text.lower().startswith("file:"):
        return f'must be {allowed}, not {text[:100]!r}: "*" allows every page, also one without an origin'
    return f"must be {allowed}, not {text[:100]!r}{_hint(meant)}"


def _hint(meant: str | None) -> str:
    return "" if meant is None else f"; did you mean {meant}?"
