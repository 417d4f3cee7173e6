"""Messages between the engine and its worker processes: a struct each; framing.py encodes them. Pure.

A file descriptor accompanies each :class:`Connection`.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from marketfeed.access.material import Material
from marketfeed.access.quotas import Over
from marketfeed.access.revocations import Revocation
from marketfeed.access.usage import Report
from marketfeed.api.messages import Source
from marketfeed.api.operations import SessionList
from marketfeed.config.schema import AuthConfig, Config
from marketfeed.gateway.overview import EngineNow, View
from marketfeed.latency.intervals import Interval
from marketfeed.server.stats import ServerStats
from marketfeed.workers import desk_messages

SPARE_FILES: Final = 64  # descriptors that a worker reserves for other files than connections

# The last four: which error.
AlertsOutcome = Literal["done", "cancelled", "log", "refused", "conflict", "off"]


class _Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    pass


# Down: from the engine to a worker.


class Start(_Message, frozen=True):
    """The first message: how to serve. ``config`` contains no feeds, and of alerts only ``enabled``."""

    worker: int
    config: Config
    base: str  # the folder that relative paths in the configuration refer to
    port: int  # the gateway's
    material: Material | None = None  # for access control; None: there is none


class Connection(_Message, frozen=True):
    """Serve the socket that accompanies this message.

    Answered by Accepted, and later Ended, or by Returned.
    """

    number: int
    address: str


class Verdict(_Message, frozen=True):
    """Response to an Admit: the limit that forbids the session, None if none does."""

    number: int
    limit: str | None


class AlertsAnswered(_Message, frozen=True):
    """Response to an AskAlerts, which a CancelAlerts may have ended."""

    number: int
    outcome: AlertsOutcome
    result: bytes = b""  # JSON, if done
    reason: str = ""  # of an error


class AccessChanged(_Message, frozen=True):
    """Use these keys, tenants and revocations from now on. Answered by an AccessTaken."""

    number: int
    auth: AuthConfig
    material: Material
    revocation: Revocation | None = None  # the reason, if it is a new one


class DeskAnswered(_Message, frozen=True):
    """Response to an AskDesk: the result, or why the call was refused."""

    number: int
    result: desk_messages.Result = None
    refusal: str = ""

    def __repr__(self) -> str:
        return f"DeskAnswered({self.number})"


class EndSession(_Message, frozen=True):
    """End this session, if the worker serves it."""

    session: str
    code: int  # a CloseCode


class AskReport(_Message, frozen=True):
    """Send a Reported now."""

    number: int


class AskListing(_Message, frozen=True):
    """Send a Listed."""

    number: int
    limit: int
    only_slow: bool


class AskReached(_Message, frozen=True):
    """Send a Reached once every session on an ``every`` tier has taken its ticks up to ``g``."""

    number: int
    g: int


class Overview(_Message, frozen=True):
    """Response to an AskOverview: the body of ``/v1/latency`` for all workers, or the state of the engine."""

    number: int
    shown: dict[str, Any] | EngineNow


class CheckAlive(_Message, frozen=True):
    """Send an Alive at once."""


class Limit(_Message, frozen=True):
    """These tenants, and no others, exceed a quota."""

    over: list[Over]


class SourceChanged(_Message, frozen=True):
    """The source of ticks is in this state."""

    source: Source


class Elsewhere(_Message, frozen=True):
    """Clients are sent to these nodes when the engine drains."""

    urls: list[str]


class Drain(_Message, frozen=True):
    """Close every session because the engine ends; end when all are closed, or after ``drain_s``."""

    drain_s: float


class Retire(_Message, frozen=True):
    """Close every session, so that its client reconnects; end when all are closed, or after ``drain_s``.

    The closes are spread over ``spread_s``; if that is None, the clients' delays are.
    """

    drain_s: float
    spread_s: float | None


# Up: from a worker to the engine.


class Ready(_Message, frozen=True):
    """The worker accepts connections."""

    release: str  # marketfeed.__version__
    files: int  # that the worker may have open


class Failed(_Message, frozen=True):
    """The worker cannot serve, and will end."""

    reason: str


class Accepted(_Message, frozen=True):
    """The worker owns the connection. Sent before its first byte is read."""

    number: int


class Returned(_Message, frozen=True):
    """The worker could not accept the connection."""

    number: int


class Ended(_Message, frozen=True):
    """A connection that was Accepted is closed."""

    number: int


class Admit(_Message, frozen=True):
    """Ask whether a session from ``address`` may begin. Answered by a Verdict."""

    number: int
    address: str


class AskOverview(_Message, frozen=True):
    """Ask, for a client, for what only the engine knows. Answered by an Overview."""

    number: int
    view: View = "latency"


class AskAlerts(_Message, frozen=True):
    """Make a call of alert_messages.py, in JSON. Answered by an AlertsAnswered."""

    number: int
    call: bytes


class CancelAlerts(_Message, frozen=True):
    """Cancel the call of AskAlerts ``number``, unless it is answered already."""

    number: int


class LeaveAlerts(_Message, frozen=True):
    """A session takes no more alerts. Not answered."""

    session: str


class AskDesk(_Message, frozen=True):
    """Make a call of desk_messages.py. Answered by a DeskAnswered."""

    number: int
    call: desk_messages.Call


class CancelDesk(_Message, frozen=True):
    """Cancel the call of AskDesk ``number``, unless it is answered already."""

    number: int


class LeaveDesk(_Message, frozen=True):
    """A session that entered has ended. Not answered."""

    session: str


class AccessTaken(_Message, frozen=True):
    """Response to an AccessChanged: how many sessions end by its revocation."""

    number: int
    sessions: int


class Release(_Message, frozen=True):
    """A session that was admitted has ended."""

    address: str


class Synced(_Message, frozen=True):
    """How many sessions have had their first `synced`."""

    count: int


class Reached(_Message, frozen=True):
    """Response to an AskReached."""

    number: int


class Alive(_Message, frozen=True):
    """Response to a CheckAlive."""


class Reported(_Message, frozen=True):
    """The worker's statistics: the response to AskReport ``number``, or unasked with number 0."""

    number: int
    report: ServerStats


class Measured(_Message, frozen=True):
    """The latencies that the worker measured in one interval."""

    intervals: list[Interval]


class Metered(_Message, frozen=True):
    """What users got in one interval."""

    report: Report


class Listed(_Message, frozen=True):
    """Response to an AskListing."""

    number: int
    listing: SessionList


Down = (
    Start
    | Connection
    | Verdict
    | Overview
    | AlertsAnswered
    | AccessChanged
    | DeskAnswered
    | EndSession
    | AskReport
    | AskListing
    | AskReached
    | CheckAlive
    | Limit
    | SourceChanged
    | Elsewhere
    | Drain
    | Retire
)
# Of the worker itself.
Status = Alive | Accepted | Ended | Reported | Reached | Listed | AccessTaken | Failed | Ready
ForAlerts = AskAlerts | CancelAlerts | LeaveAlerts
ForDesk = AskDesk | CancelDesk | LeaveDesk
Up = Status | ForAlerts | ForDesk | Returned | Admit | AskOverview | Release | Synced | Measured | Metered
