"""The admin listener on in-memory streams: the requested host, and the token."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from marketfeed.admin.listener import OPEN, Admin
from marketfeed.admin.token import MISSING, WRONG, AdminToken
from marketfeed.gateway.hosts import Hosts
from marketfeed.secret import Secret
from marketfeed.server.conditions import Condition
from tests.support.conformance import check_answer
from tests.support.http_peers import Peer, served
from tests.support.overviews import SetOverview

TOKEN = "0123456789abcdef0123456789abcdef"
OTHER = TOKEN[:-1] + "0"
BEARER = f"Authorization: Bearer {TOKEN}\r\n"
HOSTS = Hosts(["*.scrape.example"])


class Health:
    def status(self):
        return "not ready"

    def feeds(self):
        return {"secret-venue": "down"}

    def problems(self):
        return [Condition("feed_down", "secret-venue", "feed secret-venue is down")]

    def warnings(self):
        return []


def admin(token: str | None = TOKEN) -> tuple[Admin, AdminToken]:
    """An admin listener whose latencies are ``{"tiers": {}}``."""
    sources: Any = SimpleNamespace(
        lives=SimpleNamespace(
            counters=SimpleNamespace(refused=Counter()), rings=SimpleNamespace(epoch="e" * 16)
        ),
        overview=SetOverview(),
        aggregator=SimpleNamespace(log=SimpleNamespace(path=Path("latency.hlog"))),
        alerting=SimpleNamespace(dispatch=None),
        access=None,
        cluster=None,
        metering=SimpleNamespace(enabled=False),
        health=Health(),
    )
    required = AdminToken(None if token is None else Secret(token))
    return Admin(sources, HOSTS, required), required


async def asked(peer: Peer, method: str, path: str, headers: str = "", body: str = "", host: str = "[::1]"):
    """Make a request; return its status, headers and JSON."""
    await peer.stream.send_all(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n{body}".encode())
    status, found, answer = await peer.answer()
    return status, found, orjson.loads(answer) if answer else None


def paths() -> list[tuple[str, str]]:
    routes = admin()[0].server._routes
    found = [(method, path) for path, methods in routes.items() for method in methods]
    return [*found, ("GET", "/nope"), ("PUT", "/metrics"), ("OPTIONS", "/metrics")]


@pytest.mark.parametrize(("method", "path"), [pair for pair in paths() if pair[1] not in OPEN])
async def test_every_path_but_those_of_probes_requires_the_token(autojump_clock, method, path):
    listener, _ = admin()
    for headers, why in (("", MISSING), (f"Authorization: Bearer {OTHER}\r\n", WRONG)):
        async with served(server=listener.server) as peer:
            status, found, answer = await asked(peer, method, path, headers)
            assert (status, found["www-authenticate"]) == (401, "Bearer")
            assert (
                answer["error"]["msg"]
                == f"{why}: send Authorization: Bearer, with the token in admin.token_file"
            )
            if path != "/nope":
                check_answer(method, path, status, found, orjson.dumps(answer))
    assert listener.server.refused == {MISSING: 1, WRONG: 1}


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        (f"Authorization: {TOKEN}\r\n", MISSING),
        (f"Authorization: Basic {TOKEN}\r\n", MISSING),
        (f"X-Authorization: Bearer {TOKEN}\r\n", MISSING),
        ("Authorization:\r\n", MISSING),
        ("Authorization: Bearer\r\n", WRONG),
        (f"Authorization: Bearer {TOKEN[:-1]}\r\n", WRONG),
        (f"Authorization: Bearer {TOKEN}0\r\n", WRONG),
        (f"Authorization: Bearer {TOKEN.upper()}\r\n", WRONG),
        (f"Authorization: Bearer {TOKEN}, Bearer {TOKEN}\r\n", WRONG),
        (BEARER + BEARER, WRONG),
        ("Authorization: Bearer \xff\xfe\r\n", WRONG),
        (f"Authorization: bearer {TOKEN}\r\n", None),
        (f"authorization: BEARER  {TOKEN} \r\n", None),
        (BEARER, None),
    ],
)
async def test_the_token_is_that_of_the_bearer_scheme(autojump_clock, headers, why):
    listener, _ = admin()
    async with served(server=listener.server) as peer:
        status, _, answer = await asked(peer, "GET", "/v1/latency", headers)
        assert (status, answer) == (200, {"tiers": {}}) if why is None else status == 401
        assert listener.server.refused == ({} if why is None else {why: 1})


async def test_a_token_in_the_query_does_not_count(autojump_clock):
    listener, _ = admin()
    async with served(server=listener.server) as peer:
        assert (await asked(peer, "GET", f"/v1/latency?token={TOKEN}&access_token={TOKEN}"))[0] == 401


async def test_probes_need_no_token_and_learn_no_names(autojump_clock):
    listener, required = admin()
    async with served(server=listener.server) as peer:
        for headers in ("", f"Authorization: Bearer {OTHER}\r\n"):
            assert (await asked(peer, "GET", "/healthz", headers))[0] == 200
            status, found, answer = await asked(peer, "GET", "/readyz", headers)
            assert (status, answer) == (503, {"status": "not ready"})
            check_answer("GET", "/readyz", status, found, orjson.dumps(answer))
        whole = (await asked(peer, "GET", "/readyz", BEARER))[2]
        assert whole["problems"] == ["feed secret-venue is down"]
        required.replace(None)
        assert (await asked(peer, "GET", "/readyz"))[2] == whole
    assert listener.server.refused == {}


async def test_without_a_token_none_is_required(autojump_clock):
    listener, _ = admin(None)
    async with served(server=listener.server) as peer:
        for headers in ("", BEARER):
            assert (await asked(peer, "GET", "/v1/latency", headers))[0] == 200


async def test_a_replaced_token_holds_from_the_next_request_of_a_connection_on(autojump_clock):
    listener, required = admin()
    async with served(server=listener.server) as peer:
        assert (await asked(peer, "GET", "/v1/latency", BEARER))[0] == 200
        required.replace(Secret(OTHER))
        assert (await asked(peer, "GET", "/v1/latency", BEARER))[0] == 401
        assert (await asked(peer, "GET", "/v1/latency", f"Authorization: Bearer {OTHER}\r\n"))[0] == 200


async def test_the_body_of_a_refused_request_is_not_awaited(autojump_clock):
    listener, _ = admin()
    async with served(server=listener.server) as peer:
        head = "Content-Length: 200000\r\nExpect: 100-continue\r\n"
        status, found, _ = await asked(peer, "POST", "/v1/alerts/requeue", head)
        assert (status, found["connection"]) == (401, "close")


async def test_wrong_tokens_are_logged_once_a_minute_without_them_and_others_are_served(autojump_clock):
    listener, _ = admin()
    with capture_logs() as logged:
        async with served(server=listener.server) as guesser, served(server=listener.server) as operator:
            for number in range(200):
                guess = f"Authorization: Bearer {number:032x}\r\n"
                assert (await asked(guesser, "GET", "/metrics", guess))[0] == 401
            assert (await asked(operator, "GET", "/v1/latency", BEARER))[0] == 200
            assert (await asked(guesser, "GET", "/v1/latency", BEARER))[0] == 200
    assert listener.server.refused == {WRONG: 200}
    (told,) = logged
    assert told["event"] == "admin token wrong, see admin.token_file"
    assert told["address"] == "192.0.2.1"
    assert f"{0:032x}" not in str(told)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8766", "127.0.0.1.evil.example", "scrape.example"]
)
@pytest.mark.parametrize(("method", "path"), paths())
async def test_a_strange_host_is_answered_421_with_the_token_too(autojump_clock, method, path, host):
    listener, _ = admin()
    async with served(server=listener.server) as peer:
        status, _, answer = await asked(peer, method, path, BEARER, host=host)
        assert status == 421
        assert "the names in admin.hosts are" in answer["error"]["msg"]
        assert listener.server.refused == {"host not allowed": 1}


@pytest.mark.parametrize("host", ["127.0.0.1:8766", "[::1]", "10.1.2.3", "localhost:1", "a.scrape.example"])
async def test_addresses_and_configured_names_are_served(autojump_clock, host):
    listener, _ = admin()
    async with served(server=listener.server) as peer:
        assert (await asked(peer, "GET", "/healthz", host=host))[0] == 200
        assert (await asked(peer, "GET", "/v1/latency", BEARER, host=host))[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: http://127.0.0.1:8765\r\n",  # the gateway's page
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ],
)
async def test_pages_of_other_origins_are_refused_with_the_token_too(autojump_clock, headers):
    listener, _ = admin()
    with capture_logs() as logged:
        async with served(server=listener.server) as peer:
            paths = ["/v1/alerts/requeue", "/v1/alerts/requeue", "/v1/alerts/consumers"]
            for method, path in zip(("POST", "OPTIONS", "DELETE"), paths, strict=True):
                status, found, answer = await asked(peer, method, path, headers + BEARER, host="127.0.0.1")
                assert (status, answer["error"]["msg"]) == (403, "origin not allowed")
                assert "access-control-allow-origin" not in found
    assert listener.server.refused == {"origin not allowed": 3}
    assert [entry["event"] for entry in logged] == ["origin not allowed"]


async def test_a_page_of_the_listener_itself_and_programs_are_served(autojump_clock):
    listener, _ = admin()
    own = "Origin: http://127.0.0.1:8766\r\nSec-Fetch-Site: same-origin\r\n"
    async with served(server=listener.server) as peer:
        for headers in ("", own, "Sec-Fetch-Site: none\r\n"):
            status, _, _ = await asked(peer, "GET", "/v1/latency", headers + BEARER, host="127.0.0.1:8766")
            assert status == 200


@pytest.mark.parametrize("token", [TOKEN, None])
async def test_a_web_page_may_change_nothing(autojump_clock, token):
    """A browser sends such a request without asking first, and to addresses such as 127.0.0.1 too."""
    listener, _ = admin(token)
    page = f"Origin: http://127.0.0.1\r\nContent-Type: text/plain\r\n{BEARER}"
    for method, path in (("POST", "/v1/revoke"), ("DELETE", "/v1/alerts/consumers?consumer=a")):
        async with served(server=listener.server) as peer:
            length = "Content-Length: 11\r\n" if method == "POST" else ""
            body = '{"sub":"a"}' if method == "POST" else ""
            status, _, answer = await asked(peer, method, path, page + length, body, host="127.0.0.1")
            assert (status, answer["error"]["msg"]) == (403, "web pages may change nothing on the admin port")
    async with served(server=listener.server) as peer:
        assert (await asked(peer, "GET", "/v1/latency", page, host="127.0.0.1"))[0] == 200
    assert listener.server.refused["page on the admin port"] == 2
