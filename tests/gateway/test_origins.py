"""Which pages may connect, and what their browsers are told."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from marketfeed.gateway.hosts import Hosts
from marketfeed.gateway.http import HttpServer, Request, Response, Rules, json_response
from marketfeed.gateway.origins import REQUEST_HEADERS, Origins, own_origins
from tests.support.http_peers import served
from tests.support.live import http, serving_alerts


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1", "http://127.0.0.1:8765"),
        ("127.0.0.1", "http://localhost:8765"),
        ("127.0.0.1", "https://localhost:8765"),
        ("::1", "http://[::1]:8765"),
        ("::1", "http://localhost:8765"),
        ("fd00::5", "http://[fd00::5]:8765"),
        ("0.0.0.0", "http://127.0.0.1:8765"),
        ("0.0.0.0", "http://[::1]:8765"),
        ("::", "http://localhost:8765"),
        ("192.168.1.5", "http://192.168.1.5:8765"),
        ("feed.internal", "http://feed.internal:8765"),
    ],
)
def test_a_listeners_own_pages_may_connect(host, origin):
    assert Origins(own_origins(host, 8765, tls=False)).allows(origin)


def test_on_a_default_port_own_origins_have_none_as_browsers_send_it():
    assert Origins(own_origins("127.0.0.1", 80, tls=False)).allows("http://127.0.0.1")
    assert Origins(own_origins("127.0.0.1", 443, tls=True)).allows("https://127.0.0.1")


def test_a_listener_that_speaks_tls_has_no_page_over_http():
    origins = Origins(own_origins("127.0.0.1", 8765, tls=True), tls=True)
    assert origins.allows("https://localhost:8765")
    assert not origins.allows("http://localhost:8765")
    assert origins.allows("https://10.0.0.1:8765", "10.0.0.1:8765")
    assert not origins.allows("http://10.0.0.1:8765", "10.0.0.1:8765")


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://a.example.com", True),
        ("https://a.b.example.com", True),
        ("https://A.Example.com", True),
        ("https://example.com", False),
        ("http://a.example.com", False),
        ("https://a.example.com:8443", False),
        ("https://evilexample.com", False),
        ("https://a.example.com.evil.example", False),
        ("https://*.example.com", False),
        ("https://.example.com", False),
        ("null", False),
    ],
)
def test_a_star_before_a_name_is_its_sub_domains_on_the_same_port(origin, allowed):
    assert Origins(["https://*.example.com"]).allows(origin) is allowed


async def preflight(asked: bytes, more: bytes = b"") -> dict[str, str]:
    async with served(Rules(head_s=5.0, origins=Origins(["https://good.example"]))) as peer:
        await peer.stream.send_all(
            b"OPTIONS /echo HTTP/1.1\r\nHost: x\r\nOrigin: https://good.example\r\n"
            b"Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: %b\r\n%b\r\n"
            % (asked, more)
        )
        status, headers, _ = await peer.answer()
        assert status == 204
        return headers


@pytest.mark.parametrize(
    "asked",
    [
        b"cache-control",
        b"cache-control,last-event-id",
        b"authorization, content-type",
        b"pragma,x-requested-with",
        b"traceparent,tracestate,baggage",
        b"If-None-Match",
    ],
)
async def test_a_preflight_permits_the_headers_that_it_asks_for(autojump_clock, asked):
    headers = await preflight(asked)
    permitted = {name.strip().lower() for name in headers["access-control-allow-headers"].split(",")}
    assert {name.strip().lower() for name in asked.decode().split(",")} <= permitted
    assert {name.lower() for name in REQUEST_HEADERS} <= permitted


async def test_a_preflight_cannot_write_headers_of_its_own(autojump_clock):
    headers = await preflight(b"a b, c;d, \xff, e:f, " + b"x," * 100)
    assert headers["access-control-allow-headers"].endswith("Last-Event-ID, x")
    assert "access-control-allow-private-network" not in headers
    private = await preflight(b"x", b"Access-Control-Request-Private-Network: true\r\n")
    assert private["access-control-allow-private-network"] == "true"


async def test_refused_origins_are_one_line_a_minute_that_names_the_key_and_the_origin(autojump_clock):
    with capture_logs() as logged:
        async with served(Rules(head_s=5.0, origins=Origins(["https://good.example"]))) as peer:
            for number in range(5):
                origin = b"https://evil%d.example/\x9b31m" % number + b"x" * 1000
                await peer.stream.send_all(b"GET /echo HTTP/1.1\r\nHost: x\r\nOrigin: %b\r\n\r\n" % origin)
                assert (await peer.answer())[0] == 403
            assert peer.server.refused == {"origin not allowed": 5}
    (told,) = [entry for entry in logged if "origin" in entry]
    assert "gateway.allowed_origins" in told["event"]
    assert told["origin"].startswith("https://evil0.example/\\x9b31mxx")
    assert len(told["origin"]) < 200


OWN = "Origin: http://127.0.0.1:8765"
GOOD = "Origin: https://good.example"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/x", ["Sec-Fetch-Site: cross-site"], 403),
        ("/v1/x", ["Sec-Fetch-Site: same-site"], 403),
        ("/v1/x", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"], 403),
        ("/v1/x", ["Sec-Fetch-Site: cross-site", "Origin: null"], 403),
        ("/v1/x", ["Sec-Fetch-Site: cross-site", GOOD], 200),
        ("/v1/x", ["Sec-Fetch-Site: same-site", OWN], 200),
        ("/v1/x", ["Sec-Fetch-Site: same-origin"], 200),
        ("/v1/x", ["Sec-Fetch-Site: none"], 200),
        ("/v1/x", [], 200),
        ("/", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"], 200),
    ],
)
async def test_what_another_page_loads_without_an_origin_is_refused(autojump_clock, path, headers, status):
    async def answer(request: Request) -> Response:
        return json_response("served")

    rules = Rules(head_s=5.0, origins=Origins(["https://good.example"]), hosts=Hosts([]))
    server = HttpServer({"/v1/x": {"GET": answer}, "/": {"GET": answer}}, rules)
    head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: 127.0.0.1:8765", *headers, "", ""])
    with capture_logs() as logged:
        async with served(server=server) as peer:
            await peer.stream.send_all(head.encode())
            assert (await peer.answer())[0] == status
    assert server.refused == ({"origin not allowed": 1} if status == 403 else {})
    assert len([entry for entry in logged if "origin" in entry]) == (status == 403)


async def test_a_page_that_all_may_use_is_used_without_an_origin(autojump_clock):
    assert Origins(["*"]).admits("/v1/x", None, "cross-site", None)
    assert not Origins([]).admits("/v1/x", None, "cross-site", None)


async def test_a_page_of_another_site_changes_no_consumer(tmp_path):
    """An <img> with the URL of a poll: it would set patterns, and take what is due."""
    image = [(b"Sec-Fetch-Site", b"cross-site"), (b"Sec-Fetch-Mode", b"no-cors")]
    async with serving_alerts(tmp_path) as (live, dispatch):
        await dispatch.join("s", "risk", "all", ["*"])
        for _ in range(3):
            target = "/v1/alerts?consumer=risk&alerts=none&timeout_s=0"
            status, answer = await http(live, "GET", target, headers=image)
            assert (status, answer["error"]["msg"]) == (
                403,
                "origin not allowed, see gateway.allowed_origins",
            )
        assert [consumer.patterns for consumer in dispatch.consumers()] == [("*",)]
        assert live.counters.refused["origin not allowed"] == 3
        assert (await http(live, "GET", target, headers=[(b"Sec-Fetch-Site", b"none")]))[0] == 204
