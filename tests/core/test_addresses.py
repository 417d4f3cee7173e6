"""Recognition of loopback listeners, and formatting of addresses."""

from __future__ import annotations

import pytest

from marketfeed.core.addresses import host_port, is_loopback, is_public, parse_host_port, parse_ip, url_host


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


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"],
)
def test_public_addresses(address):
    found = parse_ip(address)
    assert found is not None
    assert is_public(found)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.31.255.255"),
        *("192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "203.0.113.9", "224.0.0.1"),
        *("239.255.255.250", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::7f00:1", "fe80::1", "fec0::1", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1"),
        *("3fff::1", "2001::1", "100::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254"),
        *("64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1"),
    ],
)
def test_addresses_that_no_host_of_the_internet_has(address):
    found = parse_ip(address)
    assert found is not None
    assert not is_public(found)


def test_hosts_and_ports_are_parsed_with_or_without_brackets():
    assert parse_host_port("127.0.0.1:0") == ("127.0.0.1", 0)
    assert parse_host_port("[::1]:65535") == ("::1", 65535)
    wrong = ("", "8770", ":8770", "a:", "a:65536", "a:+1", "a:1\n", "a: 1")
    assert [parse_host_port(text) for text in wrong] == [None] * len(wrong)
