"""The status that each node publishes every second, as JSON, and its checks."""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec

from marketfeed.cluster.lease_value import EPOCH_BYTES, MAX_TERM
from marketfeed.core.cursor import EPOCH
from marketfeed.errors import MarketfeedError

STATUS_BYTES: Final = 16_384
MAX_FEEDS: Final = 128
_U63: Final = 2**63 - 1

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Text = Annotated[str, msgspec.Meta(max_length=64)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=_U63)]


class StatusError(MarketfeedError):
    """The status of a node is damaged or too large; it is dropped and counted."""


class Role(enum.StrEnum):
    """What a node may do."""

    BOTH = "both"  # serves sessions, and may be the origin
    GATEWAY = "gateway"  # serves sessions
    INGEST = "ingest"  # may be the origin


class NodeState(enum.StrEnum):
    """Whether a node can serve sessions."""

    JOINING = "joining"  # has not the state of the shard yet
    LIVE = "live"
    STALE = "stale"  # hears nothing from the origin
    DRAINING = "draining"  # is about to stop


class FeedStatus(msgspec.Struct, frozen=True):
    """A feed as a node sees it."""

    name: _Name
    state: _Text
    term: Annotated[int, msgspec.Meta(ge=0, le=MAX_TERM)] = 0  # of its own lease, 0 if it has none


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """One node at one moment. ``seq`` ascends within an incarnation, so that late ones are dropped."""

    cluster: _Name  # name of the cluster
    node: _Name
    incarnation: _Name
    seq: _Count
    role: Role
    state: NodeState
    shard: _Name
    origin: bool = False  # it numbers the ticks of the shard
    site: _Text = ""
    url: Annotated[str, msgspec.Meta(max_length=256)] = ""  # for clients; "" if they cannot connect
    release: _Text = ""
    epoch: Annotated[str, msgspec.Meta(max_length=EPOCH_BYTES)] = ""
    term: Annotated[int, msgspec.Meta(ge=0, le=MAX_TERM)] = 0
    head: _Count = 0
    sessions: _Count = 0
    capacity: _Count = 0  # most sessions; 0: not limited
    clock: Annotated[int, msgspec.Meta(ge=0, le=_U63)] = 0  # the node's wall clock, ns since the Unix epoch
    feeds: Annotated[list[FeedStatus], msgspec.Meta(max_length=MAX_FEEDS)] = []

    def encode(self) -> bytes:
        """Return the status as JSON."""
        return msgspec.json.encode(self)


_DECODER: Final = msgspec.json.Decoder(Status)


def parse_status(data: bytes) -> Status:
    """Parse the status of a node; raises StatusError."""
    if len(data) > STATUS_BYTES:
        raise StatusError(f"a status of {len(data)} bytes, more than {STATUS_BYTES}")
    try:
        status = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StatusError(f"not the status of a node: {error}: {data[:80]!r}") from error
    if status.epoch and not EPOCH.fullmatch(status.epoch):
        raise StatusError(f"not an epoch: {status.epoch!r}")
    texts = (status.cluster, status.node, status.incarnation, status.shard, status.site, status.release)
    feeds = tuple(text for feed in status.feeds for text in (feed.name, feed.state))
    if not all(text.isprintable() for text in (*texts, *feeds)):
        raise StatusError(f"a status with control characters: {status.node!r}")
    if status.url and not status.url.startswith(("http://", "https://")):
        raise StatusError(f"not a URL: {status.url!r}")
    if not status.url.isprintable() or " " in status.url:
        raise StatusError(f"not a URL: {status.url!r}")
    return status
