"""Requests for names that are not ours are what DNS rebinding looks like, and are not served."""

from __future__ import annotations

import socket

import orjson
import pytest
from structlog.testing import capture_logs

from marketfeed.gateway.hosts import Hosts, own_names
from marketfeed.gateway.http import Rules
from marketfeed.gateway.origins import Origins
from tests.support.http_peers import asked, served

HOSTS = Hosts(["feed.example.com", "*.lan.example"])
RULES = Rules(head_s=5.0, body_bytes=100, hosts=HOSTS)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8765",
        "10.1.2.3",
        "[::1]",
        "[::1]:8765",
        "localhost",
        "LOCALHOST:1",
        "localhost.",
        "a.localhost",
        "feed.example.com",
        "Feed.Example.Com:443",
        "a.lan.example",
        "a.b.lan.example:1",
    ],
)
def test_addresses_localhost_and_configured_names_are_served(host):
    assert HOSTS.serves(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8765",
        "lan.example",
        "xlan.example",
        "feed.example.com.evil.example",
        "a.feed.example.com",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "evil.example#127.0.0.1",
        "localhost.evil.example",
        "evillocalhost",
        "localhost, evil.example",
        "::1",
        "[::1].evil.example",
        "127.0.0.1:8765.evil.example",
        "*",
        "*.lan.example",
    ],
)
def test_every_other_host_is_not(host):
    assert not HOSTS.serves(host)


def test_a_star_serves_any_and_knows_none():
    hosts = Hosts(["*"])
    assert hosts.serves("evil.example")
    assert not hosts.knows("evil.example")


def test_the_name_that_is_bound_and_the_machines_own_are_served():
    hosts = Hosts(own_names([], "feed.internal"))
    assert hosts.serves("feed.internal:8766")
    assert hosts.serves(socket.gethostname())


@pytest.mark.parametrize(
    "target",
    [
        b"GET /echo",
        b"POST /echo",
        b"OPTIONS /echo",
        b"GET /nope",
        b"GET http://evil.example/echo",
        b"GET http://feed.example.com/echo",
    ],
)
async def test_a_strange_host_is_answered_421_whatever_is_asked(autojump_clock, target):
    status, _, body = await asked(target + b" HTTP/1.1\r\nHost: evil.example\r\n\r\n", RULES)
    assert status == 421
    msg = orjson.loads(body)["error"]["msg"]
    assert "'evil.example' is not served" in msg
    assert "gateway.hosts" in msg


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET http://evil.example/echo HTTP/1.1\r\nHost: localhost\r\n", 421),
        (b"GET HTTP://EVIL.example/echo HTTP/1.1\r\nHost: localhost\r\n", 421),
        (b"GET http://localhost@evil.example/echo HTTP/1.1\r\nHost: localhost\r\n", 421),
        (b"GET http:///echo HTTP/1.1\r\nHost: localhost\r\n", 421),
        (b"GET http://localhost/echo HTTP/1.1\r\nHost: localhost\r\n", 200),
        (b"GET https://feed.example.com?a=1 HTTP/1.1\r\nHost: feed.example.com\r\n", 404),
        (b"GET ftp://localhost/echo HTTP/1.1\r\nHost: localhost\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nHost:\r\n", 421),
        (b"GET /echo HTTP/1.1\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n", 400),
        (b"GET /echo HTTP/1.0\r\n", 200),  # a balancer's check; no browser sends it
        (b"GET /echo HTTP/1.0\r\nHost: evil.example\r\n", 421),
    ],
)
async def test_the_target_and_the_header_are_both_judged(autojump_clock, head, status):
    assert (await asked(head + b"\r\n", RULES))[0] == status


async def test_a_strange_host_is_counted_and_logged_once_a_minute_with_its_key(autojump_clock):
    with capture_logs() as logged:
        async with served(RULES) as peer:
            for _ in range(3):
                await peer.stream.send_all(b"GET /echo HTTP/1.1\r\nHost: evil\x9b31m.example\r\n\r\n")
                assert (await peer.answer())[0] == 421
            assert peer.server.refused == {"host not allowed": 3}
    told = [entry for entry in logged if "host not allowed" in entry["event"]]
    assert len(told) == 1
    assert "gateway.hosts" in told[0]["event"]
    assert told[0]["host"] == "evil\\x9b31m.example"


async def test_a_page_of_the_same_host_and_port_may_connect(autojump_clock):
    rules = Rules(head_s=5.0, hosts=HOSTS, origins=Origins([]))
    for host, origin, status in (
        (b"10.1.2.3:8765", b"http://10.1.2.3:8765", 200),
        (b"[fd00::1]:8765", b"http://[fd00::1]:8765", 200),
        (b"feed.example.com", b"https://feed.example.com", 200),  # behind a proxy that ends TLS
        (b"feed.example.com:443", b"https://feed.example.com", 200),
        (b"feed.example.com", b"http://feed.example.com", 200),
        (b"10.1.2.3:8765", b"http://10.1.2.3:8766", 403),
        (b"10.1.2.3:8765", b"http://10.1.2.4:8765", 403),
        (b"feed.example.com:8443", b"https://feed.example.com", 403),
        (b"10.1.2.3:8765", b"null", 403),
        (b"evil.example", b"http://evil.example", 421),
    ):
        head = b"GET /echo HTTP/1.1\r\nHost: %b\r\nOrigin: %b\r\n\r\n" % (host, origin)
        found, headers, _ = await asked(head, rules)
        assert found == status, (host, origin)
        assert headers.get("access-control-allow-origin") == (origin.decode() if status == 200 else None)


async def test_where_any_host_is_served_its_pages_still_need_permission(autojump_clock):
    rules = Rules(head_s=5.0, hosts=Hosts(["*"]), origins=Origins([]))
    head = b"GET /echo HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n\r\n"
    assert (await asked(head, rules))[0] == 403
    assert (await asked(b"GET /echo HTTP/1.1\r\nHost: evil.example\r\n\r\n", rules))[0] == 200
