"""The interface of a server of sessions, for the engine and the admin listener."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    import trio

    from marketfeed.access.material import Material
    from marketfeed.access.quotas import Over
    from marketfeed.access.revocations import Revocation
    from marketfeed.alerts.service import AlertService
    from marketfeed.api.messages import Source
    from marketfeed.api.operations import SessionList
    from marketfeed.config.schema import AuthConfig, Config
    from marketfeed.errors import CloseCode
    from marketfeed.fanout.ledger import Ledger
    from marketfeed.gateway.limits import Counters
    from marketfeed.server.conditions import Condition
    from marketfeed.server.gc_control import Collector
    from marketfeed.server.stats import ServerStats


class SessionServer(Protocol):
    """A server of sessions: in this process (:class:`LocalServer`) or in workers (:class:`WorkerPool`)."""

    collector: Collector
    counters: Counters
    alerts: AlertService | None  # for sessions; to be set before the start; None = alerts are off
    wake: Callable[[], None]  # wakes every shard; idempotent, repeated calls coalesce

    @property
    def synced_sessions(self) -> int:
        """Return how many sessions were sent their first `synced`."""
        ...

    def __len__(self) -> int:
        """Return the number of sessions."""
        ...

    async def wait_reached(self, g: int) -> None:
        """Return once every session on an ``every`` tier has read its ticks up to ``g`` from the rings.

        Returns at once if there is no such session; see fanout/slowest.py.
        """
        ...

    async def start(self, port: int, nursery: trio.Nursery) -> None:
        """Start to serve in ``nursery``; ``port`` is the gateway's. Raises StartError."""
        ...

    async def take(self, sock: socket.socket, address: str) -> None:
        """Serve ``sock``, a new connection from ``address``."""
        ...

    def limit(self, over: list[Over]) -> None:
        """Apply that the tenants in ``over``, and no others, exceed a quota."""
        ...

    def source_state(self, source: Source) -> None:
        """Tell every session the state of the source of ticks, and mark snapshots while it is stale.

        Also holds for sessions and processes that begin later.
        """
        ...

    def elsewhere(self, urls: Sequence[str]) -> None:
        """Name the nodes that clients are sent to when the engine drains; () for none."""
        ...

    async def drain(self, drain_s: float) -> None:
        """End every session; return when all have ended, at the latest after ``drain_s``."""
        ...

    async def retire(self, drain_s: float, spread_s: float | None) -> None:
        """Close every session, so that its client reconnects to another server; return when all have ended.

        At the latest after ``drain_s``. The closes are spread over ``spread_s``; if that is None, the
        clients' delays are, over the time in which their handshakes can be served.
        """
        ...

    async def reload(self, config: Config) -> None:
        """Apply the settings of ``config`` that may change; raises ConfigError and StartError."""
        ...

    def renew_access(self, auth: AuthConfig, material: Material) -> None:
        """Use other keys, tenants and revocations, which were checked. May come before the start."""
        ...

    async def revoke(self, auth: AuthConfig, material: Material, revocation: Revocation) -> int:
        """Do so because of ``revocation``; return how many sessions it ends, once all processes do so."""
        ...

    def end_session(self, session: str, code: CloseCode) -> None:
        """End the session with this id, if there is one."""
        ...

    async def statistics(self) -> ServerStats:
        """Return the present statistics."""
        ...

    async def ledgers(self) -> dict[str, Ledger]:
        """Return the sums of all ledgers by tier; they may be some seconds old."""
        ...

    def problems(self) -> list[Condition]:
        """Return the reasons why no subscriber can be served."""
        ...

    def warnings(self) -> list[Condition]:
        """Return conditions that need attention while subscribers are served."""
        ...

    async def listing(self, limit: int, only_slow: bool) -> SessionList:
        """Return at most ``limit`` sessions, the slow ones first; only these if ``only_slow``."""
        ...
