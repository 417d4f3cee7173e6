"""Where a client is, by the word of trusted proxies alone: X-Forwarded-For and the PROXY protocol. Pure.

Source: "The PROXY protocol", versions 1 and 2, by HAProxy Technologies.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

V1: Final = b"PROXY "
V1_BYTES: Final = 107  # the longest line, its end included
V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
V2_BYTES: Final = 16 + 2048  # head and what may follow it; 36 bytes of addresses, and extensions


class ProxyError(Exception):
    """A PROXY header that is none."""


class Preface(NamedTuple):
    """A PROXY header taken apart."""

    address: str | None  # the client's; None where the proxy speaks for itself
    size: int  # bytes


def parse_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return the network, or the address as a network of one; raises ValueError for what is neither."""
    return ipaddress.ip_network(text)


class Proxies:
    """The addresses and networks that ``gateway.trusted_proxies`` names."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._networks = [parse_network(text) for text in trusted]

    def trusts(self, address: str) -> bool:
        """Tell whether ``address`` is one of them."""
        if not self._networks:
            return False
        try:
            ip = _plain(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)

    def client(self, peer: str, forwarded: str | None) -> str:
        """Return the client's address: the last one in X-Forwarded-For that no trusted proxy has.

        What stands before that one is the client's own word. ``peer`` itself
        if it is not trusted, or what it says is no address.
        """
        if forwarded is None or not self.trusts(peer):
            return peer
        client = peer
        for text in reversed(forwarded.split(",")):
            try:
                client = str(_plain(_without_port(text.strip())))
            except ValueError:
                return client
            if not self.trusts(client):
                return client
        return client


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address; one of IPv4 that a listener of IPv6 shows as such is of IPv4."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return getattr(ip, "ipv4_mapped", None) or ip


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def parse_preface(data: bytes) -> Preface | None:
    """Return the PROXY header at the start of ``data``; None if more bytes are needed to tell.

    Without any, its size is 0. Raises ProxyError for a broken one.
    """
    if not data:
        return None
    if V1.startswith(data[: len(V1)]):
        return _version_1(data) if len(data) >= len(V1) else None
    if V2.startswith(data[: len(V2)]):
        return _version_2(data) if len(data) >= 16 else None
    return Preface(None, 0)


def _version_1(data: bytes) -> Preface | None:
    end = data[:V1_BYTES].find(b"\r\n")
    if end < 0:
        if len(data) >= V1_BYTES:
            raise ProxyError("a PROXY line without an end")
        return None
    words = data[:end].split(b" ")
    if words[1] == b"UNKNOWN":
        return Preface(None, end + 2)
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise ProxyError("a PROXY line that is not TCP4, TCP6 or UNKNOWN with two addresses and two ports")
    try:
        ip = ipaddress.ip_address(words[2].decode("ascii"))
    except ValueError:
        raise ProxyError("a PROXY line whose source is no address") from None
    if ip.version != (4 if words[1] == b"TCP4" else 6):
        raise ProxyError("a PROXY line whose source is of the other family")
    return Preface(str(_plain(str(ip))), end + 2)


def _version_2(data: bytes) -> Preface | None:
    version, command, family = data[12] >> 4, data[12] & 15, data[13] >> 4
    size = 16 + int.from_bytes(data[14:16], "big")
    if version != 2 or command > 1:
        raise ProxyError("a PROXY header of an unknown version or command")
    if size > V2_BYTES:
        raise ProxyError(f"a PROXY header of more than {V2_BYTES} bytes")
    if len(data) < size:
        return None
    length = {1: 4, 2: 16}.get(family)
    if command == 0 or length is None:  # LOCAL, such as the proxy's own probes; or of no IP family
        return Preface(None, size)
    if size < 16 + 2 * length + 4:
        raise ProxyError("a PROXY header too short for its addresses")
    return Preface(str(_plain(str(ipaddress.ip_address(data[16 : 16 + length])))), size)
