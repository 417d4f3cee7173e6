"""What the engine and its admin listener need of a server of sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    import trio

    from marketfeed.api.operations import SessionList
    from marketfeed.config.schema import Config
    from marketfeed.gateway.limits import Counters
    from marketfeed.server.conditions import Condition
    from marketfeed.server.gc_control import Collector
    from marketfeed.server.stats import ServerStats


class SessionServer(Protocol):
    """Serves sessions: in this process (:class:`LocalServer`) or in workers (:class:`WorkerPool`)."""

    collector: Collector
    counters: Counters
    wake: Callable[[], None]  # wakes every shard: there are new ticks; idempotent, repeated calls coalesce

    @property
    def synced_sessions(self) -> int:
        """Return how many sessions have had their first `synced`."""
        ...

    def __len__(self) -> int:
        """Return how many sessions there are."""
        ...

    async def wait_reached(self, g: int) -> None:
        """Return once every session on an ``every`` tier has taken its ticks up to ``g`` from the rings.

        At once if there is no such session; see fanout/slowest.py.
        """
        ...

    async def start(self, port: int, nursery: trio.Nursery) -> None:
        """Begin to serve, as the gateway on ``port``, in ``nursery``; raises StartError."""
        ...

    async def take(self, sock: socket.socket, address: str) -> None:
        """Have ``sock``, a fresh connection from ``address``, served."""
        ...

    async def drain(self, drain_s: float) -> None:
        """Ask every session to end; return when all have, or ``drain_s`` later."""
        ...

    async def reload(self, config: Config) -> None:
        """Serve by ``config``, where it differs in what may change; raises ConfigError and StartError."""
        ...

    async def statistics(self) -> ServerStats:
        """Return the figures of this moment."""
        ...

    def problems(self) -> list[Condition]:
        """Return why no subscriber can be served."""
        ...

    def warnings(self) -> list[Condition]:
        """Return what else is not as it should be."""
        ...

    async def listing(self, limit: int, only_slow: bool) -> SessionList:
        """Return at most ``limit`` sessions, the slow ones first or alone."""
        ...
