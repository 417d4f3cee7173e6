"""Nodes of a cluster as real processes, and feeds that check every tick and record what they are told."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio

from marketfeed.client import Gap, Quote, Reset, Source, connect
from tests.support.admin_client import get
from tests.support.ports import free_port
from tests.support.process import engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.nats import NatsServer
    from tests.support.process import Engine

WAIT_S = 60
SYMBOLS = ["A", "B"]
DEMO = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = ["A", "B"]\nrate = 500\n'
PUSH = '[[feeds]]\nname = "push"\ntype = "push"\nlisten = "./push.sock"\n'


def config(
    server: NatsServer,
    node: str,
    port: int,
    *,
    feeds: str = DEMO,
    depth: int = 4096,
    workers: int = 0,
    **cluster: Any,
) -> str:
    """Return the configuration of a node whose clients are told ``port``."""
    keys: dict[str, Any] = {"lease_s": 3.0, "replicas": 1, **cluster}
    more = "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
    return f"""
[engine]
max_symbols = 64
ring_depth = {depth}
drain_s = 3
workers = {workers}
[cluster]
node = "{node}"
url = "http://127.0.0.1:{port}"
servers = ["{server.url}"]
{more}
{feeds}"""


@contextmanager
def running_node(server: NatsServer, folder: Path, node: str, **settings: Any) -> Iterator[Engine]:
    """Run a node, and begin the block once it serves sessions."""
    (folder / node).mkdir(exist_ok=True)  # a node that is started again keeps it
    port = free_port()
    text = config(server, node, port, **settings)
    with engine(text, folder / node, "--set", f"gateway.port={port}") as running:
        yield running


def readiness(running: Engine) -> tuple[int, dict[str, Any]]:
    """Return status and body of ``/readyz``."""
    status, _, body = get(running.admin_port, "/readyz")
    return status, json.loads(body)


def cluster_of(running: Engine) -> dict[str, Any]:
    """Return the body of ``/v1/cluster``."""
    answer: dict[str, Any] = json.loads(get(running.admin_port, "/v1/cluster")[2])
    return answer


def states(running: Engine) -> dict[str, str]:
    """Return the states of the nodes, by name."""
    return {node["node"]: node["state"] for node in cluster_of(running)["nodes"]}


class Watcher:
    """A feed over the gateways with these ``ports``; the client counts silent holes."""

    def __init__(self, *ports: int, after: str | None = None) -> None:
        self.ticks: dict[
            tuple[str, int], tuple[str, int, float | None]
        ] = {}  # by epoch and g: symbol, n, bid
        self.told: list[Any] = []  # other messages than quotes
        self.feed: Any = None
        self._urls = [f"http://127.0.0.1:{port}" for port in ports]
        self._after = after
        self._grown = trio.Event()
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def run(self) -> None:
        """Receive until stopped."""
        with self._scope:
            async with connect(
                self._urls, quotes=SYMBOLS, after=self._after, wait=True, retry_s=(0.1, 0.5)
            ) as self.feed:
                async for message in self.feed:
                    self._take(message)
                    self._grown.set()
        self._ended.set()

    def _take(self, message: Any) -> None:
        if not isinstance(message, Quote):
            self.told.append(message)
        elif not message.snap:
            key = (self.feed.epoch, message.g)
            tick = (message.S, message.n, message.bp)
            assert self.ticks.setdefault(key, tick) == tick, f"two ticks as {key}"

    async def stop(self) -> str:
        """End the feed, and return the cursor after the last tick that was taken."""
        self._scope.cancel()
        await self._ended.wait()
        epoch, g = list(self.ticks)[-1]
        return f"{epoch}:{g}"

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds, which is checked after each message."""
        with trio.fail_after(WAIT_S):
            while not condition():
                self._grown = trio.Event()
                await self._grown.wait()

    def __repr__(self) -> str:
        return f"{self.epochs()}, {len(self.ticks)} ticks, told {self.told[-12:]}"

    async def more(self, count: int) -> None:
        """Wait for so many further ticks."""
        wanted = len(self.ticks) + count
        try:
            await self.until(lambda: len(self.ticks) >= wanted)
        except trio.TooSlowError:
            raise AssertionError(f"{wanted} ticks were never received: {self!r}") from None

    def of(self, kind: type) -> list[Any]:
        """Return the messages of a kind other than quotes."""
        return [message for message in self.told if isinstance(message, kind)]

    def sources(self) -> list[str]:
        """Return the states of the source that the feed was told."""
        return [message.state for message in self.of(Source)]

    def epochs(self) -> list[str]:
        """Return the epochs of the ticks, in order."""
        return list(dict.fromkeys(epoch for epoch, _ in self.ticks))

    def check(self, *, gapless: bool = True) -> None:
        """Assert that no hole was silent, and, if ``gapless``, that there was none within an epoch."""
        assert self.feed.statistics().silently_lost == 0
        if not gapless:
            return
        assert self.of(Gap) == []
        newest: dict[tuple[str, str], int] = {}
        for (epoch, _), (symbol, n, _) in sorted(self.ticks.items()):
            last = newest.get((epoch, symbol))
            assert last is None or n == last + 1, f"{symbol} of {epoch}: {n} after {last}"
            newest[epoch, symbol] = n

    def resets(self) -> int:
        """Return how often the feed began anew."""
        return len(self.of(Reset))


def check_equal(first: Watcher, second: Watcher) -> None:
    """Assert that both have the same ticks where they have received the same range."""
    common = first.ticks.keys() & second.ticks.keys()
    assert common
    assert {key: first.ticks[key] for key in common} == {key: second.ticks[key] for key in common}
