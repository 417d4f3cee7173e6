"""The answer of ``/v1/cluster`` on the admin port: this node, and all live nodes of its cluster."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from marketfeed.api.answers import Body
from marketfeed.api.fields import Count

ROLES: Final = ("both", "gateway", "ingest")
STATES: Final = ("joining", "live", "stale", "draining")


class ClusterNode(Body, frozen=True):
    """A node as of its last status, which is at most 5 s old."""

    node: Annotated[str, Meta(description="Its name.")]
    role: Annotated[str, Meta(extra_json_schema={"enum": list(ROLES)})]
    state: Annotated[
        str,
        Meta(
            description="Whether it serves sessions; `joining`: it has no ticks yet, `stale`: it does not "
            "hear the origin.",
            extra_json_schema={"enum": list(STATES)},
        ),
    ]
    shard: str
    origin: Annotated[bool, Meta(description="Whether it numbers the ticks of the shard.")]
    site: str
    url: Annotated[str, Meta(description="Where clients reach it; empty if it is not configured.")]
    term: Count
    epoch: Annotated[str, Meta(description="Empty while it joins.")]
    head: Annotated[Count, Meta(description="Its newest `g`.")]
    behind: Annotated[
        Count, Meta(description="Ticks after its newest one that another node of its epoch has.")
    ]
    sessions: Count
    capacity: Count
    release: str
    clock_offset_ms: Annotated[
        float,
        Meta(description="How far its wall clock is ahead of this node's, less the delay of a message."),
    ]


class ClusterAnswer(Body, frozen=True):
    """The cluster as one node sees it."""

    cluster: str
    shard: str
    node: Annotated[str, Meta(description="The node that answers.")]
    link: Annotated[str, Meta(extra_json_schema={"enum": ["connected", "connecting", "down"]})]
    holder: Annotated[str, Meta(description="The node that holds the lease as far as is known; else empty.")]
    problems: Annotated[list[str], Meta(description="Why this node serves no sessions, or should not.")]
    warnings: list[str]
    nodes: Annotated[list[ClusterNode], Meta(description="All live nodes, by name.")]
