"""Errors of sockets, TLS and HTTP as one line that explains why a connection failed. Pure."""

from __future__ import annotations

import re
import socket
import ssl
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Final

import orjson

from marketfeed.core.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

BODY_CHARACTERS: Final = 200  # of a rejection's body, in an error
# What nginx, Apache, Go, Tomcat and others answer to plain HTTP on a TLS port.
_WANTS_TLS: Final = re.compile(r"\b(HTTPS|TLS|SSL)\b", re.IGNORECASE)
_WANTS_TLS_STATUS: Final = (400, 403, 426, 497)
_TRY_WSS: Final = "; try wss://"
_IS_WS: Final = "; does this port serve ws://?"
_NOT_TLS: Final = (
    "wrong version number",
    "unexpected message",
    "packet length too long",
    "record layer failure",
    "unknown protocol",
)
_EXPIRED: Final = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID and _HAS_EXPIRED, openssl/x509_vfy.h
_WRONG_NAME: Final = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH


def plainly(error: BaseException) -> str:
    """Return why a connection failed, as one printable line."""
    if isinstance(error, TimeoutError) and not error.errno:
        return "no answer"
    while error.__cause__ is not None:  # the reason is the cause of trio's "all attempts failed"
        error = error.__cause__
    if isinstance(error, BaseExceptionGroup):  # one exception per address of the host
        error = error.exceptions[0]
    if isinstance(error, ConnectionRefusedError):
        return "connection refused, is the engine running?"
    if isinstance(error, socket.gaierror):
        return printable(f"cannot resolve its host name: {error.strerror or error}")
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable(" ".join(said.split()) or type(error).__name__)


def tls_reason(error: BaseException, waited_s: float, ca: str = "--ca FILE") -> str:
    """Return why a TLS handshake failed, within ``waited_s``, and what to do about it, as with ``ca``."""
    if isinstance(error, ssl.SSLCertVerificationError):
        said = error.verify_message or str(error)
        return f"certificate verify failed: {said.rstrip('.')}; {_about_ca(error.verify_code, ca)}"
    if isinstance(error, TimeoutError):
        return f"no answer within {waited_s:g} s{_IS_WS}"
    if isinstance(error, ssl.SSLEOFError | OSError) and not isinstance(error, ssl.SSLError):
        return "the connection was reset during the handshake"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "the connection was closed during the handshake"
    reason = str(getattr(error, "reason", None) or error).lower().replace("_", " ")
    return reason + (_IS_WS if reason in _NOT_TLS else "")


def leaf(error: BaseException) -> BaseException:
    """Return the first exception within groups of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _about_ca(code: int, ca: str) -> str:
    if code in _EXPIRED:
        return f"{ca} cannot fix this: the engine needs a new certificate, or a clock is wrong"
    if code in _WRONG_NAME:
        return f"{ca} cannot fix this: use a host name in the URL that the certificate contains"
    return f"to trust this certificate or its authority, use {ca}"


def rejection(status: int, headers: Mapping[str, str], body: bytes, *, secure: bool) -> str:
    """Describe an HTTP answer that rejected a request; names of ``headers`` are in lower case."""
    target = headers.get("location", "")
    text = f"refused with HTTP status {status}"
    if 300 <= status < 400 and target:
        wants_tls = target.lower().startswith(("https:", "wss:"))
        text += f", a redirect to {_cut(target)}"
    else:
        content = body.decode("utf-8", "replace")
        said = _said(content, headers.get("content-type", ""))
        wants_tls = status in _WANTS_TLS_STATUS and bool(_WANTS_TLS.search(content))
        text += f": {said}" if said else ""
    return printable(text + (_TRY_WSS if wants_tls and not secure and "wss://" not in text else ""))


def _said(body: str, content_type: str) -> str:
    """Return the ``msg`` of an engine's error, the title of an HTML page, or else the text of the body."""
    try:
        return str(orjson.loads(body)["error"]["msg"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        pass  # not from an engine
    if "html" in content_type.lower() or body.lstrip().startswith("<"):
        page = _Page()
        page.feed(body)
        page.close()
        body = page.title.strip() or page.text
    return _cut(" ".join(body.split()))


def _cut(text: str) -> str:
    return text if len(text) <= BODY_CHARACTERS else f"{text[:BODY_CHARACTERS].rstrip()}…"


class _Page(HTMLParser):
    """Parser for the title and the text of an HTML page."""

    def __init__(self) -> None:
        super().__init__()
        self.title = self.text = ""
        self._within = ""  # the open element whose text is not part of the page's text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._within = tag if tag in ("title", "script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "title":
            self.title += data
        elif not self._within:
            self.text += f" {data}"
