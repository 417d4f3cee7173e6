"""What a node shows of itself and its cluster: health, metrics, and the nodes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from marketfeed.admin.cluster_metrics import ClusterFigures
from marketfeed.api.cluster import ClusterAnswer, ClusterNode
from marketfeed.cluster.link_state import LinkState
from marketfeed.cluster.status import NodeState, Role
from marketfeed.core.units import MS
from marketfeed.gateway.overview import NodeNow
from marketfeed.server.conditions import Condition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from marketfeed.cluster.status import Status
    from marketfeed.clustering.member import Member

KIND: Final = "cluster"
# As clients know the states, by those of nodes.
_STATES: Final = {
    NodeState.JOINING: "starting",
    NodeState.LIVE: "ready",
    NodeState.STALE: "stale",
    NodeState.DRAINING: "draining",
}


class View:
    """Implements :class:`marketfeed.admin.cluster.ClusterSource` for ``member``."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def problems(self) -> list[Condition]:
        """Return why this node cannot serve sessions."""
        member = self._member
        if member.refused:
            return [Condition(KIND, "refused", f"cluster: refused: {member.refused}")]
        if member.course.joined.is_set():
            return []
        subject, why = self._awaited()
        return [Condition(KIND, subject, f"cluster: joining: {why}")]

    def _awaited(self) -> tuple[str, str]:
        """Return what a node that joins waits for: the subject of the condition, and its text."""
        member = self._member
        link = None if member.link is None else member.link.statistics()
        if link is None or link.state is not LinkState.CONNECTED:
            return "link", f"no connection to NATS: {'not opened yet' if link is None else link.reason}"
        if link.bucket_problem:
            return "bucket", link.bucket_problem
        if member.part is None:
            return "joining", "no other node is known to hold the lease"
        source = member.origin() or "(unknown)"
        return "joining", f"waits for the state of epoch {member.part.epoch}, whose origin is {source}"

    def warnings(self) -> list[Condition]:
        """Return conditions of the cluster that need attention."""
        return [Condition(KIND, subject, f"cluster: {text}") for subject, text in self._warnings()]

    def _warnings(self) -> Iterator[tuple[str, str]]:
        member = self._member
        if member.config.replicas == 1:
            yield "replicas", "replicas = 1: the loss of one NATS server stops it"
        if member.link is not None and member.course.joined.is_set():
            link = member.link.statistics()
            if link.state is not LinkState.CONNECTED:
                yield "link", f"no connection to NATS: {link.reason}"
            elif link.bucket_problem:
                yield "bucket", link.bucket_problem
        if member.pulse.stale:
            yield "stale", "the source of ticks is not heard"
        if member.course.problem:
            yield "role", f"the role could not change: {member.course.problem}"
        for text in member.nodes.overlaps(member.now_ns()):
            yield "overlap", text

    def _statuses(self) -> Iterator[tuple[Status, int]]:
        """Yield the status of each live node, by name, and how far its clock is ahead, in ns."""
        member = self._member
        own = member.pulse.status()
        others = [(node.status, node.clock_offset_ns) for node in member.nodes.live(member.now_ns())]
        yield from sorted([(own, 0), *others], key=lambda one: one[0].node)

    def clients(self) -> list[NodeNow]:
        """Return the nodes that clients can use."""
        return [
            NodeNow(one.url, one.site, one.sessions, one.capacity, _STATES[one.state], one.shard)
            for one, _ in self._statuses()
            if (one.url or one.node == self._member.node) and one.role is not Role.INGEST
        ]

    def answer(self) -> ClusterAnswer:
        """Return the cluster as this node sees it."""
        member, holder = self._member, self._member.lease.holder
        statuses = list(self._statuses())
        heads = Counter[tuple[str, str]]()
        for one, _ in statuses:
            heads[one.shard, one.epoch] = max(heads[one.shard, one.epoch], one.head)
        return ClusterAnswer(
            cluster=member.config.name,
            shard=member.config.shard,
            node=member.node,
            link=(LinkState.CONNECTING if member.link is None else member.link.state).value,
            holder="" if holder is None else holder.node,
            problems=[condition.text for condition in self.problems()],
            warnings=[condition.text for condition in self.warnings()],
            nodes=[
                ClusterNode(
                    one.node, one.role.value, one.state.value, one.shard, one.origin, one.site, one.url,
                    one.term, one.epoch, one.head, heads[one.shard, one.epoch] - one.head, one.sessions,
                    one.capacity, one.release, offset_ns / MS,
                )
                for one, offset_ns in statuses
            ],
        )  # fmt: skip

    def figures(self) -> ClusterFigures:
        """Return the values of the metrics."""
        member, part = self._member, self._member.part
        mirror = None if part is None else part.mirror
        return ClusterFigures(
            name=member.config.name,
            shard=member.config.shard,
            role=member.config.role,
            term=0 if part is None else part.term,
            head=0 if part is None else part.head,
            behind=0 if mirror is None else mirror.behind,
            stale=member.pulse.stale,
            held_bytes=0 if mirror is None else mirror.held_bytes,
            log_bytes=0 if part is None else part.log.held_bytes,
            sent_frames=member.frames,
            unsent_frames=member.fenced,
            answered=member.receiver.answered,
            bad_messages=member.receiver.bad,
            mirror=member.counts,
            lease=member.lease.statistics(),
            link=None if member.link is None else member.link.statistics(),
            table=member.nodes.statistics(),
            nodes=Counter(one.state.value for one, _ in self._statuses()),
        )
