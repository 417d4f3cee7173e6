"""marketfeed.js in Node.js with an engine that asks for a token."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.js import program
from tests.support.process import engine
from tests.support.tokens import SECRET, token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.process import Engine

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CONFIG = (
    '[auth]\nmode = "jwt"\nalgorithm = "HS256"\nkey_file = "secret"\n[limits]\nrequests_per_s = 1000\n'
    '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 20\nrate = 200\n'
)
SYMBOLS = {"quotes": ["SY0000", "SY0001"], "trades": ["*"]}
WAYS = ["websocket", "events", "poll"]


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("engine")
    (folder / "secret").write_bytes(SECRET)
    (folder / "secret").chmod(0o600)
    with engine(CONFIG, folder) as started:
        yield started


def valid(seconds: float = 600) -> str:
    now = time.time()
    rights: dict[str, Any] = {
        "sub": "ann",
        "tenant": "desk",
        "symbols": ["SY0000", "SY0001"],
        "iat": now,
        "exp": now + seconds,
    }
    return token(**rights)


def http(running: Engine) -> str:
    return running.ready.split()[2]


@pytest.mark.parametrize("way", WAYS)
def test_a_feed_presents_its_token(running, way):
    with program(http(running), transport=way, token=valid(), subscribe=SYMBOLS) as feed:
        feed.wait_for("q", S="SY0000")
        feed.wait_for("q", S="SY0001")
        assert not any(m["T"] in ("error", "disconnected") for m in feed.messages)


@pytest.mark.parametrize("way", WAYS)
def test_without_a_valid_token_it_stops(running, way):
    for wrong in ({}, {"token": "wrong"}, {"token": ["wrong", None]}, {"token": ["wrong"]}):
        with program(http(running), transport=way, retryMs=[10, 20], subscribe=SYMBOLS, **wrong) as feed:
            state = feed.wait_for("state", state="disconnected", code=401, retryMs=None)
            assert state["reason"]
            assert not any(m["T"] == "q" for m in feed.messages)


@pytest.mark.parametrize("way", WAYS)
def test_a_token_is_asked_for_again_after_a_refusal_and_an_exception(running, way):
    tokens = ["wrong", "throw", valid()]
    with program(http(running), transport=way, token=tokens, retryMs=[10, 20], subscribe=SYMBOLS) as feed:
        feed.wait_for("q", S="SY0000")
        refused = [m.get("refused") for m in feed.messages if m["T"] == "token"]
        assert refused[:3] == [None, "wrong", "wrong"]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_entitled_is_told_and_the_rest_comes(running, way):
    names = {"quotes": ["SY0000", "SY0007", "SY0001"]}
    with program(http(running), transport=way, token=valid(), retryMs=[10, 20], subscribe=names) as feed:
        assert feed.wait_for("error")["quotes"] == ["SY0007"]
        feed.wait_for("q", S="SY0000")
        feed.wait_for("q", S="SY0001")
        assert not any(m.get("S") == "SY0007" for m in feed.messages)


@pytest.mark.parametrize("way", WAYS)
def test_any_number_of_names_may_be_refused(running, way):
    """Ten bad requests in a row would end the session for good, and a delay after each would take minutes."""
    refused = [f"SY{number:04}" for number in range(2, 20)]
    names = {"quotes": [*refused, "SY0000"], "trades": ["SY0001"]}
    with program(http(running), transport=way, token=valid(), subscribe=names) as feed:
        feed.wait_for("q", S="SY0000")
        feed.wait_for("t", S="SY0001")
        told = [name for m in feed.messages if m["T"] == "error" for name in m["quotes"]]
    assert told == refused


def test_a_token_is_renewed_before_it_expires(running):
    with program(http(running), token=[valid(12), valid(600)], subscribe=SYMBOLS) as feed:
        feed.wait(lambda all_: sum(m.get("msg") == "authenticated" for m in all_) >= 1)
        feed.wait(lambda all_: max((m.get("ttl_s", 0) for m in all_), default=0) > 500)
        assert not any(m["T"] == "disconnected" for m in feed.messages)
