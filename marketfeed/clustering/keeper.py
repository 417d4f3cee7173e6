"""Carries out what a lease asks for, over the link: each request is a task, and its answer goes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from marketfeed.cluster.lease_actions import Become, CompareAndSet, Get, Lost, Problem, StopFeeds
from marketfeed.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import trio

    from marketfeed.cluster.lease import Lease
    from marketfeed.cluster.lease_actions import Action
    from marketfeed.cluster.link import Link

log = structlog.get_logger()


class Keeper:
    """Keeps the lease ``key``. ``on_change`` is called when the node begins or ends to hold it."""

    def __init__(
        self,
        lease: Lease,
        key: str,
        link: Link,
        nursery: trio.Nursery,
        now_ns: Callable[[], int],
        on_change: Callable[[Become | Lost | StopFeeds], None],
    ) -> None:
        """Requests run in ``nursery``; ``now_ns`` is the clock of the lease."""
        self.lease = lease
        self._key, self._link, self._nursery = key, link, nursery
        self._now_ns, self._on_change = now_ns, on_change

    def do(self, actions: Iterable[Action]) -> None:
        """Do what the lease has returned."""
        for action in actions:
            match action:
                case Get():
                    self._nursery.start_soon(self._get, action)
                case CompareAndSet():
                    self._nursery.start_soon(self._set, action)
                case Problem(text):
                    log.warning("lease", problem=text)
                case _:
                    self._on_change(action)

    async def _get(self, action: Get) -> None:
        try:
            entry = await self._link.get(self._key)
        except ClusterError:  # the link logs why
            self.do(self.lease.failed(action.request, self._now_ns()))
            return
        found = None if entry is None else (entry.revision, entry.value)
        self.do(self.lease.got(action.request, found, self._now_ns()))

    async def _set(self, action: CompareAndSet) -> None:
        try:
            revision = await self._link.compare_and_set(self._key, action.value, action.revision)
        except ClusterError:
            self.do(self.lease.failed(action.request, self._now_ns()))
            return
        now_ns = self._now_ns()
        if revision is None:
            self.do(self.lease.refused(action.request, now_ns))
        else:
            self.do(self.lease.was_set(action.request, revision, now_ns))
