"""Metrics of the engine as a node of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from marketfeed.admin.families import counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.core import Metric

    from marketfeed.cluster.follower import MirrorCounts
    from marketfeed.cluster.lease_actions import LeaseStatistics
    from marketfeed.cluster.link_state import LinkStatistics
    from marketfeed.cluster.nodes import NodesStatistics

LINK_STATES: Final = ("connected", "connecting", "down")


class ClusterFigures(NamedTuple):
    """The values at one moment."""

    name: str  # of the cluster
    shard: str
    role: str
    term: int
    head: int
    behind: int  # ticks
    stale: bool
    held_bytes: int
    log_bytes: int
    sent_frames: int
    unsent_frames: int  # because the lease did not hold
    answered: int  # requests of other nodes
    bad_messages: int
    mirror: MirrorCounts
    lease: LeaseStatistics
    link: LinkStatistics | None  # None: not opened yet
    table: NodesStatistics
    nodes: Mapping[str, int]  # live ones by state, this one included


def cluster_metrics(now: ClusterFigures) -> Iterable[Metric]:
    """Return the metrics; those of an engine without a cluster do not exist."""
    yield from _of_node(now)
    yield from _of_mirror(now)
    yield from _of_lease(now)
    if now.link is not None:
        yield from _of_link(now.link)
    nodes = {(state,): number for state, number in now.nodes.items()}
    yield gauge("cluster_nodes", "Live nodes, this one included.", "state", nodes)
    table = now.table
    dropped = {"damaged": table.damaged, "late": table.late, "over_limit": table.over_limit}
    dropped["foreign"] = table.foreign
    statuses = {(reason,): number for reason, number in dropped.items()}
    yield counter(
        "cluster_statuses_dropped_total", "Statuses of nodes that were not used.", "reason", statuses
    )


def _of_node(now: ClusterFigures) -> Iterable[Metric]:
    text = "1, labelled with cluster.name, cluster.shard and cluster.role."
    yield gauge("cluster_role_info", text, "name shard role", {(now.name, now.shard, now.role): 1})
    text = "1 if this node numbers the ticks of its shard."
    yield gauge("cluster_origin", text, "", {(): now.lease.holding})
    yield gauge("cluster_term", "Term of the origin that this node is or follows.", "", {(): now.term})
    yield gauge("cluster_head", "Newest g in the rings.", "", {(): now.head})
    yield gauge(
        "cluster_behind_ticks", "Ticks that exist and are not in the rings yet.", "", {(): now.behind}
    )
    yield gauge("cluster_stale", "1 if the source of ticks is not heard.", "", {(): now.stale})
    yield gauge("cluster_held_bytes", "Frames that wait for missing ones.", "", {(): now.held_bytes})
    yield gauge("cluster_log_bytes", "Frames that repairs are answered from.", "", {(): now.log_bytes})
    yield counter("cluster_frames_sent_total", "Frames sent as the origin.", "", {(): now.sent_frames})
    text = "Frames not sent because the lease did not hold any more."
    yield counter("cluster_frames_unsent_total", text, "", {(): now.unsent_frames})
    text = "Requests of other nodes for ticks, names or a state that were answered."
    yield counter("cluster_answered_total", text, "", {(): now.answered})
    text = "Messages of other nodes that could not be read."
    yield counter("cluster_bad_messages_total", text, "", {(): now.bad_messages})


def _of_mirror(now: ClusterFigures) -> Iterable[Metric]:
    of = now.mirror
    yield counter("cluster_frames_total", "Frames of ticks written to the rings.", "", {(): of.frames})
    yield counter("cluster_duplicates_total", "Frames that had been written before.", "", {(): of.duplicates})
    yield counter("cluster_repairs_asked_total", "Requests for missing ticks.", "", {(): of.asked})
    yield counter("cluster_repaired_ticks_total", "Ticks written from answers.", "", {(): of.repaired})
    yield counter("cluster_states_asked_total", "Requests for a state.", "", {(): of.syncs})
    text = "States adopted because ticks were lost; readers were told."
    yield counter("cluster_adopted_total", text, "", {(): of.adopted})
    yield counter("cluster_fenced_total", "Frames of an earlier origin, dropped.", "", {(): of.fenced})
    bad = {("invalid",): of.bad, ("refused",): of.refused, ("overflow",): of.overflows, ("gone",): of.gone}
    yield counter("cluster_mirror_faults_total", "What a mirror could not use, by kind.", "kind", bad)


def _of_lease(now: ClusterFigures) -> Iterable[Metric]:
    lease = now.lease
    requests = {
        ("renewed",): lease.renewals, ("claimed",): lease.claims, ("refused",): lease.refused,
        ("failed",): lease.failed, ("damaged",): lease.damaged, ("rolled_back",): lease.rolled_back,
    }  # fmt: skip
    yield counter("cluster_lease_total", "Requests to the lease by outcome.", "outcome", requests)


def _of_link(link: LinkStatistics) -> Iterable[Metric]:
    states = {(state,): link.state.value == state for state in LINK_STATES}
    yield gauge("cluster_link_state", "1 for the state of the connection to NATS.", "state", states)
    yield counter("cluster_link_connects_total", "Connections to NATS.", "", {(): link.connects})
    text = "Clients of NATS that were replaced although they were connected."
    yield counter("cluster_link_restarts_total", text, "", {(): link.link_restarts})
    sent = {("out",): link.sent, ("in",): link.received}
    yield counter("cluster_link_messages_total", "Messages through NATS.", "direction", sent)
    size = {("out",): link.sent_bytes, ("in",): link.received_bytes}
    yield counter("cluster_link_bytes_total", "Bytes of messages through NATS.", "direction", size)
    dropped = {("out",): link.dropped_out, ("in",): link.dropped_in}
    text = "Messages for which cluster.queue_bytes had no room."
    yield counter("cluster_link_dropped_total", text, "direction", dropped)
    waiting = {("out",): link.waiting_out_bytes, ("in",): link.waiting_in_bytes}
    yield gauge("cluster_link_waiting_bytes", "Messages that wait in queues.", "direction", waiting)
