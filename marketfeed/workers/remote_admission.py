"""Admission of sessions, latencies and feeds for a worker: the engine knows those of all workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from marketfeed.gateway.overview import EngineNow
from marketfeed.workers.messages import Admit, AskOverview, Down, Overview, Release, Verdict
from marketfeed.workers.requests import Requests

if TYPE_CHECKING:
    from marketfeed.gateway.overview import View
    from marketfeed.workers.channel import Channel


class RemoteAdmission:
    """Admission by the engine, which counts the sessions of all workers."""

    def __init__(self, channel: Channel[Down]) -> None:
        self._channel = channel
        self._requests: Requests[Verdict] = Requests()
        self._abandoned: dict[int, str] = {}  # addresses whose verdicts nobody waits for any more

    async def ask(self, address: str) -> str | None:
        """Count one more session from ``address``; return the limit that forbids it, None if none does."""
        with self._requests.open() as request:
            self._channel.send(Admit(request.number, address))
            try:
                await request.wait()
            except trio.Cancelled:
                # The engine counts the session all the same, so it has to be released.
                if request.response is None:
                    self._abandoned[request.number] = address
                elif request.response.limit is None:
                    self.release(address)
                raise
        assert request.response is not None
        return request.response.limit

    def answer(self, verdict: Verdict) -> None:
        """Pass on a verdict of the engine."""
        if not self._requests.respond(verdict.number, verdict):
            address = self._abandoned.pop(verdict.number)
            if verdict.limit is None:
                self.release(address)

    def release(self, address: str) -> None:
        """Count one session less."""
        self._channel.send(Release(address))


class RemoteOverview:
    """Implements :class:`marketfeed.gateway.overview.Overview`: asks the engine."""

    def __init__(self, channel: Channel[Down]) -> None:
        self._channel = channel
        self._requests: Requests[Overview] = Requests()

    async def latency(self) -> dict[str, Any]:
        """Return the body of ``/v1/latency`` on the admin port."""
        shown = await self._ask("latency")
        assert isinstance(shown, dict)
        return shown

    async def engine(self) -> EngineNow:
        """Return the state of the feeds and nodes."""
        now = await self._ask("engine")
        assert isinstance(now, EngineNow)
        return now

    async def _ask(self, view: View) -> dict[str, Any] | EngineNow:
        with self._requests.open() as request:
            self._channel.send(AskOverview(request.number, view))
            await request.wait()
        assert request.response is not None
        return request.response.shown

    def answer(self, overview: Overview) -> None:
        """Pass on a response of the engine."""
        self._requests.respond(overview.number, overview)
