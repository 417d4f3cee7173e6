"""marketfeed.client on each of its fronts at a real engine: TLS, and the end by cancellation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import trio

import marketfeed
from marketfeed.client import Quote, connect
from marketfeed.errors import ConfigError, ConnectError
from tests.support.admin_client import get, samples
from tests.support.peers import Files
from tests.support.process import engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.process import Engine

FEED = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 20\nrate = 2000\n'
Arguments = dict[str, str]


async def first_quote(url: str, more: Arguments) -> tuple[Quote, list[str]]:
    """Return a quote, and the engine's tiers by a request over HTTP."""
    async with connect(url, quotes=["*"], **more) as feed:  # type: ignore[arg-type]
        tiers = [tier["tier"] for tier in (await feed.request("/v1/engine"))["tiers"]]
        async for message in feed:
            if isinstance(message, Quote):
                return message, tiers
    raise AssertionError("the feed ended by itself")


def by_trio(url: str, more: Arguments) -> tuple[Quote, list[str]]:
    return trio.run(first_quote, url, more)


def by_asyncio(url: str, more: Arguments) -> tuple[Quote, list[str]]:
    return asyncio.run(first_quote(url, more))


def blocking(url: str, more: Arguments) -> tuple[Quote, list[str]]:
    with marketfeed.stream(url, quotes=["*"], **more) as feed:
        tiers = [tier["tier"] for tier in feed.request("/v1/engine")["tiers"]]
        return next(message for message in feed if isinstance(message, Quote)), tiers


FRONTS = pytest.mark.parametrize("front", [by_trio, by_asyncio, blocking])


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Files]]:
    """The URL of an engine behind TLS, and its files."""
    folder = tmp_path_factory.mktemp("sealed")
    files = Files(folder)
    with engine(FEED + '[gateway]\ntls_cert = "cert.pem"\ntls_key = "key.pem"\n', folder) as running:
        yield f"https://127.0.0.1:{running.port}", files


@FRONTS
@pytest.mark.parametrize("encoding", ["json", "binary"])
def test_with_its_authority_a_feed_gets_in_over_tls(sealed, front, encoding):
    url, files = sealed
    quote, tiers = front(url, {"ca": str(files.authority), "encoding": encoding})
    assert quote.S.startswith("SY")
    assert "vip" in tiers


@FRONTS
def test_without_it_a_feed_says_what_tls_said_and_names_the_argument(sealed, front):
    with pytest.raises(ConnectError, match=r"TLS: certificate verify failed: .*; to trust .*, use ca=$"):
        front(sealed[0], {})


@FRONTS
def test_a_file_that_holds_no_certificate_is_a_mistake_of_the_caller(sealed, front, tmp_path):
    (tmp_path / "empty.pem").touch()
    with pytest.raises(ConfigError, match=r"^ca: .*empty\.pem: contains no certificate"):
        front(sealed[0], {"ca": str(tmp_path / "empty.pem")})
    with pytest.raises(ConfigError, match=r"^ca: .*empty\.pem: requires an https:// or wss:// URL"):
        front("http://127.0.0.1:1", {"ca": str(tmp_path / "empty.pem")})


async def until_live(url: str, live: Callable[[], object]) -> None:
    """Iterate over a feed for ever; call ``live`` at the first quote."""
    async with connect(url, quotes=["*"], tier="vip") as feed:
        async for message in feed:
            if isinstance(message, Quote):
                live()


async def cancelled_in_trio(url: str) -> None:
    with trio.CancelScope() as scope:
        await until_live(url, scope.cancel)
    assert scope.cancelled_caught


async def cancelled_in_asyncio(url: str) -> None:
    task: asyncio.Task[None] = asyncio.create_task(until_live(url, lambda: task.cancel()))
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "run",
    [
        lambda url: trio.run(cancelled_in_trio, url),
        lambda url: asyncio.run(cancelled_in_asyncio(url)),
        lambda url: next(iter(marketfeed.stream(url, quotes=["*"]))),  # of which no reference is left
    ],
    ids=["trio", "asyncio", "blocking"],
)
def test_the_engine_gets_a_close_frame_from_a_caller_that_is_cancelled(tmp_path, run):
    with engine(FEED, tmp_path) as running:
        run(f"http://127.0.0.1:{running.port}")
        while not (closes := closed_with(running)):
            assert running.process.poll() is None
        assert closes == {"1000": 1}


def closed_with(running: Engine) -> dict[str, float]:
    """Return how many sessions were closed with each code."""
    found = samples(get(running.admin_port, "/metrics")[2])
    return {key[-1]: count for key, count in found.items() if key[0] == "marketfeed_closes_total" and count}
