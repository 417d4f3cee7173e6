"""A cluster of three engines and three NATS servers under faults, and clients that check every tick.

feed ──► a, b, c (one is the origin) ◄──► n0, n1, n2
           ▲ proxies, cut at random ◄── movers: connect([a, b, c]) ──► Witness, and one book of all ticks
"""

from __future__ import annotations

import json
import random
import signal
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from tests.support.admin_client import get
from tests.support.blocking_proxy import Proxy, blocking_proxy
from tests.support.crowd import metrics
from tests.support.movers import Book, Mover
from tests.support.nodes import PUSH, cluster_of
from tests.support.ports import free_port
from tests.support.process import engine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.nats import NatsServer
    from tests.support.process import Engine

LEASE_S: Final = 3.0  # the least that the configuration allows
WAIT_S: Final = 90.0
LOG_LINES: Final = 60
FEED: Final = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 20\nrate = 1000\n'
NODE: Final = """
[engine]
max_symbols = 64
ring_depth = 16384
drain_s = 1
[cluster]
node = "{name}"
url = "{url}"
servers = {servers}
lease_s = {lease_s}
replicas = 3
{feeds}"""


class Node:
    """An engine that can be killed, stopped and started again, behind a proxy of its own."""

    def __init__(self, name: str, folder: Path, servers: list[NatsServer], stack: ExitStack) -> None:
        self.name, self.folder = name, folder / name
        self.folder.mkdir()
        self._port = free_port()
        self.proxy: Proxy = stack.enter_context(blocking_proxy(self._port))
        self.url = f"http://127.0.0.1:{self.proxy.port}"
        self._servers = json.dumps([server.url for server in servers])
        self.running: Engine | None = None
        self.logs: list[str] = []  # of earlier processes
        self._stack = ExitStack()
        stack.callback(self.end, signal.SIGKILL)

    def text(self, feeds: str = FEED) -> str:
        """Return the configuration."""
        return NODE.format(name=self.name, url=self.url, servers=self._servers, lease_s=LEASE_S, feeds=feeds)

    def start(self) -> None:
        """Start the engine; returns once it serves clients."""
        own = ("--set", f"gateway.port={self._port}")
        self.running = self._stack.enter_context(engine(self.text(), self.folder, *own))

    def end(self, how: signal.Signals) -> None:
        """End the engine with this signal, if it runs."""
        if self.running is None:
            return
        ended, self.running = self.running, None
        with self._stack.pop_all():
            ended.process.send_signal(how)
            ended.process.wait(WAIT_S)
        self.logs += ended.stderr

    def signal(self, how: signal.Signals) -> None:
        """Send a signal to the engine."""
        self.engine.process.send_signal(how)

    @property
    def engine(self) -> Engine:
        """Return the engine; raises OSError if it does not run."""
        if self.running is None:
            raise ConnectionRefusedError(f"node {self.name} does not run")
        return self.running

    def own_row(self) -> dict[str, Any]:
        """Return what the node says of itself in ``/v1/cluster``."""
        rows = cluster_of(self.engine)["nodes"]
        live = sum(row["state"] == "live" for row in rows)
        own: dict[str, Any] = next(row for row in rows if row["node"] == self.name)
        return own | {"live": live}

    def tail(self) -> str:
        """Return the end of the logs of all its processes."""
        return "".join([*self.logs, *([] if self.running is None else self.running.stderr)][-LOG_LINES:])


class Storm:
    """The cluster; methods that wait raise AssertionError after WAIT_S."""

    def __init__(self, folder: Path, servers: list[NatsServer], stack: ExitStack, seed: str) -> None:
        self.servers, self.chance = servers, random.Random(seed)
        self.nodes = [Node(name, folder, servers, stack) for name in ("a", "b", "c")]
        self.book = Book()
        urls = [node.url for node in self.nodes]
        self.movers = [
            Mover([*urls[number:], *urls[:number]], ("json", "binary")[number % 2], self.book)
            for number in range(3)
        ]
        self.cuts = 0
        self.calm = True  # no connection is cut

    async def start(self) -> None:
        """Start all engines at once."""
        async with trio.open_nursery() as nursery:
            for node in self.nodes:
                nursery.start_soon(trio.to_thread.run_sync, node.start)

    async def cut_on(self) -> None:
        """Cut the connections of a node at random, so that its clients move, until cancelled."""
        while True:
            await trio.sleep(self.chance.uniform(0.3, 1.5))
            if not self.calm:
                await self.cut(self.chance.choice(self.nodes))

    async def cut(self, node: Node) -> None:
        """Cut the connections of ``node``, and refuse others for a moment."""
        self.cuts += 1
        refusing, node.proxy.refusing = node.proxy.refusing, True
        await trio.to_thread.run_sync(node.proxy.cut)
        await trio.sleep(0.2)
        node.proxy.refusing = refusing

    async def rows(self) -> list[dict[str, Any]]:
        """Return what each node says of itself."""
        return [await trio.to_thread.run_sync(node.own_row) for node in self.nodes]

    async def origin_first(self) -> list[Node]:
        """Return the nodes, the origin first."""
        rows = {row["node"]: row for row in await self.rows()}
        return sorted(self.nodes, key=lambda node: (not rows[node.name]["origin"], node.name))

    async def settle(self) -> dict[str, Any]:
        """Wait until one node is the origin and all have its epoch; then until all clients receive more.

        Return the row of the origin.
        """
        rows: list[dict[str, Any]] = []

        async def settled() -> bool:
            rows[:] = await self.rows()
            equal = len({(row["epoch"], row["term"]) for row in rows}) == 1
            live = all(row["state"] == "live" and row["live"] == len(self.nodes) for row in rows)
            return equal and live and sum(row["origin"] for row in rows) == 1

        await until(settled, lambda: f"not one origin that all follow: {rows}")
        (origin,) = (row for row in rows if row["origin"])
        wanted = {mover: 0 if mover.epoch != origin["epoch"] else mover.ticks for mover in self.movers}

        async def receiving() -> bool:
            return all(
                mover.epoch == origin["epoch"] and mover.ticks >= wanted[mover] + 100 for mover in self.movers
            )

        await until(receiving, lambda: f"clients that receive nothing of {origin['epoch']}: {self.movers}")
        await until(partial(self._followed, origin["head"]), lambda: f"behind: {rows}")
        self.check()
        return origin

    async def _followed(self, head: int) -> bool:
        return all(row["head"] >= head for row in await self.rows())

    async def quiet(self) -> None:
        """Replace the feed by one without ticks; wait until all nodes and clients have the same head."""
        for node in self.nodes:
            (node.folder / "config.toml").write_text(node.text(PUSH))
            node.signal(signal.SIGHUP)
        seen: list[Any] = []

        async def equal() -> bool:
            before = list(seen)
            seen[:] = [(row["epoch"], row["head"]) for row in await self.rows()]
            await trio.sleep(0.3)
            return len(set(seen)) == 1 and seen == before

        await until(equal, lambda: f"heads differ: {seen}")
        cursor = "{}:{}".format(*seen[0])

        async def complete() -> bool:
            return all(mover.feed.cursor == cursor for mover in self.movers)

        cursors = [mover.feed.cursor for mover in self.movers]
        await until(complete, lambda: f"clients are not at {cursor}: {cursors}")

    def check(self) -> None:
        """Assert that no client has an untold hole, and that the ledgers of all nodes add up."""
        for mover in self.movers:
            mover.check()
        for node in self.nodes:
            found = metrics(node.engine)  # asserts it of each tier
            assert found["marketfeed_cluster_mirror_faults_total", "invalid"] == 0, node.name
            report = json.loads(get(node.engine.admin_port, "/v1/latency")[2])
            for tier, one in report["tiers"].items():
                matched = one["ledger"].pop("matched")
                assert matched == sum(one["ledger"].values()), (node.name, tier, matched, one["ledger"])

    def logs(self) -> str:
        """Return the ends of the logs of all nodes and servers."""
        own = [f"--- {node.name}\n{node.tail()}" for node in self.nodes]
        lines = [
            (server.name, (server.folder / "nats.log").read_text().splitlines()[-10:])
            for server in self.servers
        ]
        return "\n".join([*own, *(f"--- {name}\n" + "\n".join(last) for name, last in lines)])


async def until(condition: Callable[[], Any], why: Callable[[], str]) -> None:
    """Wait until ``condition`` returns true, and ignore that a node cannot be asked."""
    with trio.move_on_after(WAIT_S):
        while True:
            try:
                if await condition():
                    return
            except OSError:
                pass  # a process that is being started
            await trio.sleep(0.05)
    raise AssertionError(why())
