"""Addresses of listeners and peers, as configuration and messages write them. Pure."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

_UNICAST: Final = ipaddress.IPv6Network("2000::/3")  # all that is assigned for the Internet
_PORT: Final = re.compile(r"[0-9]{1,5}")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052; the last 32 bits are IPv4
# Python's releases differ in whether these are global.
_SPECIAL: Final = tuple(
    map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "3fff::/20"))
)


def parse_ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that ``host`` is; None if it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Return whether a listener on ``host`` can be reached from this machine only.

    True for 127.0.0.0/8, ::1 and the name localhost. Other names are not looked up.
    """
    address = parse_ip(host)
    return host == "localhost" if address is None else address.is_loopback


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Return whether a host of the Internet may have ``address``.

    False for private, shared, loopback, link-local, multicast, documentation and reserved addresses
    (https://www.iana.org/assignments/iana-ipv4-special-registry). An IPv6 address that stands for an IPv4
    address (mapped, 6to4, NAT64) is judged by that one.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
        if address not in _UNICAST:
            return False
    return address.is_global and not address.is_multicast and not any(address in net for net in _SPECIAL)


def same_network(one: str, other: str, bits: tuple[int, int]) -> bool:
    """Return whether two addresses agree in their first ``bits``: so many of IPv4, and of IPv6."""
    parsed = [parse_ip(text) for text in (one, other)]
    if any(address is None for address in parsed):
        return one == other
    first, second = (
        address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address
        for address in parsed
        if address is not None
    )
    if first.version != second.version:
        return False
    shift = first.max_prefixlen - bits[first.version == 6]
    return int(first) >> shift == int(second) >> shift


def parse_host_port(text: str) -> tuple[str, int] | None:
    """Return the host, without brackets, and the port, 0 to 65535, of HOST:PORT; None for other text."""
    host, _, port = text.rpartition(":")
    if not host or not _PORT.fullmatch(port) or int(port) > 65535:
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)


def url_host(host: str) -> str:
    """Return ``host`` as a URL contains it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def host_port(host: str, port: int) -> str:
    """Return ``host:port``; an IPv6 address is in brackets."""
    return f"{url_host(host)}:{port}"
