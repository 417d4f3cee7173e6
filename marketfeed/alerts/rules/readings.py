"""What a rule measures, and what is found of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from marketfeed.alerts.alert import State
    from marketfeed.alerts.rules.episodes import Episodes
    from marketfeed.alerts.rules.ticks import Cause, Ints

BY_TIME: Final = 0  # an alert that a time caused comes before those of ticks at that time
BY_TICK: Final = 1


class Reading(NamedTuple):
    """One measurement of one symbol at one time."""

    at_ns: int
    hot: bool  # the condition holds
    cool: bool  # the condition is over; neither holds between threshold and clear_at
    value: float
    threshold: float
    cause: Cause | None = None  # None: time


class Found(NamedTuple):
    """An episode that begins or ends, and the place of its alert among those of the other rules."""

    at_ns: int
    by: int  # BY_TIME or BY_TICK
    g: int
    number: int  # of the symbol
    state: State
    reading: Reading
    suppressed: int
    episodes: Episodes  # of the rule


class Measured(Protocol):
    """Ticks that were measured: one channel, or both."""

    symbols: Ints
    at_ns: Ints

    def causes(self, indices: Ints) -> list[Cause]:
        """Return the causes of alerts that the ticks at ``indices`` are."""
        ...
