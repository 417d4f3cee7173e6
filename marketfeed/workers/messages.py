"""Messages between the engine and its worker processes, and their framing.

A frame is a header of eight bytes, ``version u32 | length u32`` little-endian, and ``length``
bytes of MessagePack: one of the structs below, tagged with its name. A file descriptor
accompanies each :class:`Connection`. Pure: channel.py does the I/O.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

import msgspec

from marketfeed.api.operations import SessionList
from marketfeed.config.schema import Config
from marketfeed.errors import ControlError
from marketfeed.latency.intervals import Interval
from marketfeed.server.stats import ServerStats

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION: Final = 1
MAX_FRAME_BYTES: Final = 1 << 26
SPARE_FILES: Final = 64  # descriptors that a worker reserves for other files than connections
HEAD: Final = struct.Struct("<II")

AlertsOutcome = Literal["done", "cancelled", "log", "refused", "off"]  # the last three: which error


class _Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    pass


# Down: from the engine to a worker.


class Start(_Message, frozen=True):
    """The first message: how to serve. ``config`` contains no feeds, and of alerts only ``enabled``."""

    worker: int
    config: Config
    base: str  # the folder that relative paths in the configuration refer to
    port: int  # the gateway's


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
    """Response to an AskOverview: the body of ``/v1/latency``, for all workers."""

    number: int
    shown: dict[str, Any]


class CheckAlive(_Message, frozen=True):
    """Send an Alive at once."""


class Drain(_Message, frozen=True):
    """Close every session because the engine ends; end when all are closed, or after ``drain_s``."""

    drain_s: float


class Retire(_Message, frozen=True):
    """Close every session, so that its client reconnects; end when all are closed, or after ``drain_s``.

    The closes are spread over ``spread_s``.
    """

    drain_s: float
    spread_s: float


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
    """Ask for the latencies of all workers, for a client. Answered by an Overview."""

    number: int


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
    | AskReport
    | AskListing
    | AskReached
    | CheckAlive
    | Drain
    | Retire
)
Status = Alive | Accepted | Ended | Reported | Reached | Listed | Failed | Ready  # of the worker itself
ForAlerts = AskAlerts | CancelAlerts | LeaveAlerts
Up = Status | ForAlerts | Returned | Admit | AskOverview | Release | Synced | Measured

M = TypeVar("M")


def encode(message: Down | Up) -> bytes:
    """Return ``message`` as a whole frame."""
    payload = msgspec.msgpack.encode(message)
    return HEAD.pack(VERSION, len(payload)) + payload


class Unframer(Generic[M]):
    """Incremental decoder of the frames of one direction."""

    def __init__(self, direction: type[M]) -> None:
        """``direction`` is :data:`Down` or :data:`Up`."""
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(direction)
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[M]:
        """Yield the messages that ``data`` completes; raises ControlError for invalid frames."""
        self._data += data
        while len(self._data) >= HEAD.size:
            version, length = HEAD.unpack_from(self._data)
            if version != VERSION:
                raise ControlError(f"control messages of version {version}, not {VERSION}")
            if length > MAX_FRAME_BYTES:
                raise ControlError(f"a control message of {length} bytes")
            end = HEAD.size + length
            if len(self._data) < end:
                return
            payload = bytes(memoryview(self._data)[HEAD.size : end])
            del self._data[:end]
            try:
                yield self._decoder.decode(payload)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ControlError(f"not a control message: {error}") from None
