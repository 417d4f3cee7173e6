"""What a mirror asks its owner to do, in order. A node of None is the origin."""

from __future__ import annotations

import msgspec

from marketfeed.cluster.repairs import NamesRequest, TicksRequest


class Action(msgspec.Struct, frozen=True, tag=True):
    """One thing to do."""


class Wrote(Action, frozen=True):
    """Ticks up to ``head`` can be read in the rings: ring the doorbell."""

    head: int


class Ask(Action, frozen=True):
    """Send the request to ``node``, and pass each part of the answer to :meth:`Mirror.answer`."""

    node: str | None
    request: TicksRequest | NamesRequest


class AskSync(Action, frozen=True):
    """Fetch a state from ``node``, and pass each part to :meth:`Mirror.state_part` with ``number``.

    Answers to earlier requests may be dropped.
    """

    node: str | None
    number: int
    reason: str


class Ready(Action, frozen=True):
    """The rings hold the state as of ``head``, and what has arrived since: sessions can be served."""

    head: int


class Adopted(Action, frozen=True):
    """Ticks between ``after`` and ``head`` are lost: readers are told by the rings."""

    after: int
    head: int
    reason: str


class Rebuild(Action, frozen=True):
    """Another origin has taken over: make new rings and a new mirror for it. This mirror has ended."""

    term: int
    epoch: str


class OtherEpoch(Action, frozen=True):
    """Frames of another origin with this mirror's term arrive: read the lease, and pass it to `lease`."""

    term: int
    epoch: str


class Refused(Action, frozen=True):
    """This node cannot mirror the shard before its configuration is changed. The mirror has ended."""

    reason: str


class Stale(Action, frozen=True):
    """Nothing has arrived from the origin for ``stale_ns``: tell the sessions."""

    since_ns: int  # when the last frame arrived


class Live(Action, frozen=True):
    """Frames of the origin arrive again: tell the sessions."""


class HandedOver(Action, frozen=True):
    """The origin has ended in order, and all its ticks, up to ``final_g``, are in the rings."""

    final_g: int


class BadFrame(Action, frozen=True):
    """A frame or an answer was dropped: log the reason, at a limited rate."""

    reason: str
