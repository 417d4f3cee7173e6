"""One escalation at one moment, and what the schedule keeps beside it."""

from __future__ import annotations

from typing import Literal

import msgspec

from marketfeed.alerts.alert import Alert, Severity
from marketfeed.alerts.escalation.message import End, Message

Phase = Literal["waiting", "sending", "sent", "ending"]
Key = tuple[str, str]  # name of the escalation, key of the episode


class Plan(msgspec.Struct, frozen=True):
    """What one ``[[alerts.escalate]]`` table says about when it sends."""

    name: str
    severity: Severity  # the least that escalates
    after_s: float  # from the raised alert to the first message
    resend_s: float | None = None  # from one message that an episode lasts to the next; None: one is enough
    batch: int = 1  # messages sent at a time, at most


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """One escalation that has something to send or to wait for."""

    name: str
    alert: Alert  # the episode's ``raised``
    phase: Phase = "waiting"
    since_ns: int  # Unix; when the delay `wait_ns` began
    wait_ns: int | None  # until the next message; None: nothing is to be sent
    tries: int = 0  # failed attempts in a row
    end: End | None = None  # in the phase "ending"

    @property
    def key(self) -> Key:
        """Its identity: one escalation per table and episode."""
        return self.name, self.alert.key

    @property
    def message(self) -> Message:
        """What is to be sent next."""
        return Message(alert=self.alert, end=self.end)

    @property
    def due_ns(self) -> int | None:
        """When it is to be sent, Unix; None if it waits for the end of the episode."""
        return None if self.wait_ns is None else self.since_ns + self.wait_ns


class Figures(msgspec.Struct):
    """Counters of one escalation since the schedule's construction, in messages."""

    delivered: int = 0
    failed: int = 0  # attempts
    deferred: int = 0  # attempts not made because the circuit breaker was open
    refused: int = 0  # dropped: the peer will never accept them
    given_up: int = 0  # dropped: no success for GIVE_UP_S after the end of the episode
    cancelled: int = 0  # episodes that ended before anything was sent
