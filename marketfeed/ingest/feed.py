"""What a feed is, and what the engine gives it. The one module of ingest that feeds import.

A feed type is a class (or any callable) registered under the entry-point group
``marketfeed.feeds``; built-in and third-party types are found the same way.
It has a ``Config``, a frozen ``msgspec.Struct`` with ``forbid_unknown_fields``
that says which keys its ``[[feeds]]`` table takes beside ``name``, ``type`` and ``required``,
and is called as ``feed_type(config, intake)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from marketfeed.core.records import Batch

if TYPE_CHECKING:
    from pathlib import Path

    import msgspec
    import structlog

Publish = Callable[[Batch], None]


class Pass(NamedTuple):
    """One pass over the recordings of all feeds that share a clock."""

    began_s: float  # trio's clock: the moment that stands for began_ns
    began_ns: int  # recorded time, ns since the Unix epoch: of the earliest first tick of all feeds
    from_ns: int  # ticks before this are left out: the feed joined when the others were past them


class PendingBatch(Protocol):
    """What a feed has decoded and not published yet, for a clock that publishes it in its turn."""

    @property
    def next_ns(self) -> int | None:
        """Recorded time of its first tick that is not published yet; None: all are."""
        ...

    def publish(self, upto_ns: int, most: int) -> int:
        """Publish at most ``most`` ticks up to ``upto_ns``, inclusive; return how many. Never waits."""
        ...


class Clock(Protocol):
    """A clock of recorded time, shared by all feeds that named it; see ingest/clock.py."""

    async def begin(self, first_ns: int | None) -> Pass:
        """Wait until all feeds of the clock begin; ``first_ns`` is the first tick's time, None: no tick."""
        ...

    async def wait_earliest(self, next_ns: int, pending: PendingBatch | None = None) -> int:
        """Wait until no feed has a tick before ``next_ns``; return up to which time none has, inclusive.

        From then on :meth:`play` of any feed may publish from ``pending``.
        """
        ...

    def play(self, most: int) -> None:
        """Publish at most ``most`` ticks from the pieces of all feeds in order of time, until one needs more.

        To be called by a feed in its turn. Many turns are taken at once, without a switch of tasks for each.
        """
        ...

    def end(self, finished: bool) -> None:
        """Leave the pass, ``finished`` or broken off. To be called after each ``begin``."""
        ...


class Intake(Protocol):
    """The engine as one feed sees it."""

    name: str  # the feed's own, from its configuration
    base: Path  # relative paths in the configuration start here
    log: structlog.typing.FilteringBoundLogger

    def symbol(self, name: str) -> int | None:
        """Return the id of ``name`` for records, or None if it cannot be taken.

        None means the symbol table is full or the name is no symbol; that is
        counted and logged once, and the feed leaves the tick out and goes on.
        """
        ...

    def count(self, event: str, times: int = 1) -> None:
        """Count something worth knowing, such as ``"broken_line"``; a metric by feed and event."""
        ...

    def clock(self, name: str, speed: float, loop: bool) -> Clock:
        """Return this feed's place at the clock ``name``, "" for one of its own.

        To be called once, by the constructor. All feeds of a clock must have the
        same speed and loop; else the configuration is refused.
        """
        ...

    async def wait_room(self) -> int:
        """Wait for the sessions that get every tick; return how many ticks may then be published.

        For a feed whose source can wait, such as a file read as fast as possible: it publishes at
        most so many ticks, without waiting for anything in between, and calls this again. A
        feed of live data never calls it. A checkpoint.
        """
        ...


class Feed(Protocol):
    """One source of ticks. Where it has a wire format, decoding is a pure method of its own."""

    start_sessions: int  # run only once so many sessions are synced; 0: at once

    async def run(self, publish: Publish) -> None:
        """Bring ticks until the source ends.

        Returning means done: the feed is not run again. An exception means
        trouble: the supervisor logs it and runs the feed again after a delay
        (FeedProtocolError and OSError are the expected ones), except after a
        SourceError, which ends the feed as failed: raise it where another run
        would only publish the same ticks again up to the same place. ``publish``
        never waits; a feed that can outrun its sessions calls
        :meth:`Intake.wait_room` before each batch.
        """
        ...


class FeedType(Protocol):
    """What the entry-point group ``marketfeed.feeds`` holds."""

    Config: type[msgspec.Struct]

    def __call__(self, config: Any, intake: Intake) -> Feed:
        """Make the feed; raises ConfigError (``key: what is allowed``, each) if it can never run."""
        ...
