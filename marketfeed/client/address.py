"""Addresses of engines: the URL of a stream, and the certificates to trust there. Pure but for reading these.

connect(url, ca=…), --url, --ca ──► Endpoint
-c file                         ──►
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit

from marketfeed.config.validation import shown
from marketfeed.core.addresses import host_port, parse_ip
from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from marketfeed.config.schema import GatewayConfig

STREAM: Final = "/v1/stream"
SCHEMES: Final = {"http": "ws", "https": "wss"}  # of an engine, and of its stream
BY_OPTION: Final = "--url http://HOST:PORT"
BY_ARGUMENT: Final = "http://HOST:PORT before the symbols"
NO_PEM: Final = "contains no certificate in PEM format"
_PEM_END: Final = "-----END CERTIFICATE-----"


@dataclass(frozen=True)
class Endpoint:
    """The URL of an engine's stream; ``tls`` holds the trusted certificates, None for ws://."""

    url: str
    parts: SplitResult
    tls: ssl.SSLContext | None
    elsewhere: str = ""  # how to give another address, if this one is from a configuration

    @property
    def host(self) -> str:
        """Name or address of the engine's machine."""
        return self.parts.hostname or ""

    @property
    def port(self) -> int:
        """The port; without one in the URL, that of HTTP or HTTPS."""
        return self.parts.port or (80 if self.tls is None else 443)

    @property
    def authority(self) -> str:
        """Host and port as in the URL, for the header `Host`."""
        return self.parts.netloc.rpartition("@")[2]

    @property
    def resource(self) -> str:
        """Path and query of the handshake's request; /v1/stream if the URL has no path."""
        return ((self.parts.path.removesuffix("/") and self.parts.path) or STREAM) + (
            f"?{self.parts.query}" if self.parts.query else ""
        )

    def path(self, path: str) -> str:
        """Return the path of another route of the same engine, such as /v1/symbols."""
        return self.resource.partition("?")[0].removesuffix(STREAM) + path

    @property
    def hint(self) -> str:
        """How to give another address, if this one is from a configuration; for errors."""
        return f"; for an engine at another address, use {self.elsewhere}" if self.elsewhere else ""


def stream_of(url: str) -> str:
    """Return the URL of the stream of the engine at ``url``, http:// or https://; other URLs as they are."""
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        return url
    path, mark, query = rest.partition("?")
    return f"{SCHEMES[scheme]}://{path.rstrip('/').removesuffix(STREAM)}{STREAM}{mark}{query}"


def endpoint(url: str, ca: Path | None = None, option: str = "--url ", by_ca: str = "--ca ") -> Endpoint:
    """Return the endpoint at ``url``; errors name ``option`` and ``by_ca``, by which the two were given.

    ``url`` is the engine's, http:// or https://, or that of its stream, ws:// or wss://. Certificates are
    checked against the system's authorities, or, with ``ca``, only against those in that PEM file. Raises
    ConfigError.
    """
    stream, parts = stream_of(url), parsed_url(url, option)
    if parts.scheme == "wss":
        return Endpoint(stream, parts, _trusting(ca, by_ca))
    if ca is not None:
        raise ConfigError(f"{by_ca}{ca}: requires an https:// or wss:// URL, not {url}")
    return Endpoint(stream, parts, None)


def endpoint_of(gateway: GatewayConfig, ca: Path | None = None, elsewhere: str = BY_OPTION) -> Endpoint:
    """Return the endpoint of the engine with this configuration.

    ``elsewhere`` describes how to give another address, for error messages. Without ``ca``, only the
    certificate in ``tls_cert`` is trusted. Its name is not checked: it may have been issued for the
    engine's public name, while this connection uses the address. Raises ConfigError.
    """
    url = stream_url(gateway, elsewhere)
    if not gateway.tls_cert or ca is not None:
        return replace(endpoint(url, ca), elsewhere=elsewhere)
    return Endpoint(url, urlsplit(url), _pinned(Path(gateway.tls_cert)), elsewhere)


def stream_url(gateway: GatewayConfig, elsewhere: str = BY_OPTION) -> str:
    """Return the URL of the stream of an engine with this configuration; raises ConfigError for port 0."""
    if gateway.port == 0:
        raise ConfigError(f"gateway.port: 0 means any free port; give the engine's address: {elsewhere}")
    host = gateway.host
    address = parse_ip(host)
    if address is not None and address.is_unspecified:  # the engine listens on all addresses
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"{'wss' if gateway.tls_cert else 'ws'}://{host_port(host, gateway.port)}{STREAM}"


def parsed_url(url: str, option: str = "--url ") -> SplitResult:
    """Return the parts of the stream's URL at ``url``; raises ConfigError, which names ``option``."""
    try:
        parts = urlsplit(stream_of(url))
        if parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0:
            parts.hostname.encode("idna")  # as getaddrinfo does
            return parts
    except UnicodeError:
        raise ConfigError(f"{option}{url}: {shown(parts.hostname)} is not a valid host name") from None
    except ValueError as error:
        raise ConfigError(f"{option}{url}: {error}") from None
    raise ConfigError(f"{option}{url}: must be http://HOST:PORT, or https:// with TLS")


def _trusting(ca: Path | None, by_ca: str) -> ssl.SSLContext:
    """Return a context that trusts the authorities in the PEM file ``ca``, else the system's.

    Server certificates in the file, such as self-signed ones, are trusted too. Raises ConfigError, whose
    text begins with ``by_ca``.
    """
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except ssl.SSLError:
        raise ConfigError(f"{by_ca}{ca}: {NO_PEM}") from None
    except OSError as error:
        raise ConfigError(f"{by_ca}{ca}: {error.strerror}") from None
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _pinned(cert: Path) -> ssl.SSLContext:
    """Return a context that trusts only the first certificate in ``cert``, for any host name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        first = cert.read_text("ascii", "replace").partition(_PEM_END)
        context.load_verify_locations(cadata=first[0] + first[1])
    except (ssl.SSLError, ValueError):
        raise ConfigError(f"gateway.tls_cert: {cert}: {NO_PEM}") from None
    except OSError as error:
        raise ConfigError(f"gateway.tls_cert: {cert}: {error.strerror}") from None
    return context
