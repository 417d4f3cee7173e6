"""NATS in memory: links between nodes of one test, on trio's clock, with a bucket; links can be cut."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from marketfeed.cluster.bucket import Entry
from marketfeed.cluster.link_state import LinkState, LinkStatistics
from marketfeed.cluster.queues import Message
from marketfeed.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

DELAY_S = 0.005  # of a request to the bucket
TIMEOUT_S = 2.0


class Bus:
    """What all links share. ``lost`` says of a subject whether a message to it is lost."""

    def __init__(self) -> None:
        self.links: list[MemoryLink] = []
        self.entries: dict[str, Entry] = {}
        self.revision = 0
        self.lost: Callable[[str], bool] = lambda subject: False
        self.sent: list[tuple[str, bytes]] = []

    def connect(self) -> Callable[[], Any]:
        """Return what opens a link, for a member."""

        @asynccontextmanager
        async def opened() -> AsyncIterator[MemoryLink]:
            link = MemoryLink(self)
            self.links.append(link)
            try:
                yield link
            finally:
                self.links.remove(link)

        return opened


class MemoryLink:
    """Has the methods of :class:`marketfeed.cluster.link.Link` that a member uses."""

    max_payload = 1 << 20

    def __init__(self, bus: Bus) -> None:
        self.up = True
        self.bucket_problem = ""
        self._bus = bus
        self._patterns: set[str] = set()
        self._send, self._receive = trio.open_memory_channel[Message](10_000)

    @property
    def state(self) -> LinkState:
        return LinkState.CONNECTED if self.up else LinkState.CONNECTING

    def subscribe(self, subject: str) -> None:
        pattern = re.escape(subject).replace(r"\*", "[^.]+").replace(">", ".+")
        self._patterns.add(pattern)

    def publish(self, subject: str, payload: bytes, *, urgent: bool = False) -> bool:
        if len(payload) > self.max_payload:
            raise ClusterError("too long")
        self._bus.sent.append((subject, payload))
        if not self.up or self._bus.lost(subject):
            return True
        for link in self._bus.links:
            if link.up and any(re.fullmatch(pattern, subject) for pattern in link._patterns):
                link._send.send_nowait(Message(subject, payload, 0))
        return True

    async def receive(self, most: int) -> list[Message]:
        found = [await self._receive.receive()]
        while len(found) < most:
            try:
                found.append(self._receive.receive_nowait())
            except trio.WouldBlock:
                break
        return found

    async def get(self, key: str) -> Entry | None:
        await self._request()
        return self._bus.entries.get(key)

    async def compare_and_set(self, key: str, value: bytes, revision: int) -> int | None:
        await self._request()
        now = self._bus.entries.get(key)
        if (0 if now is None else now.revision) != revision:
            return None
        self._bus.revision += 1
        self._bus.entries[key] = Entry(value, self._bus.revision)
        return self._bus.revision

    async def flush(self) -> None:
        await self._request()

    async def _request(self) -> None:
        await trio.sleep(DELAY_S if self.up else TIMEOUT_S)
        if not self.up:
            raise ClusterError("no answer")

    def statistics(self) -> LinkStatistics:
        return LinkStatistics(
            state=self.state,
            reason="" if self.up else "cut",
            server="memory",
            max_payload=self.max_payload,
            connects=1,
            link_restarts=0,
            sent=0,
            sent_bytes=0,
            received=0,
            received_bytes=0,
            dropped_out=0,
            dropped_in=0,
            oversized=0,
            waiting_out_bytes=0,
            waiting_in_bytes=0,
            bucket_problem=self.bucket_problem,
            breakers={},
        )
