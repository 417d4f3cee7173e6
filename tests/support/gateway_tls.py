"""Certificates for an in-process gateway, and TLS clients that trust them."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import trio
import trustme

from marketfeed.gateway.tls import Certificate

if TYPE_CHECKING:
    from tests.support.live import Live


class Files:
    """A certificate authority, and the gateway's certificate files."""

    def __init__(self, folder) -> None:
        self.authority = trustme.CA()
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        self.write()
        self.client = ssl.create_default_context()
        self.authority.configure_trust(self.client)

    def write(self, authority: trustme.CA | None = None) -> None:
        issued = (authority or self.authority).issue_cert("127.0.0.1", "localhost")
        issued.private_key_pem.write_to_path(self.key)
        self.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))

    def certificate(self) -> Certificate:
        return Certificate(str(self.cert), str(self.key))

    async def connect(self, live: Live, strict: bool = False) -> trio.SSLStream[trio.SocketStream]:
        """Connect; a ``strict`` connection raises if TLS ends without close_notify."""
        plain = await live.connect()
        stream = trio.SSLStream(plain, self.client, server_hostname="localhost", https_compatible=not strict)
        await stream.do_handshake()
        return stream
