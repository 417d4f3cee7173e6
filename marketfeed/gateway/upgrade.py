"""Checks of a WebSocket handshake request. Pure. Source: RFC 6455, section 4.2.1; RFC 9110, section 7.8."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Final

from marketfeed.gateway.exchange import CLOSE, TOKEN, Headers

if TYPE_CHECKING:
    from marketfeed.gateway.http import Request

VERSION: Final = "13"  # of the WebSocket protocol; RFC 6455 defines no other
GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
NEEDED: Final = "this is a WebSocket: it needs a handshake"
PROXY: Final = "a proxy in between has to pass Upgrade and Connection on"


class UpgradeError(Exception):
    """Not a valid WebSocket handshake; ``status`` and ``headers`` are those of the response."""

    def __init__(self, msg: str, status: int = 400, headers: Headers = ()) -> None:
        super().__init__(msg)
        self.status = status
        self.headers = headers


def answer_to(request: Request) -> bytes:
    """Return the answer that accepts the handshake ``request``; raises UpgradeError.

    If a client offers several protocols, as in ``Upgrade: h2c, websocket``, WebSocket is chosen.
    """
    if "websocket" not in _tokens(request, b"upgrade"):
        raise UpgradeError(f"{NEEDED} (Upgrade: websocket); {PROXY}")
    if request.method != "GET":
        raise UpgradeError(f"{NEEDED} by GET, not {request.method}")
    if request.version == "1.0":
        raise UpgradeError(f"{NEEDED} over HTTP/1.1, not 1.0; nginx: proxy_http_version 1.1")
    if "upgrade" not in _tokens(request, b"connection"):
        raise UpgradeError(f"{NEEDED} (Connection: Upgrade beside Upgrade: websocket); {PROXY}")
    if (request.header(b"sec-websocket-version") or "").strip() != VERSION:
        told = f"Sec-WebSocket-Version: {VERSION} is the one that is spoken here"
        raise UpgradeError(told, 426, (("Sec-WebSocket-Version", VERSION), ("Upgrade", "websocket")))
    key = (request.header(b"sec-websocket-key") or "").strip()
    if not _is_key(key):
        raise UpgradeError("Sec-WebSocket-Key: one, of 16 bytes in base64")
    offered = _tokens(request, b"sec-websocket-protocol")
    if not all(TOKEN.fullmatch(name) for name in offered if name):
        raise UpgradeError("Sec-WebSocket-Protocol: names, separated by commas", headers=CLOSE)
    accept = base64.b64encode(hashlib.sha1(key.encode("ascii") + GUID).digest()).decode("ascii")
    return (
        f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ).encode("ascii")


def _tokens(request: Request, name: bytes) -> list[str]:
    text = (request.header(name) or "").lower()
    return [token.strip() for token in text.split(",")] if "," in text else [text.strip()]


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 16
    except ValueError:
        return False
