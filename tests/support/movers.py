"""Feeds over several nodes of a cluster that check every message, and one book of all their ticks."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, Final

import msgspec

from marketfeed.client import connect
from tests.support.witness import Witness

MOST_KEPT: Final = 400_000  # ticks in the book


class Book:
    """Every tick that any client has received, by epoch and ``g``: all clients must have the same."""

    def __init__(self) -> None:
        self.compared = 0  # ticks that were known from another client, or an earlier connection
        self._ticks: dict[tuple[str, int], tuple[str, str, int]] = {}

    def take(self, epoch: str, message: dict[str, Any]) -> None:
        """Take a live tick; raises AssertionError if another one has its place."""
        tick = (message["T"], message["S"], message["n"])
        known = self._ticks.setdefault((epoch, message["g"]), tick)
        assert known == tick, f"two ticks at {epoch}:{message['g']}: {known} and {tick}"
        self.compared += known is not tick
        if len(self._ticks) > MOST_KEPT:
            for key in list(self._ticks)[: MOST_KEPT // 2]:
                del self._ticks[key]


class Mover:
    """A feed over several nodes, whose every message is checked as it comes."""

    def __init__(self, urls: list[str], encoding: str, book: Book) -> None:
        self.witness = Witness()
        self.epoch = ""
        self.ticks = 0  # of this epoch
        self.heard_s: float | None = None  # when the last tick of this connection came
        self.silences_s: list[float] = []  # from the last tick of a connection to `source` stale
        self.resets = Counter[str]()  # by cause
        self.feed: Any = None
        self._urls, self._encoding, self._book = urls, encoding, book

    async def run(self) -> None:
        """Receive until cancelled; raises AssertionError at the first breach."""
        async with connect(
            self._urls,
            quotes=["*"],
            trades=["*"],
            tier="vip",
            encoding=self._encoding,
            wait=True,
            retry_s=(0.05, 0.3),
            connect_s=2.0,
        ) as self.feed:
            async for message in self.feed:
                self._take(msgspec.to_builtins(message))

    def _take(self, message: dict[str, Any]) -> None:
        self.witness.see(message)
        now_s = time.monotonic()
        match message["T"]:
            case "connected":
                self.heard_s = None
                if message["epoch"] != self.epoch:
                    self.epoch, self.ticks = message["epoch"], 0
            case "source" if message["state"] == "stale" and self.heard_s is not None:
                self.silences_s.append(now_s - self.heard_s)
            case "reset":
                self.resets[message["cause"]] += 1
            case "q" | "t" if message.get("snap") != 1:
                self._book.take(self.epoch, message)
                self.ticks += 1
                self.heard_s = now_s

    def check(self) -> None:
        """Assert that neither the client nor the witness has found a hole that was not told."""
        assert self.witness.silent == 0
        assert self.feed.statistics().silently_lost == 0

    def __repr__(self) -> str:
        return f"{self.epoch}, {self.ticks} ticks, {dict(self.witness.seen)}, resets {dict(self.resets)}"
