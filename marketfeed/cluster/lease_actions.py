"""What a lease asks of its caller, and what it tells."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Get(NamedTuple):
    """Read the key; answer with ``got``, or ``failed``."""

    request: int


class CompareAndSet(NamedTuple):
    """Write ``value`` if the key has ``revision`` (0: if it is absent).

    Answer with ``was_set``, ``refused`` (it has another revision), or ``failed`` (the outcome is unknown).
    """

    request: int
    revision: int
    value: bytes


class Become(NamedTuple):
    """The node holds the lease from now on. It continues rings of ``epoch`` if it has them."""

    term: int
    epoch: str


class StopFeeds(NamedTuple):
    """Stop the feeds, send what they published, and call ``sealed``: the lease is being handed over."""

    successor: str


class Lost(NamedTuple):
    """The node does not hold the lease any more: stop feeds and frames at once."""

    term: int
    reason: str


class Problem(NamedTuple):
    """Something for the log that an operator should look at."""

    text: str


Action = Get | CompareAndSet | Become | StopFeeds | Lost | Problem


class Holder(NamedTuple):
    """Who holds the lease, by the newest value that was read or written."""

    node: str
    incarnation: str
    term: int
    epoch: str  # "" for a moment after a claim


class LeaseStatistics(msgspec.Struct):
    """State of a lease at one moment, and what it has counted."""

    holding: bool = False
    term: int = 0  # of the last time the node held it; 0: never
    renewals: int = 0
    claims: int = 0  # that succeeded
    refused: int = 0  # writes that another one preceded
    failed: int = 0  # requests without an answer in time
    damaged: int = 0  # values that could not be read
    rolled_back: int = 0  # revisions that were lower than one seen before
