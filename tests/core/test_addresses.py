"""Recognition of loopback listeners, and formatting of addresses."""

from __future__ import annotations

import pytest

from marketfeed.core.addresses import host_port, is_loopback, parse_ip, url_host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.255.254", "::1", "localhost"])
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", "0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "fe80::1", "::2", "localhost.example", "127.1", "[::1]"],
)
def test_addresses_and_names_that_are_not_loopback(host):
    assert not is_loopback(host)


def test_only_addresses_are_parsed():
    assert str(parse_ip("127.0.0.1")) == "127.0.0.1"
    assert str(parse_ip("0:0::1")) == "::1"
    assert [parse_ip(name) for name in ("", "localhost", "127.0.0.256", "[::1]")] == [None] * 4


@pytest.mark.parametrize(
    ("host", "port", "written"),
    [
        ("127.0.0.1", 8765, "127.0.0.1:8765"),
        ("::1", 8765, "[::1]:8765"),
        ("feed.example.com", 443, "feed.example.com:443"),
    ],
)
def test_ipv6_is_in_brackets(host, port, written):
    assert host_port(host, port) == written
    assert f"{url_host(host)}:{port}" == written
