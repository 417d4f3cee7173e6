"""Addresses of listeners, as configuration and messages write them: loopback, IPv6 in brackets. Pure."""

from __future__ import annotations

import ipaddress


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


def url_host(host: str) -> str:
    """Return ``host`` as a URL contains it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def host_port(host: str, port: int) -> str:
    """Return ``host:port``; an IPv6 address is in brackets."""
    return f"{url_host(host)}:{port}"
