"""Which engine of a cluster a feed connects to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from marketfeed.client.address import endpoint
from marketfeed.client.nodes import DIRECTED_S, MOST_DIRECTED, Nodes
from marketfeed.errors import ConnectError

HOME, SPARE = endpoint("http://home:1"), endpoint("http://spare:1")


class Stream:
    """A connection that answers every request with ``body``."""

    def __init__(self, body: bytes) -> None:
        self._answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def send(self, data: bytes) -> None:
        """Take the request."""

    async def receive(self) -> bytes:
        answer, self._answer = self._answer, b""
        return answer

    async def close(self) -> None:
        """Nothing is open."""


class Network:
    """A backend where the hosts in ``up`` can be reached, and answer with ``rows``."""

    def __init__(self, *up: str, rows: Any = ()) -> None:
        self.up, self.rows, self.s = set(up), rows, 0.0
        self.opened: list[str] = []

    def now(self) -> float:
        return self.s

    async def open(self, host: str, port: int, tls: object, timeout_s: float) -> Any:
        self.opened.append(host)
        if host not in self.up:
            raise ConnectError(f"{host}: refused")
        return Stream(json.dumps(self.rows).encode())

    async def limited(self, awaitable: Any, timeout_s: float) -> Any:
        return await awaitable

    async def shielded(self, call: Any, timeout_s: float) -> None:
        await call()


async def attempt(nodes: Nodes, network: Any, directed: str | None = None, good: bool = True) -> str:
    """Connect; return the host, "" if there is none."""
    try:
        await nodes.open(network, "t", directed, 1.0)
    except ConnectError:
        nodes.tried(good=False)
        return ""
    nodes.tried(good)
    return nodes.now.host


def row(host: str, sessions: int, state: str = "ready", scheme: str = "http") -> dict[str, Any]:
    return {"url": f"{scheme}://{host}:1", "site": "", "sessions": sessions, "capacity": 10, "state": state}


async def test_the_first_url_that_can_be_reached_is_used_and_kept():
    nodes, network = Nodes([HOME, SPARE]), Network("spare")
    assert await attempt(nodes, network) == "spare"
    network.up = {"home", "spare"}
    assert await attempt(nodes, network) == "spare"
    network.up = {"home"}
    assert await attempt(nodes, network) == "home"
    network.up = set()
    assert await attempt(nodes, network) == ""


async def test_after_an_engine_without_a_session_another_url_comes_first():
    nodes, network = Nodes([HOME, SPARE]), Network("home", "spare")
    assert await attempt(nodes, network, good=False) == "home"
    assert await attempt(nodes, network) == "spare"


async def test_closing_sends_the_feed_elsewhere_and_back_if_that_fails():
    nodes, network = Nodes([HOME]), Network("home", "other")
    await attempt(nodes, network)
    assert await attempt(nodes, network, "http://other:1") == "other"
    network.up = {"home"}
    assert await attempt(nodes, network, "http://third:1") == "home"
    assert network.opened[-3:] == ["third", "other", "home"]


@pytest.mark.parametrize(
    "url",
    ["https://other:1", "ftp://other:1", "//other:1", "other", "http://", "http://other:0", "http://[", 7],
)
async def test_a_url_that_is_not_as_the_callers_is_not_followed(url):
    nodes, network = Nodes([HOME]), Network("home", "other")
    assert await attempt(nodes, network, url) == "home"
    assert network.opened == ["home"]


def test_never_from_https_to_http():
    assert Nodes([endpoint("https://home:1")]).endpoint("http://other:1") is None


def test_the_certificates_to_trust_are_the_callers():
    home = endpoint("https://home:1")
    other = Nodes([home]).endpoint("https://other:1/base")
    assert other is not None
    assert (other.tls, other.host, other.resource) == (home.tls, "other", "/base/v1/stream")


async def test_engines_that_send_a_feed_to_each_other_are_followed_a_few_times():
    nodes, network = Nodes([HOME]), Network("home", "a", "b")
    hosts = [await attempt(nodes, network, f"http://{'ab'[n % 2]}:1") for n in range(MOST_DIRECTED + 1)]
    assert hosts[MOST_DIRECTED - 1 :] == [hosts[MOST_DIRECTED - 1]] * 2
    network.s = DIRECTED_S
    assert await attempt(nodes, network, "http://b:1") == "b"


async def test_asked_for_the_engine_with_the_most_room_is_chosen():
    rows = [row("full", 9), row("free", 1), row("stale", 0, "stale"), row("safe", 0, scheme="https"), {}, 5]
    nodes, network = Nodes([HOME], ask=True), Network("home", "free", "full", rows=rows)
    assert await attempt(nodes, network) == "free"
    network.up -= {"free"}
    assert await attempt(nodes, network) == "home"


@pytest.mark.parametrize("rows", [{}, [], [{"state": "ready"}], [{"state": "ready", "url": 5}], None])
async def test_without_a_usable_answer_the_callers_url_is_used(rows):
    nodes = Nodes([HOME], ask=True)
    assert await attempt(nodes, Network("home", rows=rows)) == "home"


def test_arguments_of_connect():
    from marketfeed.client import connect
    from marketfeed.errors import ConfigError

    for urls in ([], ["http://a:1", "https://b:1"], ["a:1"]):
        with pytest.raises(ConfigError):
            connect(urls)
    connect(["http://a:1", "http://b:1"], nodes=True)
