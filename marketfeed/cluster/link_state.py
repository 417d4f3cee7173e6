"""State and figures of a link to NATS."""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec

from marketfeed.core.breaker import BreakerStatistics  # msgspec reads it


class LinkState(enum.StrEnum):
    """Whether messages pass."""

    CONNECTED = "connected"
    CONNECTING = "connecting"  # no server can be reached, or the connection was lost; attempts go on
    DOWN = "down"  # given up, such as for wrong credentials; the next attempt comes after a pause


class LinkStatistics(msgspec.Struct, frozen=True):
    """State of a link, and what it has counted since it was opened."""

    state: LinkState
    reason: str  # why it is not connected; "" if it is
    server: str  # host and port of the NATS server, also of the last one
    max_payload: int  # most bytes of a message that the server accepts; 0: not known yet
    connects: int
    link_restarts: int  # clients given up although they were connected
    sent: int  # messages
    sent_bytes: int
    received: int  # messages
    received_bytes: int
    dropped_out: int  # messages for which the queue had no room
    dropped_in: int
    oversized: int  # messages above max_payload, refused
    waiting_out_bytes: int
    waiting_in_bytes: int
    bucket_problem: str  # why the bucket cannot be used; "" if it can, or is not needed
    breakers: dict[str, BreakerStatistics]  # by peer: nats, and jetstream if the link has a bucket


class LinkCounts:
    """What the NATS thread counts; other threads only read it."""

    def __init__(self) -> None:
        self.connects = self.link_restarts = 0
        self.sent = self.sent_bytes = self.oversized = 0
        self.max_payload = 0  # of the last server


class State(NamedTuple):
    """News of the NATS thread: a change of the state."""

    state: LinkState
    detail: str  # the server if connected, else the reason


class Problem(NamedTuple):
    """News of the NATS thread: what does not work while it is connected; "" ends a problem of the bucket."""

    of_bucket: bool
    text: str
