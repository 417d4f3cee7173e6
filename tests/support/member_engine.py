"""Stands for the engine of a member: lives with real rings, whose "feed" is the test."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import trio

from marketfeed.config.cluster import ClusterConfig
from marketfeed.core.records import BUY, QUOTE, TRADE, Batch
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter

if TYPE_CHECKING:
    from marketfeed.builder import Beginning

SYMBOLS = 8


class MemoryLife:
    """What a member uses of a life."""

    def __init__(self, epoch: str, names: Any, depth: int) -> None:
        self.epoch = epoch
        self.rings = Rings.private(SYMBOLS, depth, epoch)
        self.symbols = SymbolTable(SYMBOLS, self.rings.names)
        for name in names:
            self.symbols.intern(name)
        self.writer: Any = None
        self.roster = SimpleNamespace(supervisors=[])
        self.ended = False

    def end(self) -> None:
        self.ended = True


class MemoryLives:
    """The present life, and what its sessions are told."""

    def __init__(self, depth: int) -> None:
        self.now = MemoryLife("first", (), depth)
        self.urls: Any = ()

    @property
    def roster(self) -> Any:
        return self.now.roster

    def elsewhere(self, urls: Any) -> None:
        self.urls = urls

    def __len__(self) -> int:
        return 0


class MemoryEngine:
    """Implements the part of :class:`marketfeed.engine.Engine` that a member uses."""

    def __init__(self, depth: int = 64) -> None:
        self.config = SimpleNamespace(engine=SimpleNamespace(max_symbols=SYMBOLS, ring_depth=depth))
        self.admission = SimpleNamespace(limits=SimpleNamespace(sessions=100))
        self.lives = MemoryLives(depth)
        self.succession = self
        self.told: list[str] = []  # states of the source
        self.served: list[tuple[str, bool]] = []  # epoch, and whether its feeds run
        self.fails = 0  # exchanges to come
        self._depth = depth

    def wake(self) -> None:
        """Wake readers, of which there are none."""

    def source_state(self, shard: str, state: str) -> None:
        self.told.append(state)

    def prepare(self, beginning: Beginning) -> MemoryLife:
        life: Any = MemoryLife(str(beginning.epoch), beginning.names, self._depth)
        if beginning.origin:
            plain = RingWriter(life.rings)
            assert beginning.through is not None
            life.writer = beginning.through(life, plain)
        return life

    async def exchange(self, beginning: Beginning, prepared: Any = None) -> MemoryLife:
        life: Any = prepared or self.prepare(beginning)
        await trio.sleep(0.01)
        if self.fails:
            self.fails -= 1
            life.end()
            raise ValueError("no memory")
        if beginning.fill is not None:
            beginning.fill(life)
        self.lives.now = life
        self.served.append((life.epoch, beginning.origin))
        return life

    async def feed_with(self, writer: Any) -> None:
        await trio.sleep(0.01)
        self.lives.now.writer = writer
        self.served.append((self.lives.now.epoch, writer is not None))

    def tick(self, name: str = "A", count: int = 1) -> bool:
        """Publish quotes as a feed does; return whether the feeds run."""
        life = self.lives.now
        if life.writer is None:
            return False
        quotes, trades = np.zeros(count, QUOTE), np.zeros(1, TRADE)
        symbol = life.symbols.intern(name)
        quotes["symbol"] = trades["symbol"] = symbol
        quotes["bid_px"], quotes["bid_sz"] = 10**9, 1
        trades["side"], trades["size"] = BUY, 1
        life.writer.write(Batch(quotes, trades))
        return True

    @property
    def head(self) -> int:
        return self.lives.now.rings.head()


def cluster(node: str, **keys: Any) -> ClusterConfig:
    """Return the configuration of a node."""
    return ClusterConfig(node=node, url=f"http://{node}:1", **{"lease_s": 3.0, "replicas": 1, **keys})
