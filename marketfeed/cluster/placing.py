"""Which node serves a session, and when this node sends its sessions to others. Pure."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from marketfeed.cluster.rendezvous import rendezvous
from marketfeed.cluster.status import NodeState, Role
from marketfeed.core.units import S

if TYPE_CHECKING:
    from marketfeed.cluster.nodes import Node, Nodes
    from marketfeed.cluster.status import Status

STALE_NS: Final = 10 * S  # for which a node keeps its sessions although others hear the origin
UNEVEN: Final = 1.25  # a node above this multiple of the average gets no sessions of others


class Row(NamedTuple):
    """One node of ``GET /v1/nodes``."""

    url: str
    site: str
    sessions: int
    capacity: int
    state: NodeState


class Cause(enum.StrEnum):
    """Why sessions are sent away."""

    DRAINING = "draining"
    CAPACITY = "capacity"
    STALE = "stale"


class Move(NamedTuple):
    """Sessions to send to other nodes."""

    cause: Cause
    sessions: int


def rows(own: Status, nodes: Nodes, now_ns: int, shard: str = "") -> list[Row]:
    """Return the nodes that clients can connect to, this one included, by name; "" is every shard."""
    statuses = [own, *(node.status for node in nodes.live(now_ns))]
    return [
        Row(status.url, status.site, status.sessions, status.capacity, status.state)
        for status in sorted(statuses, key=lambda status: status.node)
        if status.url and status.role is not Role.INGEST and shard in ("", status.shard)
    ]


def elsewhere(own: Status, nodes: Nodes, key: str, now_ns: int) -> str:
    """Return the URL of another node for the session ``key``, "" if none can take it.

    ``key`` is the subject of the session's token, else its address. The node is the first one in the
    rendezvous order of ``key`` on the same site and shard that is live, below its capacity, and has at most
    1.25 times the average sessions of such nodes. Sessions that were sent to a node since its last status
    count there.
    """
    able = {node.status.node: node for node in nodes.live(now_ns) if _takes(node, own)}
    if not able:
        return ""
    most = UNEVEN * sum(_sessions(node) for node in able.values()) / len(able)
    for name in rendezvous(key, able):
        if _sessions(able[name]) <= most:
            able[name].sent_here += 1
            return able[name].status.url
    return ""


def able_urls(own: Status, nodes: Nodes, now_ns: int) -> list[str]:
    """Return the URLs of the other nodes that can take sessions of this one, by name of the node."""
    return [node.status.url for node in nodes.live(now_ns) if _takes(node, own)]


def _sessions(node: Node) -> int:
    return node.status.sessions + node.sent_here


def _takes(node: Node, own: Status) -> bool:
    """Return whether sessions of ``own`` can go to ``node``."""
    status = node.status
    serves = status.url and status.url != own.url and status.role is not Role.INGEST
    near = (status.site, status.shard) == (own.site, own.shard)
    room = not status.capacity or _sessions(node) < status.capacity
    return bool(serves and near and room and status.state is NodeState.LIVE)


def due_move(own: Status, nodes: Nodes, stale_since_ns: int | None, now_ns: int) -> Move | None:
    """Return how many sessions this node should send away now, and why; None if none.

    ``stale_since_ns`` is the time since which this node does not hear the origin, None if it does. A node
    that is stale keeps its sessions for 10 s, and longer if every other node is stale too. Over its
    capacity, it sends away what is too much.
    """
    if not own.sessions or not any(_takes(node, own) for node in nodes.live(now_ns)):
        return None
    if own.state is NodeState.DRAINING:
        return Move(Cause.DRAINING, own.sessions)
    if stale_since_ns is not None and now_ns - stale_since_ns >= STALE_NS:
        return Move(Cause.STALE, own.sessions)
    if own.capacity and own.sessions > own.capacity:
        return Move(Cause.CAPACITY, own.sessions - own.capacity)
    return None
