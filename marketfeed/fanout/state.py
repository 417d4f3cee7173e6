"""States of a session in the fan-out, and the transitions between them."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class State(enum.Enum):
    """How a session receives its ticks at present.

    ================ ================================== ============================ =========================
    state            meaning                            entered when                 left to
    ================ ================================== ============================ =========================
    CATCHING_UP      has its own position; the shard    it enters the shard, leaves  LIVE, LAGGING, BLOCKED,
                     advances it towards its lane       its group, or its sink has   GONE
                                                        drained
    LIVE             member of a group; stands at the   it reaches the position of   CATCHING_UP, GONE
                     position of its lane               its lane
    LAGGING          catching up, with conflated        it missed too many ticks     CATCHING_UP,
                     quotes; the client was sent                                     LAGGING_BLOCKED, GONE
                     ``{"T":"lag","on":true}``
    BLOCKED          its sink holds unsent bytes, and   its sink did not take a      CATCHING_UP, GONE
                     the shard offers it nothing        whole frame
    LAGGING_BLOCKED  LAGGING and BLOCKED                its sink did not take a      LAGGING, GONE
                                                        whole frame
    GONE             ended; the shard removes it        its connection ends          —
                     between two flushes
    ================ ================================== ============================ =========================

    LAGGING_BLOCKED is a state of its own because both facts outlive each other: a lagging client remains
    so until it receives ``"on":false``, however often its socket fills in between. A live session whose
    sink fills passes CATCHING_UP on its way to BLOCKED, because it has to leave its group first.
    A session that is GONE may still be in its group until the flush in progress ends.
    """

    CATCHING_UP = enum.auto()
    LIVE = enum.auto()
    LAGGING = enum.auto()
    BLOCKED = enum.auto()
    LAGGING_BLOCKED = enum.auto()
    GONE = enum.auto()


class Event(enum.Enum):
    """What changes the state of a session."""

    JOIN = enum.auto()  # it has reached its lane's position
    LEAVE = enum.auto()  # it leaves its group
    BLOCK = enum.auto()  # its sink did not take a whole frame
    DRAIN = enum.auto()  # its sink holds no unsent bytes any more
    LAG = enum.auto()  # it missed too many ticks
    RECOVER = enum.auto()  # it has caught up after a lag, and its sink has room
    END = enum.auto()  # its connection ended


class IllegalTransitionError(Exception):
    """The fan-out has a bug: an event cannot occur in the session's state."""


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
    (State.CATCHING_UP, Event.JOIN): State.LIVE,
    (State.CATCHING_UP, Event.BLOCK): State.BLOCKED,
    (State.CATCHING_UP, Event.DRAIN): State.CATCHING_UP,  # of bytes that the shard did not send
    (State.CATCHING_UP, Event.LAG): State.LAGGING,
    (State.CATCHING_UP, Event.END): State.GONE,
    (State.LIVE, Event.LEAVE): State.CATCHING_UP,
    (State.LIVE, Event.END): State.GONE,
    (State.LAGGING, Event.BLOCK): State.LAGGING_BLOCKED,
    (State.LAGGING, Event.DRAIN): State.LAGGING,
    (State.LAGGING, Event.RECOVER): State.CATCHING_UP,
    (State.LAGGING, Event.END): State.GONE,
    (State.BLOCKED, Event.BLOCK): State.BLOCKED,  # an answer queued behind the unsent bytes
    (State.BLOCKED, Event.DRAIN): State.CATCHING_UP,
    (State.BLOCKED, Event.END): State.GONE,
    (State.LAGGING_BLOCKED, Event.BLOCK): State.LAGGING_BLOCKED,
    (State.LAGGING_BLOCKED, Event.DRAIN): State.LAGGING,
    (State.LAGGING_BLOCKED, Event.END): State.GONE,
    # A session that ends during a flush is still offered that flush, and leaves its group afterwards.
    (State.GONE, Event.LEAVE): State.GONE,
    (State.GONE, Event.BLOCK): State.GONE,
    (State.GONE, Event.END): State.GONE,
}


def after(state: State, event: Event) -> State:
    """Return the state that follows ``state`` upon ``event``; raises IllegalTransitionError."""
    following = TRANSITIONS.get((state, event))
    if following is None:
        raise IllegalTransitionError(f"{event.name} cannot occur in state {state.name}")
    return following
