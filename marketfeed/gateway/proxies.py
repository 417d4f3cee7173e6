"""Client addresses as trusted proxies report them: X-Forwarded-For and the PROXY protocol. Pure.

Source: "The PROXY protocol", versions 1 and 2, by HAProxy Technologies.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

V1: Final = b"PROXY "
V1_BYTES: Final = 107  # the longest line, including its end
V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
V2_BYTES: Final = 16 + 2048  # header, then at most 36 bytes of addresses, and extensions


class ProxyError(Exception):
    """Invalid PROXY header."""


class Preface(NamedTuple):
    """A parsed PROXY header."""

    address: str | None  # the client's; None if the proxy connects on its own behalf
    size: int  # bytes


def parse_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return the network, or the address as a network of one address; raises ValueError."""
    return ipaddress.ip_network(text)


class Proxies:
    """The addresses and networks that ``gateway.trusted_proxies`` names."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._networks = [parse_network(text) for text in trusted]

    def trusts(self, address: str) -> bool:
        """Return whether ``address`` is one of them."""
        if not self._networks:
            return False
        try:
            ip = _plain(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)

    def client(self, peer: str, forwarded: str | None) -> str:
        """Return the client's address: the last one in X-Forwarded-For that is not a trusted proxy's.

        The client may have forged the addresses before it. Returns ``peer`` if that is not trusted, or
        sent no valid address.
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
    """Return the address; an IPv4 address that is mapped to IPv6 is returned as IPv4."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return getattr(ip, "ipv4_mapped", None) or ip


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def parse_preface(data: bytes) -> Preface | None:
    """Return the PROXY header at the start of ``data``; None if more bytes are needed.

    Its size is 0 if there is none. Raises ProxyError for an invalid header.
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
    if command == 0 or length is None:  # LOCAL, such as health checks of the proxy; or not an IP family
        return Preface(None, size)
    if size < 16 + 2 * length + 4:
        raise ProxyError("a PROXY header too short for its addresses")
    return Preface(str(_plain(str(ipaddress.ip_address(data[16 : 16 + length])))), size)
