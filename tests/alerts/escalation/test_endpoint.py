"""One attempt: what counts as an answer, what a bad peer costs, and which addresses are connected to."""

from __future__ import annotations

import logging
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme
from hypothesis import given
from hypothesis import strategies as st

from marketfeed import http_client
from marketfeed.alerts.escalation.endpoint import BODY_BYTES, Answer, Endpoint, endpoint
from marketfeed.alerts.escalation.message import Verdict
from marketfeed.alerts.escalation.url import parse_url
from marketfeed.core.breaker import Breaker, BreakerState
from marketfeed.core.units import S
from marketfeed.errors import ConfigError
from tests.support.escalations import NOW_NS, Peer, answer, listening

if TYPE_CHECKING:
    from collections.abc import Sequence


class Resolver(trio.abc.HostnameResolver):
    """Answers each lookup of a name with the next list of addresses; the last one repeats."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, *arguments: Any, **named: Any) -> Any:
        self.asked.append(host.decode())
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in found
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise AssertionError("not used")


class NoSockets(trio.abc.SocketFactory):
    """Sockets that refuse each connection, and note its address."""

    def __init__(self) -> None:
        self.connected: list[str] = []

    def socket(self, *arguments: Any) -> Any:
        factory = self

        class Refusing:
            async def connect(self, address: Any) -> None:
                factory.connected.append(address[0])
                raise ConnectionRefusedError(111, "Connection refused")

            def close(self) -> None: ...

            def setsockopt(self, *arguments: Any) -> None: ...

        return Refusing()


def resolving(*answers: Sequence[str]) -> Resolver:
    resolver = Resolver(*answers)
    trio.socket.set_custom_hostname_resolver(resolver)
    return resolver


def refusing() -> NoSockets:
    sockets = NoSockets()
    trio.socket.set_custom_socket_factory(sockets)
    return sockets


def local(peer: Peer, host: str = "127.0.0.1", **named: Any) -> Endpoint:
    return Endpoint(parse_url(f"http://{host}:{peer.port}/hook/T0KEN?x=1"), allow_private=True, **named)


async def posted(*answers: bytes | None, hold: bool = False) -> Answer:
    async with listening(Peer(*answers, hold=hold)) as peer:
        return await local(peer).post(b"{}", {}, NOW_NS)


async def test_a_whole_2xx_answer_is_accepted():
    async with listening(Peer(answer(202))) as peer:
        got = await local(peer).post(b'{"a":1}', {"webhook-id": "x"}, NOW_NS)
    assert (got.status, got.accepted, got.body, got.reason) == (202, True, b"ok", "202 Accepted")
    assert got.outcome().verdict is Verdict.DELIVERED
    request, body = peer.requests[0]
    assert (request.method, request.target, body) == (b"POST", b"/hook/T0KEN?x=1", b'{"a":1}')
    headers = peer.headers()
    assert headers["host"] == f"127.0.0.1:{peer.port}"
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == "x"


@pytest.mark.parametrize("status", [300, 400, 401, 404, 410, 429, 500, 503, 599])
async def test_every_other_status_is_a_failure(status):
    got = await posted(answer(status))
    assert got.status == status
    assert got.outcome().verdict is Verdict.FAILED
    assert got.outcome(refused=frozenset({400})).verdict is (
        Verdict.REFUSED if status == 400 else Verdict.FAILED
    )


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status):
    async with listening(Peer(answer())) as elsewhere:
        told = answer(status, location=f"http://127.0.0.1:{elsewhere.port}/")
        got = await posted(told)
    assert got.outcome().verdict is Verdict.FAILED
    assert "redirects are not followed" in got.reason
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("status", "text", "expected_s"),
    [
        (429, "120", 120.0),
        (503, "Fri, 27 Nov 2026 18:01:30 GMT", 90.0),
        (500, "soon", None),
        (200, "120", None),
    ],
)
async def test_retry_after_of_a_failure_is_returned(status, text, expected_s):
    got = await posted(answer(status, retry_after=text))
    assert got.outcome().retry_after_s == expected_s


async def test_a_long_body_is_read_in_part():
    got = await posted(answer(200, b"x" * 1_000_000))
    assert got.accepted
    assert got.body == b"x" * BODY_BYTES


@pytest.mark.parametrize(
    "told",
    [
        b"",  # closes without an answer
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        answer(200, b"ok", content_length="100"),  # lies about its length, and closes
        answer(200, b"ok", content_length="-1"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 200_000 + b"\r\n\r\n",
    ],
)
async def test_an_answer_that_is_not_whole_is_a_failure(told):
    got = await posted(told)
    assert got.status == 0
    assert got.outcome().verdict is Verdict.FAILED
    assert got.reason
    assert "T0KEN" not in got.reason


BEGINNINGS = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 \r\n",
    b"HTTP/1.1 101 A\r\n",
    b"",
]
PIECES = [
    *(
        b"Content-Length: 3\r\n",
        b"Content-Length: 4\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\0",
        b" : x\r\n",
    ),
    *(b"Content-Encoding: gzip\r\n", b"Retry-After: -\r\n", b"HTTP/9.9 999\r\n", b"\r\n", b"\r\n"),
    *(b"3\r\nabc\r\n", b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"abc"),
]


@given(st.sampled_from(BEGINNINGS), st.lists(st.sampled_from(PIECES) | st.binary(max_size=20), max_size=12))
async def test_no_answer_raises(beginning, pieces):
    got = await posted(beginning + b"".join(pieces))
    assert got.outcome().verdict in (Verdict.DELIVERED, Verdict.FAILED)
    assert got.reason.isprintable()


@pytest.mark.parametrize("told", [None, answer(200, b"ok", content_length="100"), b"HTTP/1.1 200 OK\r\n"])
async def test_a_peer_that_hangs_costs_one_attempt(told, mock_clock):
    async with listening(Peer(told, hold=True)) as peer, trio.open_nursery() as nursery:

        async def hasten() -> None:
            while not peer.requests:
                await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(15)

        nursery.start_soon(hasten)
        got = await local(peer).post(b"{}", {}, NOW_NS)
    assert got == Answer(reason="no whole answer within 15 s")


async def test_a_refused_connection_is_a_failure():
    async with listening(Peer(answer())) as peer:
        pass
    got = await local(peer).post(b"{}", {}, NOW_NS)
    assert "onnection" in got.reason
    assert got.outcome().verdict is Verdict.FAILED


async def test_a_name_that_does_not_exist_is_a_failure():
    resolving([])
    got = await Endpoint(parse_url("http://hooks.example.com/")).post(b"{}", {}, NOW_NS)
    assert got.reason == "Name or service not known"


# The circuit breaker.


async def test_a_peer_that_keeps_failing_is_left_alone_and_then_probed(mock_clock):
    async with listening(Peer(answer(500))) as peer:
        target = local(peer)
        for _ in range(5):
            assert (await target.post(b"{}", {}, NOW_NS)).status == 500
        got = await target.post(b"{}", {}, NOW_NS)
        assert got.outcome().verdict is Verdict.DEFERRED
        assert got.retry_after_s == 30
        assert len(peer.requests) == 5
        mock_clock.jump(30)
        peer.answers = [answer()]
        assert (await target.post(b"{}", {}, NOW_NS)).accepted
        assert target.statistics(0).state is BreakerState.CLOSED


async def test_a_peer_that_asks_for_a_pause_gets_it_from_all_messages(mock_clock):
    async with listening(Peer(answer(429, retry_after="300"))) as peer:
        target = local(peer)
        await target.post(b"{}", {}, NOW_NS)
        mock_clock.jump(100)
        got = await target.post(b"{}", {}, NOW_NS)
        assert (got.deferred, got.retry_after_s) == (True, 200)


@pytest.mark.parametrize("status", [400, 410])
async def test_a_peer_that_refuses_one_message_is_working(status):
    async with listening(Peer(answer(status))) as peer:
        target = local(peer)
        for _ in range(10):
            assert (await target.post(b"{}", {}, NOW_NS)).status == status


async def test_a_cancelled_probe_makes_room_for_another(mock_clock):
    breaker = Breaker(1, 1 * S, 1 * S)
    async with listening(Peer(answer(500), None, answer())) as peer:
        target = local(peer, breaker=breaker)
        await target.post(b"{}", {}, NOW_NS)
        mock_clock.jump(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(target.post, b"{}", {}, NOW_NS)
            while len(peer.requests) < 2:
                await trio.testing.wait_all_tasks_blocked()
            assert (await target.post(b"{}", {}, NOW_NS)).deferred
            nursery.cancel_scope.cancel()
        assert (await target.post(b"{}", {}, NOW_NS)).accepted


# Addresses.

PRIVATE = [
    *("127.0.0.1", "10.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "100.64.0.1", "not-an-address"),
    *("::1", "fd00::1", "fe80::1%eth0", "::ffff:127.0.0.1", "::ffff:7f00:1", "64:ff9b::a00:1"),
]


@pytest.mark.parametrize("address", PRIVATE)
@pytest.mark.parametrize("others", [[], ["8.8.8.8"]])
async def test_a_name_with_an_address_that_is_not_public_is_not_connected_to(address, others):
    sockets = refusing()
    resolving([*others, address])
    got = await Endpoint(parse_url("http://hooks.example.com/")).post(b"{}", {}, NOW_NS)
    assert (
        got.reason
        == f"hooks.example.com has the address {address}, which is not public, and is not connected to"
    )
    assert sockets.connected == []


async def test_an_address_with_a_zone_raises_nothing():
    refusing()
    resolving(["fe80::1%eth0"])
    got = await Endpoint(parse_url("http://printer.local/"), allow_private=True).post(b"{}", {}, NOW_NS)
    assert got.outcome().verdict is Verdict.FAILED
    assert got.reason


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"])
async def test_nor_is_an_address_in_the_url(address):
    sockets = refusing()
    got = await Endpoint(parse_url(f"http://{address}/")).post(b"{}", {}, NOW_NS)
    assert "not public" in got.reason
    assert sockets.connected == []


async def test_a_dns_answer_that_changes_after_the_check_changes_nothing():
    sockets = refusing()
    resolver = resolving(["8.8.8.8"], ["127.0.0.1"])
    target = Endpoint(parse_url("http://hooks.example.com/"))
    assert (await target.post(b"{}", {}, NOW_NS)).status == 0
    assert sockets.connected == ["8.8.8.8"]
    assert resolver.asked == ["hooks.example.com"]
    # The next attempt asks again, and refuses the new answer.
    assert "not public" in (await target.post(b"{}", {}, NOW_NS)).reason
    assert sockets.connected == ["8.8.8.8"]


async def test_the_host_header_has_the_name_and_the_first_address_that_answers_is_used():
    resolver = resolving(["127.0.0.2", "127.0.0.1"])
    async with listening(Peer(answer())) as peer:
        got = await local(peer, "Hooks.Example.com").post(b"{}", {}, NOW_NS)
        assert got.accepted
        assert peer.headers()["host"] == f"hooks.example.com:{peer.port}"
    assert resolver.asked == ["hooks.example.com"]


async def test_environment_proxies_are_not_used(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (await posted(answer())).accepted


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize(("host", "works"), [("hooks.example.com", True), ("other.example.com", False)])
async def test_tls_verifies_the_name_and_not_the_address(host, works, authority):
    serving, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("hooks.example.com").configure_cert(serving)
    authority.configure_trust(trusting)
    names: list[str | None] = []
    serving.sni_callback = lambda socket, name, context: names.append(name)
    resolving(["127.0.0.1"])
    async with listening(Peer(answer()), tls=serving) as peer:
        url = parse_url(f"https://{host}:{peer.port}/")
        got = await Endpoint(url, allow_private=True, tls=trusting).post(b"{}", {}, NOW_NS)
    assert names == [host]
    assert got.accepted is works
    assert works or "certificate" in got.reason.lower()


async def test_a_certificate_of_an_unknown_authority_is_refused(authority):
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    async with listening(Peer(answer()), tls=serving) as peer:
        target = endpoint(f"https://127.0.0.1:{peer.port}", "url", allow_private=True, timeout_s=5)
        got = await target.post(b"{}", {}, NOW_NS)
    assert "certificate" in got.reason.lower()
    assert peer.requests == []


@pytest.mark.parametrize(("path", "why"), [("none", "does not exist"), ("text", "cannot be read")])
def test_authorities_that_cannot_be_read_are_a_mistake_in_the_configuration(path, why, tmp_path, monkeypatch):
    (tmp_path / "text").write_text("not PEM")
    http_client._trusted.cache_clear()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / path))
    with pytest.raises(ConfigError, match=why):
        endpoint("https://hooks.example.com", "url", allow_private=False, timeout_s=5)


async def test_no_log_has_the_path_of_the_url_or_a_header(caplog):
    caplog.set_level(logging.DEBUG)
    async with listening(Peer(answer(500))) as peer:
        await local(peer).post(b"secret-body", {"webhook-signature": "v1,c2ln"}, NOW_NS)
    assert "T0KEN" not in caplog.text
    assert "c2ln" not in caplog.text
    assert "secret-body" not in caplog.text


@pytest.mark.parametrize(
    "told", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 two OK\r\n\r\n", b"\x15\x03\x01\0\2\2\x16"]
)
async def test_an_answer_that_is_not_http_is_called_invalid(told):
    found = await posted(told)
    assert found.reason.startswith("an invalid answer: ")
    assert found.reason.isprintable()
