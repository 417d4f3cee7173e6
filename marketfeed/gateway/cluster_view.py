"""What a server of sessions is told of the cluster it is part of: the source of its ticks, and other nodes.

Without a cluster nobody tells it anything: its source counts as live, and it sends no client elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import trio

from marketfeed.cluster.rendezvous import rendezvous

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketfeed.api.messages import Source

STALE: Final = (("X-Source", "stale"),)  # header of answers while no ticks come


class ClusterView:
    """``source`` is None before the first report; ``urls`` are nodes that clients may be sent to."""

    def __init__(self) -> None:
        self.source: Source | None = None
        self.changed = trio.Event()  # the source
        self.urls: Sequence[str] = ()

    @property
    def stale(self) -> bool:
        """Return whether what is served may be out of date: the source of ticks is not heard."""
        return self.source is not None and self.source.state == "stale"

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the headers that answers get."""
        return STALE if self.stale else ()

    def message(self) -> bytes:
        """Return the state of the source as a JSON array of one message; there was a report."""
        return msgspec.json.encode((self.source,))

    def url_for(self, key: str) -> str | None:
        """Return the node for the client ``key``, None if there is none.

        By rendezvous hashing: clients spread over all nodes, and most keep theirs when the nodes change.
        """
        return next(iter(rendezvous(key, self.urls)), None)
