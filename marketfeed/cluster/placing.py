"""Which other nodes this one may send its clients to. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketfeed.cluster.status import NodeState, Role

if TYPE_CHECKING:
    from marketfeed.cluster.nodes import Nodes
    from marketfeed.cluster.status import Status

UNEVEN: Final = 1.25  # a node above this multiple of the average gets no clients of others


def able_urls(own: Status, nodes: Nodes, now_ns: int) -> list[str]:
    """Return the URLs of the other nodes that can take clients of this one, by name of the node.

    They are live, on the same site and shard, below their capacity, and have at most 1.25 times the average
    sessions of such nodes.
    """
    able = [node.status for node in nodes.live(now_ns) if _takes(node.status, own)]
    most = UNEVEN * sum(status.sessions for status in able) / max(len(able), 1)
    return [status.url for status in able if status.sessions <= most]


def _takes(status: Status, own: Status) -> bool:
    """Return whether clients of ``own`` can go to the node with ``status``."""
    serves = status.url and status.url != own.url and status.role is not Role.INGEST
    near = (status.site, status.shard) == (own.site, own.shard)
    room = not status.capacity or status.sessions < status.capacity
    return bool(serves and near and room and status.state is NodeState.LIVE)
