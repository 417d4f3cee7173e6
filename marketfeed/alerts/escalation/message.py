"""What an escalation sends, what came of it, and the interface of the kinds of escalation.

A kind is a class registered under the entry-point group ``marketfeed.escalations``; built-in and third-party
kinds are found the same way. Its attribute ``Config`` is a frozen ``msgspec.Struct`` with
``forbid_unknown_fields``, which defines the keys of its ``[[alerts.escalate]]`` table besides those of
:class:`marketfeed.alerts.escalation.registry.Common`. The registry calls ``kind(config, setup)``.
"""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from marketfeed.alerts.alert import Alert
from marketfeed.core.units import US, S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from marketfeed.core.breaker import BreakerStatistics

Cause = Literal["raised", "cleared", "resolved"]


class End(msgspec.Struct, frozen=True, kw_only=True):
    """How an episode ended for the outside."""

    cause: Literal["cleared", "resolved"]  # resolved: a person has taken it on
    at_ns: int  # Unix
    by: str = ""  # who resolved it
    comment: str = ""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """News of one episode for the outside: that it lasts, or that it ended."""

    alert: Alert  # the episode's ``raised``
    end: End | None = None

    @property
    def cause(self) -> Cause:
        """Why it is sent."""
        return "raised" if self.end is None else self.end.cause

    @property
    def id(self) -> str:
        """Identifier of the message: the same over retries and after a restart, without a full stop."""
        return f"{self.cause}_{self.alert.key}"

    @property
    def at_ns(self) -> int:
        """When it happened, ns since the Unix epoch, by our clock if it is known."""
        return (self.alert.r_ns or self.alert.t_ns) if self.end is None else self.end.at_ns

    @property
    def summary(self) -> str:
        """One line on the episode for people."""
        return self.alert.message or " ".join(filter(None, (self.alert.rule, self.alert.symbol)))


def rfc3339(at_ns: int) -> str:
    """Return the time ``at_ns``, Unix, as ``2026-11-27T18:00:00.123456Z``."""
    at = datetime.datetime.fromtimestamp(at_ns // S, datetime.UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at_ns % S // US:06d}Z"


class Verdict(enum.StrEnum):
    """What came of an attempt to send a message."""

    DELIVERED = "delivered"
    FAILED = "failed"  # send it again later
    DEFERRED = "deferred"  # not attempted: the circuit breaker is open
    REFUSED = "refused"  # the peer will never accept this message
    GONE = "gone"  # the peer wants no message ever again: HTTP 410


class Outcome(msgspec.Struct, frozen=True):
    """What came of an attempt, and one line about it without secrets."""

    verdict: Verdict
    reason: str = ""  # such as "500 Internal Server Error" or "Connection refused"
    retry_after_s: float | None = None  # the least delay until the next attempt, as the peer requested it


class Sender(Protocol):
    """An instance of a kind of escalation: one ``[[alerts.escalate]]`` table."""

    batch: int  # messages that one call of `send` takes, at most
    resend_s: float | None  # a message that an episode lasts is sent again this often; None: once

    async def send(self, messages: Sequence[Message], now_ns: int) -> Outcome:
        """Send ``messages``, 1 to ``batch``, once; return what came of it, the same for all.

        ``now_ns`` is the wall clock, Unix. Returns within bounded time. Raises nothing but trio.Cancelled; a
        message may arrive although the outcome is ``FAILED``.
        """
        ...

    def statistics(self, now_ns: int) -> Mapping[str, BreakerStatistics]:
        """Return the state and the counters of each peer, by name; ``now_ns`` is the event loop's clock."""
        ...


@dataclass(frozen=True, slots=True)
class Setup:
    """What a kind of escalation gets besides its own configuration."""

    name: str  # of the escalation
    base: Path  # relative paths of the configuration start here
    environ: Mapping[str, str] = field(repr=False)  # may hold secrets


class Kind(Protocol):
    """A kind of escalation: a class, or any callable with ``Config``."""

    Config: type[msgspec.Struct]

    def __call__(self, config: Any, setup: Setup, /) -> Sender:
        """Return a sender; raises ConfigError (``key: what is allowed``). Opens no connection."""
        ...
