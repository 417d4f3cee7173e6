"""What the engine's HTTP clients share: TLS trust, bounded reading of answers, and errors on one line.

No proxy is used, no redirect is followed, and no content coding is asked for.
"""

from __future__ import annotations

import functools
import http
import logging
import os
import ssl
from typing import Final

import httpx
import trio

from marketfeed.core.printable import printable
from marketfeed.errors import ConfigError

_REASON_CHARACTERS: Final = 200

# What an exchange may raise: no connection, no valid answer, or an address that is none.
EXCHANGE_ERRORS: Final = (OSError, UnicodeError, httpx.HTTPError, httpx.StreamError, httpx.InvalidURL)

# httpx logs each URL, and paths may hold tokens.
logging.getLogger("httpx").setLevel(logging.WARNING)


def http_client(tls: ssl.SSLContext, connect_s: float | None = None) -> httpx.AsyncClient:
    """Return a client for one exchange, without timeouts except that of the connection."""
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(verify=tls, trust_env=False),
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(None, connect=connect_s),
    )


async def beginning(response: httpx.Response, most_bytes: int) -> bytes:
    """Return the first ``most_bytes`` of the body; raises httpx.HTTPError if it ends too early."""
    received = b""
    # Leaving the loop early would leave httpx's generators unfinished, which trio warns of; a cancelled read
    # ends them all. What is in their buffers comes first: 64 KiB at most.
    with trio.CancelScope() as reading:
        async for chunk in response.aiter_raw():
            received = (received + chunk)[:most_bytes]
            if len(received) == most_bytes:
                reading.cancel()
    return received


def status_line(status: int) -> str:
    """Return an HTTP status with its phrase."""
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        return str(status)
    return f"{status} {phrase}{': redirects are not followed' if 300 <= status < 400 else ''}"


def cause_of(error: BaseException) -> str:
    """Return one line on ``error``: the text of its first cause that has one."""
    if isinstance(error, httpx.RemoteProtocolError):  # its text quotes what the peer sent
        return printable(f"an invalid answer: {error}", _REASON_CHARACTERS)
    text = ""
    cause: BaseException | None = error
    while cause is not None:
        text = getattr(cause, "strerror", None) or str(cause) or text
        if isinstance(cause, BaseExceptionGroup):  # trio's, with an error per address
            cause = cause.exceptions[0]
        else:
            cause = cause.__cause__ or cause.__context__
    return printable(text or type(error).__name__, _REASON_CHARACTERS)


def trusting(scheme: str, key: str) -> ssl.SSLContext:
    """Return the context for a ``scheme``: for https, it trusts certifi's authorities.

    Or those in SSL_CERT_FILE or SSL_CERT_DIR. Raises ConfigError (``key: …``) if they cannot be read.
    """
    if scheme != "https":
        return _unused()
    try:
        return _trusted()
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None


@functools.cache
def _trusted() -> ssl.SSLContext:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        path = os.environ.get(name)
        if path and not os.path.exists(path):  # old releases of httpx ignore it then
            raise ValueError(f"{path}, from the environment variable {name}, does not exist")
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError too
        raise ValueError(f"certificates cannot be read: {error.strerror or error}") from None


@functools.cache
def _unused() -> ssl.SSLContext:
    """Return a context for plain HTTP: it trusts nobody, and costs less than one with authorities."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
