"""A set of keys that is fetched: schedules on a virtual clock, answers from a server on loopback."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import trio
import trustme

from marketfeed.access.jwks import FIRST_OPEN_S, LEAST_S, MOST_OPEN_S, TIMEOUT_S, KeySet
from marketfeed.access.loading import MAX_SET_BYTES
from marketfeed.core.breaker import BreakerState, BreakerStatistics
from marketfeed.errors import AccessError
from tests.support.escalations import Peer, answer, listening
from tests.support.tokens import auth_config, jwk, jwks

ONE, OTHER = jwks(jwk("RS256", "a")), jwks(jwk("RS256", "b", 1))
ADDRESS = "https://idp.example/keys"


class Scripted(KeySet):
    """A set of keys whose fetches take ``takes_s`` and return or raise the next of ``answers``."""

    def __init__(self, *answers: Any, refresh_s: float = 300.0, takes_s: float = 0.0) -> None:
        self.answers, self.takes_s = list(answers), takes_s
        self.at: list[float] = []
        self.told: list[bytes] = []
        config = auth_config(algorithm="RS256", jwks=ADDRESS, jwks_refresh_s=refresh_s)
        super().__init__(config, self.told.append, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    async def _answer(self) -> bytes:
        self.at.append(trio.current_time())
        await trio.sleep(self.takes_s)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        return found


@asynccontextmanager
async def running(keys: KeySet):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keys.run)
        yield
        nursery.cancel_scope.cancel()


async def test_it_is_fetched_at_once_and_then_every_refresh(autojump_clock):
    keys = Scripted(ONE, ONE, OTHER, refresh_s=60.0)
    async with running(keys):
        await trio.sleep(150)
    assert keys.at == [0, 60, 120]
    assert keys.told == [ONE, OTHER]  # a document that is the same is no change
    assert keys.statistics() == BreakerStatistics(BreakerState.CLOSED, 3, 0, 0, 0)
    assert keys.problem is None


async def test_after_failures_it_tries_again_sooner_and_keeps_the_last_good_one(autojump_clock):
    down = AccessError("500 Internal Server Error")
    keys = Scripted(ONE, down, down, down, down, OTHER, refresh_s=60.0)
    async with running(keys):
        await trio.sleep(135)
        assert keys.at == [0, 60, 70, 90, 130]
        assert keys.told == [ONE]
        assert keys.problem == (
            "auth.jwks: idp.example: 500 Internal Server Error; the keys fetched before are used"
        )
        await trio.sleep(300)
    assert keys.at[5:8] == [190, 250, 310]
    assert keys.told == [ONE, OTHER]
    assert keys.problem is None
    assert keys.statistics().failed == 4


async def test_while_the_breaker_is_open_nobody_has_it_fetched(autojump_clock):
    """Not even for an unknown key, which otherwise has it fetched 10 s after the last fetch."""
    keys = Scripted(ONE, *[OSError(111, "Connection refused")] * 4, OTHER, refresh_s=3600.0)
    async with running(keys):
        await trio.sleep(LEAST_S)
        await keys.refresh()
        assert keys.at == [0, LEAST_S]
        for _ in range(85):
            await trio.sleep(1)
            began_s = trio.current_time()
            await keys.refresh()
            assert trio.current_time() == began_s
    # Opened at 10 s for 10 s, then for 20, 40 and 60 s.
    assert keys.at == [0, 10, 20, 40, 80]
    found = keys.statistics()
    assert (found.state, found.succeeded, found.failed, found.opened) == (BreakerState.OPEN, 1, 4, 4)
    assert found.refused > 0


async def test_an_outage_of_the_provider_is_probed_every_minute(autojump_clock):
    keys = Scripted(OSError(111, "Connection refused"), refresh_s=86_400.0)
    states = set()
    async with running(keys):
        for _ in range(3600):
            await trio.sleep(1)
            states.add(keys.statistics().state)
        assert keys.at[:5] == [0, FIRST_OPEN_S, 30, 70, 130]
        assert {after - at for at, after in pairwise(keys.at[3:])} == {MOST_OPEN_S}
        assert BreakerState.CLOSED not in states
        keys.answers = [ONE]
        await trio.sleep(MOST_OPEN_S)
    assert keys.told == [ONE]
    assert keys.statistics().state is BreakerState.CLOSED


async def test_a_fetch_that_is_cancelled_has_no_result(autojump_clock):
    keys = Scripted(OSError(), OSError(), ONE, takes_s=3.0)
    with trio.move_on_after(15):  # during the probe
        await keys.run()
    assert keys.at == [0, 13]
    found = keys.statistics()
    assert (found.state, found.succeeded, found.failed) == (BreakerState.HALF_OPEN, 0, 1)
    async with running(keys):
        await trio.sleep(4)
    assert keys.statistics().failed == 2


async def test_until_the_first_fetch_works_there_is_a_problem(autojump_clock):
    keys = Scripted(OSError(111, "Connection refused"), ONE)
    assert keys.problem == "auth.jwks: idp.example: not fetched yet"
    async with running(keys):
        await trio.sleep(5)
        assert keys.problem == "auth.jwks: idp.example: Connection refused; no token can be verified yet"
        await trio.sleep(LEAST_S)
        assert keys.problem is None


async def test_an_unknown_key_fetches_at_most_every_ten_seconds(autojump_clock):
    keys = Scripted(ONE, OTHER)
    async with running(keys):
        await trio.sleep(1)
        for _ in range(3):
            await keys.refresh()
        assert trio.current_time() == 1  # at once: the last fetch was a second ago
        await trio.sleep(LEAST_S)
        for _ in range(100):
            await keys.refresh()
        assert keys.told == [ONE, OTHER]
        assert keys.at == [0, LEAST_S + 1]
        await trio.sleep(301)
    assert keys.at[2] == LEAST_S + 301  # the schedule begins anew


async def test_concurrent_callers_share_a_fetch(autojump_clock):
    keys = Scripted(ONE, OTHER, takes_s=3.0)
    ends: list[float] = []

    async def caller(after_s: float) -> None:
        await trio.sleep(after_s)
        await keys.refresh()
        ends.append(trio.current_time())

    async with running(keys), trio.open_nursery() as callers:
        for after_s in (1, 2, 20, 21, 22, 22):
            callers.start_soon(caller, after_s)
    assert ends == [3, 3, 23, 23, 23, 23]
    assert keys.at == [0, 20]


async def test_a_caller_that_leaves_does_not_end_the_fetch(autojump_clock):
    keys = Scripted(ONE, OTHER, takes_s=3.0)
    async with running(keys):
        await trio.sleep(20)
        with trio.move_on_after(1):
            await keys.refresh()
        await keys.refresh()
        assert trio.current_time() == 23
        assert keys.told == [ONE, OTHER]


async def test_callers_are_released_when_it_ends(autojump_clock):
    keys = Scripted(ONE, takes_s=3.0)
    async with trio.open_nursery() as nursery, running(keys):
        await trio.sleep(1)
        nursery.start_soon(keys.refresh)
        await trio.sleep(1)
    await keys.refresh()
    assert trio.current_time() == 2


async def test_a_fetch_that_takes_too_long_has_failed(autojump_clock):
    keys = Scripted(ONE, takes_s=trio.lowlevel.current_clock().deadline_to_sleep_time(1e9))
    async with running(keys):
        await trio.sleep(TIMEOUT_S + 1)
        assert keys.problem is not None
        assert "no whole answer within 10 s" in keys.problem
        assert keys.told == []


# Answers of a server.


async def fetched(peer: Peer, serving: Any = None, trusting: Any = None) -> tuple[KeySet, list[bytes]]:
    """Fetch once from ``peer``."""
    told: list[bytes] = []
    async with listening(peer, tls=serving):
        scheme = "https" if serving else "http"
        address = f"{scheme}://localhost:{peer.port}/keys?x=1"
        keys = KeySet(auth_config(algorithm="RS256", jwks=address), told.append, tls=trusting)
        await keys._fetch()
    return keys, told


async def test_a_document_is_fetched():
    peer = Peer(answer(200, ONE))
    keys, told = await fetched(peer)
    assert told == [ONE]
    assert keys.problem is None
    request = peer.requests[0][0]
    assert (request.method, request.target) == (b"GET", b"/keys?x=1")
    assert peer.headers()["accept-encoding"] == "identity"
    assert "authorization" not in peer.headers()


HUGE = b" " * (10 << 20)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (answer(500, ONE), "500 Internal Server Error"),
        (answer(404, ONE), "404 Not Found"),
        (answer(204, b""), "204 No Content"),
        (answer(301, ONE, location="http://localhost:1/"), "301 Moved Permanently: redirects are"),
        (answer(200, b"<html>Sign in</html>"), "not a JWKS document"),
        (answer(200, b""), "not a JWKS document"),
        (answer(200, b"["), "not a JWKS document"),
        (answer(200, b"[" * 100_000), "not a JWKS document"),
        (answer(200, b"\x1f\x8b\x08\x00", content_encoding="gzip"), "not a JWKS document"),
        (answer(200, jwks()), "no key for RS256"),
        (answer(200, jwks(jwk("ES256", "a"))), "no key for RS256"),
        (answer(200, HUGE), f"more than {MAX_SET_BYTES:,} bytes"),
        (answer(200, ONE, content_length="100000"), ""),
        (b"not HTTP\r\n\r\n", ""),
        (b"", ""),
    ],
)  # fmt: skip
async def test_another_answer_is_a_failure(told, why):
    keys, documents = await fetched(Peer(told))
    assert documents == []
    assert keys.statistics() == BreakerStatistics(BreakerState.OPEN, 0, 1, 0, 1)
    assert keys.problem is not None
    assert keys.problem.startswith("auth.jwks: localhost: ")
    assert why in keys.problem
    assert "x=1" not in keys.problem


async def test_no_more_is_read_than_a_document_may_have():
    sent = 0

    async def endless(stream: trio.SocketStream) -> None:
        nonlocal sent
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n")
        try:
            while True:
                await stream.send_all(b" " * 65_536)
                sent += 65_536
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, endless, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        keys = KeySet(auth_config(algorithm="RS256", jwks=f"http://127.0.0.1:{port}"), lambda document: None)
        await keys._fetch()
        nursery.cancel_scope.cancel()
    assert keys.problem is not None
    assert "more than" in keys.problem


async def test_a_server_that_never_answers_is_left(mock_clock):
    peer = Peer(None)
    async with listening(peer):
        keys = KeySet(
            auth_config(algorithm="RS256", jwks=f"http://127.0.0.1:{peer.port}"), lambda document: None
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keys._fetch)
            while not peer.requests:
                await trio.lowlevel.checkpoint()
            mock_clock.jump(TIMEOUT_S)
    assert keys.problem is not None
    assert "no whole answer within 10 s" in keys.problem


async def test_a_port_where_nobody_listens_is_a_failure():
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        keys = KeySet(auth_config(algorithm="RS256", jwks=f"http://127.0.0.1:{port}"), lambda document: None)
        await keys._fetch()
    assert keys.problem is not None
    assert keys.problem.endswith(": Connection refused; no token can be verified yet")


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


class TestTls:
    def contexts(self, authority: trustme.CA, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name).configure_cert(serving)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        return serving, trusting

    async def test_with_a_trusted_certificate_it_is_fetched(self, authority):
        serving, trusting = self.contexts(authority, "localhost")
        keys, told = await fetched(Peer(answer(200, ONE)), serving, trusting)
        assert told == [ONE]
        assert keys.problem is None

    async def test_a_certificate_of_another_name_is_refused(self, authority):
        serving, trusting = self.contexts(authority, "other.example")
        keys, told = await fetched(Peer(answer(200, ONE)), serving, trusting)
        assert told == []
        assert "certificate" in str(keys.problem).lower()

    async def test_a_certificate_of_an_unknown_authority_is_refused(self, authority):
        serving, _ = self.contexts(authority, "localhost")
        peer = Peer(answer(200, ONE))
        keys, told = await fetched(peer, serving)
        assert told == []
        assert peer.requests == []
        assert "certificate" in str(keys.problem).lower()
