"""What the engine and its worker processes say to each other, and how it is framed.

A frame is eight bytes, ``version u32 | length u32`` little-endian, and then so
many bytes of MessagePack: one of the structs below, tagged with its name.
:class:`Connection` comes with a file descriptor beside it. Pure; the socket is
channel.py's.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

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
SPARE_FILES: Final = 64  # of a worker, for what is no connection
HEAD: Final = struct.Struct("<II")


class _Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    pass


# Down: from the engine to a worker.


class Start(_Message, frozen=True):
    """Serve like this; the first message. ``config`` is without feeds."""

    worker: int
    config: Config
    base: str  # relative paths in the configuration start here
    port: int  # the gateway's


class Connection(_Message, frozen=True):
    """Serve the socket that comes with this; answered by Taken or Returned, later by Ended."""

    number: int
    address: str


class Verdict(_Message, frozen=True):
    """The answer to an Admit: which limit forbids the session, None if none does."""

    number: int
    limit: str | None


class AskReport(_Message, frozen=True):
    """Send a Reported of this moment."""

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
    """The answer to an AskOverview: what ``/v1/latency`` shows, of all workers."""

    number: int
    shown: dict[str, Any]


class CheckAlive(_Message, frozen=True):
    """Send a Pong, at once."""


class Drain(_Message, frozen=True):
    """Tell every session that the engine ends, and end when all have gone, or ``drain_s`` later."""

    drain_s: float


class Retire(_Message, frozen=True):
    """Send every session elsewhere, and end when all have gone, or ``drain_s`` later.

    They are told one after the other over ``spread_s``.
    """

    drain_s: float
    spread_s: float


# Up: from a worker to the engine.


class Ready(_Message, frozen=True):
    """The worker takes connections."""

    release: str  # marketfeed.__version__
    files: int  # how many it may have open


class Failed(_Message, frozen=True):
    """The worker cannot serve, and ends."""

    reason: str


class Accepted(_Message, frozen=True):
    """The connection is the worker's now; said before its first byte is read."""

    number: int


class Returned(_Message, frozen=True):
    """The worker could not take the connection."""

    number: int


class Ended(_Message, frozen=True):
    """A connection that was Taken is closed."""

    number: int


class Admit(_Message, frozen=True):
    """May a session from ``address`` begin? Answered by a Verdict."""

    number: int
    address: str


class AskOverview(_Message, frozen=True):
    """A client wants to see the latencies of all workers; answered by an Overview."""

    number: int


class Release(_Message, frozen=True):
    """A session that was admitted has ended."""

    address: str


class Synced(_Message, frozen=True):
    """So many sessions have had their first `synced`."""

    count: int


class Reached(_Message, frozen=True):
    """The answer to an AskReached."""

    number: int


class Alive(_Message, frozen=True):
    """The worker lives."""


class Reported(_Message, frozen=True):
    """The worker's figures; ``number`` is that of the AskReport, 0 without one."""

    number: int
    report: ServerStats


class Measured(_Message, frozen=True):
    """What the worker measured in one interval."""

    intervals: list[Interval]


class Listed(_Message, frozen=True):
    """The answer to an AskListing."""

    number: int
    listing: SessionList


Down = (
    Start
    | Connection
    | Verdict
    | Overview
    | AskReport
    | AskListing
    | AskReached
    | CheckAlive
    | Drain
    | Retire
)
Up = (
    Ready
    | Failed
    | Accepted
    | Returned
    | Ended
    | Admit
    | AskOverview
    | Release
    | Synced
    | Reached
    | Alive
    | Reported
    | Measured
    | Listed
)

M = TypeVar("M")


def encode(message: Down | Up) -> bytes:
    """Return ``message`` as a whole frame."""
    payload = msgspec.msgpack.encode(message)
    return HEAD.pack(VERSION, len(payload)) + payload


class Unframer(Generic[M]):
    """Cuts what comes from a socket into messages of one direction."""

    def __init__(self, direction: type[M]) -> None:
        """``direction`` is :data:`Down` or :data:`Up`."""
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(direction)
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[M]:
        """Yield the messages that ``data`` completes; raises ControlError for what is none."""
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
