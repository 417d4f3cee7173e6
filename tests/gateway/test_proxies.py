"""Proxies: who is believed, and the PROXY protocol taken apart."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.gateway.proxies import V2, Proxies, ProxyError, parse_preface

TRUSTED = Proxies(["127.0.0.1", "10.0.0.0/8", "fd00::/8"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # a stranger's word
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "6.6.6.6, 198.51.100.1", "198.51.100.1"),  # the first one the client made up
        ("127.0.0.1", "198.51.100.1, 10.1.2.3", "198.51.100.1"),  # through two proxies
        ("127.0.0.1", "10.1.2.3", "10.1.2.3"),
        ("127.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("127.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("::ffff:127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "unknown", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "x, 10.1.2.3", "10.1.2.3"),
    ],
)
def test_the_client_is_the_last_address_that_is_no_trusted_proxy(peer, forwarded, client):
    assert TRUSTED.client(peer, forwarded) == client


def test_without_trusted_proxies_nobody_is_believed():
    assert Proxies().client("127.0.0.1", "198.51.100.1") == "127.0.0.1"
    assert not Proxies().trusts("127.0.0.1")
    assert not TRUSTED.trusts("not an address")


def version_2(source: str, destination: str, command: int = 1, extra: bytes = b"") -> bytes:
    ips = [ipaddress.ip_address(source), ipaddress.ip_address(destination)]
    family = 0x11 if ips[0].version == 4 else 0x21
    body = b"".join(ip.packed for ip in ips) + struct.pack("!HH", 1, 2) + extra
    return V2 + bytes([0x20 | command, family]) + struct.pack("!H", len(body)) + body


HEADERS = {
    "v1 of IPv4": (b"PROXY TCP4 198.51.100.1 127.0.0.1 5000 80\r\n", "198.51.100.1"),
    "v1 of IPv6": (b"PROXY TCP6 2001:db8::1 ::1 5000 80\r\n", "2001:db8::1"),
    "v1 of an unknown client": (b"PROXY UNKNOWN\r\n", None),
    "v2 of IPv4": (version_2("198.51.100.1", "127.0.0.1"), "198.51.100.1"),
    "v2 of IPv6, with extensions": (version_2("2001:db8::1", "::1", extra=b"\x04\0\1x"), "2001:db8::1"),
    "v2 of the proxy itself": (version_2("10.0.0.1", "10.0.0.2", command=0), None),
    "v2 of another family": (V2 + b"\x21\x31\0\x02xx", None),
}


@pytest.mark.parametrize(("header", "address"), HEADERS.values(), ids=HEADERS.keys())
def test_a_header_says_where_it_ends_and_whose_it_is_however_it_is_cut(header, address):
    for size in range(1, len(header)):
        assert parse_preface(header[:size]) is None
    assert parse_preface(header + b"GET / HTTP/1.1\r\n") == (address, len(header))


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1", b"\x16\x03\x01", b"PRI * HTTP/2.0", b"\r\nGET"])
def test_what_is_no_header_is_left_alone(data):
    assert parse_preface(data) == (None, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY " + b"x" * 200,
        b"PROXY \r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        b"PROXY TCP4 x 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP4 \xff 5.6.7.8 1 2\r\n",
        V2 + b"\x11\x11\0\x0c" + bytes(12),
        V2 + b"\x22\x11\0\x0c" + bytes(12),
        V2 + b"\x21\x11\0\x04" + bytes(4),
        V2 + b"\x21\x11\xff\xff",
    ],
)
def test_a_broken_header_is_an_error(data):
    with pytest.raises(ProxyError):
        parse_preface(data)


@given(st.binary(max_size=60), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", V2, V2 + b"\x21\x11"]))
def test_any_bytes_are_judged(junk, start):
    try:
        found = parse_preface(start + junk)
    except ProxyError:
        return
    assert found is None or 0 <= found.size <= len(start + junk)
