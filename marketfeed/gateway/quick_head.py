"""Parser of the usual heads of requests that begin sessions. Pure. Source: RFC 9112.

    data ──► plain GET, complete in one read, nothing behind it? ──► Head
                                                          else ──► None: h11 parses it

h11 takes ten times as long, a tenth of the time of a new session. What is accepted here is a subset of what
h11 accepts, with the same result; tests/gateway/test_quick_head.py compares both.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MAX_HEADERS: Final = 64
_HEAD: Final = re.compile(rb"GET ([!-~]+) HTTP/1\.1\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*\r\n)+)\r\n")
# Of handshakes, and of clients of event streams; other requests need h11 for their responses anyway.
_OPENS: Final = re.compile(rb"\r\n(?:upgrade:|accept:[ \t]*text/event-stream)", re.IGNORECASE)
# Headers whose meaning for the connection h11 tracks.
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"expect"})


class Head(NamedTuple):
    """A request's head, with the attributes of h11.Request that the server uses."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]  # names in lower case
    http_version: bytes


def quick_head(data: bytes) -> Head | None:
    """Return the head of a request without a body if ``data`` is exactly that; None if h11 has to decide."""
    if _OPENS.search(data) is None:
        return None
    found = _HEAD.fullmatch(data)
    if found is None:
        return None
    headers = []
    hosts = 0
    for line in found[2][:-2].split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in _FRAMING:
            return None
        hosts += name == b"host"
        headers.append((name, value.strip(b" \t")))
    if hosts != 1 or len(headers) > MAX_HEADERS:
        return None
    return Head(b"GET", found[1], headers, b"1.1")
