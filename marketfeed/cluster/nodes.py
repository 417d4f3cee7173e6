"""The nodes of the cluster that are alive, as one of them knows them by their statuses. Pure.

Bounded: at most ``MAX_NODES`` nodes, each with a status of at most ``STATUS_BYTES``. A node is alive until
``EXPIRY_NS`` after its last status, by this node's monotonic clock.

Overlaps. Two clusters on the same subjects, and two processes with one node name, would damage each other.
The first is recognised by the cluster's name in each status, if a mapping of subjects in NATS leads one into
the other; two clusters of one name are not told apart. The second is recognised by two incarnations of one
node that take turns: a node that has restarted changes its incarnation once.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from marketfeed.cluster.rendezvous import rank_of
from marketfeed.cluster.status import Role, Status, StatusError, parse_status
from marketfeed.core.units import S

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_NODES: Final = 256
EXPIRY_NS: Final = 5 * S
OVERLAP_NS: Final = 60 * S  # for which an overlap is told after it was seen
_TURNS: Final = 5  # changes back to an earlier incarnation that are no late messages
_DELAYS: Final = 16  # of the newest statuses, for the offset of a clock


class NodesStatistics(msgspec.Struct):
    """What a table of nodes has counted."""

    damaged: int = 0  # statuses that could not be read
    late: int = 0  # statuses that came after a newer one, or twice
    over_limit: int = 0  # statuses of nodes beyond MAX_NODES
    foreign: int = 0  # statuses of another cluster on the same subjects


class Node:
    """A node as of its last status."""

    def __init__(self, status: Status, now_ns: int, wall_ns: int) -> None:
        self.status = status
        self.seen_ns = now_ns
        self._delays = deque([wall_ns - status.clock], _DELAYS)
        self._earlier: tuple[str, int] = ("", -1)  # incarnation and last seq before the present one
        self._turns = 0

    @property
    def clock_offset_ns(self) -> int:
        """How far the node's wall clock is ahead of ours, at least: the delay of messages lowers it."""
        return -min(self._delays, default=0)

    @property
    def is_double(self) -> bool:
        """Whether two processes use the node's name."""
        return self._turns >= _TURNS

    def take(self, status: Status, now_ns: int, wall_ns: int) -> bool:
        """Take a newer status; False if it is late or a copy."""
        present = (self.status.incarnation, self.status.seq)
        if status.incarnation == present[0] and status.seq <= present[1]:
            return False
        if status.incarnation == self._earlier[0]:
            if status.seq <= self._earlier[1]:
                return False
            self._turns += 1
        if status.incarnation != present[0]:
            self._earlier = present
            self._delays.clear()
        self.status, self.seen_ns = status, now_ns
        self._delays.append(wall_ns - status.clock)
        return True


class Nodes:
    """The table of nodes, and the overlaps that were seen."""

    def __init__(self, own: Status) -> None:
        """``own`` is this node's status; only its cluster, node and incarnation are used."""
        self._own = own
        self._nodes: dict[str, Node] = {}
        self._overlaps: dict[str, int] = {}  # text, and the time it was seen last
        self._namesakes = 0
        self._statistics = NodesStatistics()

    def statistics(self) -> NodesStatistics:
        """Return a copy of the counters."""
        return msgspec.structs.replace(self._statistics)

    def take(self, data: bytes, now_ns: int, wall_ns: int) -> Status | None:
        """Take a status as it was received; ``now_ns`` is monotonic.

        Returns it if it is a newer one of another node of this cluster. Raises StatusError.
        """
        try:
            status = parse_status(data)
        except StatusError:
            self._statistics.damaged += 1
            raise
        self._expire(now_ns)
        if status.cluster != self._own.cluster:
            self._statistics.foreign += 1
            text = f"the node {status.node} belongs to another cluster on these subjects"
            self._note(f"{text} ({status.cluster}, not {self._own.cluster})", now_ns)
            return None
        if status.node == self._own.node:
            self._take_own_name(status, now_ns)
            return None
        node = self._nodes.get(status.node)
        if node is None:
            if len(self._nodes) >= MAX_NODES:
                self._statistics.over_limit += 1
                return None
            self._nodes[status.node] = Node(status, now_ns, wall_ns)
            return status
        if not node.take(status, now_ns, wall_ns):
            self._statistics.late += 1
            return None
        if node.is_double:
            self._note(f"two processes use the node name {status.node}", now_ns)
        return status

    def live(self, now_ns: int) -> list[Node]:
        """Return the other nodes that are alive, by name."""
        self._expire(now_ns)
        return [self._nodes[name] for name in sorted(self._nodes)]

    def overlaps(self, now_ns: int) -> list[str]:
        """Return what an operator must separate, one text each; empty if all is well."""
        self._expire(now_ns)
        return sorted(self._overlaps)

    def rank(self, key: str, now_ns: int) -> int:
        """Return this node's place in the rendezvous order of the candidates for the lease ``key``."""
        return rank_of(key, self._own.node, self._candidates(now_ns))

    def _candidates(self, now_ns: int) -> Iterator[str]:
        for node in self.live(now_ns):
            if node.status.role is not Role.GATEWAY and node.status.shard == self._own.shard:
                yield node.status.node

    def _take_own_name(self, status: Status, now_ns: int) -> None:
        if status.incarnation == self._own.incarnation:
            return
        # An earlier process of this node has ended, but a few of its statuses may still arrive.
        self._namesakes += 1
        if self._namesakes > _TURNS:
            self._note(f"another process uses the name of this node, {status.node}", now_ns)

    def _note(self, text: str, now_ns: int) -> None:
        # A foreign cluster of many nodes must not fill the memory.
        if len(self._overlaps) < MAX_NODES or text in self._overlaps:
            self._overlaps[text] = now_ns

    def _expire(self, now_ns: int) -> None:
        for name in [name for name, node in self._nodes.items() if now_ns - node.seen_ns >= EXPIRY_NS]:
            del self._nodes[name]
        for text in [text for text, seen_ns in self._overlaps.items() if now_ns - seen_ns >= OVERLAP_NS]:
            del self._overlaps[text]
