"""Interfaces between feeds and the engine. The only module of ingest that feeds import.

A feed type is a class (or any callable) registered under the entry-point group
``marketfeed.feeds``; built-in and third-party types are found the same way.
Its attribute ``Config`` is a frozen ``msgspec.Struct`` with ``forbid_unknown_fields``,
which defines the keys of its ``[[feeds]]`` table besides ``name``, ``type`` and ``required``.
The engine calls ``feed_type(config, intake)``.
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

    began_s: float  # trio's clock: the moment of began_ns
    began_ns: int  # recorded time of the earliest first tick of all feeds, ns since the Unix epoch
    from_ns: int  # earlier ticks are skipped: the feed joined after the others had passed them


class PendingBatch(Protocol):
    """Decoded ticks that a feed has not published yet; its clock publishes them in order of time."""

    @property
    def next_ns(self) -> int | None:
        """Recorded time of the first unpublished tick; None if all are published."""
        ...

    def publish(self, upto_ns: int, most: int) -> int:
        """Publish at most ``most`` ticks up to ``upto_ns``, inclusive; return how many. Never waits."""
        ...


class Clock(Protocol):
    """A clock of recorded time, shared by all feeds that name it; see ingest/clock.py."""

    async def begin(self, first_ns: int | None) -> Pass:
        """Wait until all feeds of the clock begin; ``first_ns`` is the first tick's time, if any."""
        ...

    async def wait_earliest(self, next_ns: int, pending: PendingBatch | None = None) -> int:
        """Wait until no other feed has a tick before ``next_ns``; return the last time before any of theirs.

        From then on :meth:`play` of any feed may publish from ``pending``.
        """
        ...

    def play(self, most: int) -> None:
        """Publish at most ``most`` pending ticks of all feeds in order of time, until a feed has none left.

        Call it after :meth:`wait_earliest` returned. It publishes for many feeds without task switches.
        """
        ...

    def end(self, finished: bool) -> None:
        """Leave the pass, ``finished`` or interrupted. Call it after each ``begin``."""
        ...


class Intake(Protocol):
    """Interface of the engine for one feed."""

    name: str  # configured name of the feed
    base: Path  # base of relative paths in the configuration
    log: structlog.typing.FilteringBoundLogger

    def symbol(self, name: str) -> int | None:
        """Return the id of ``name`` for records, or None if the table is full or the name is invalid.

        The engine counts and logs refusals. On None the feed skips the tick and continues.
        """
        ...

    def count(self, event: str, times: int = 1) -> None:
        """Increment the counter of an event, such as ``"broken_line"``: a metric by feed and event."""
        ...

    def clock(self, name: str, speed: float, loop: bool) -> Clock:
        """Return the clock ``name`` for this feed; "" is a clock of its own.

        Call it once, in the constructor. All feeds of a clock must have the same
        speed and loop; otherwise the configuration is refused.
        """
        ...

    async def wait_room(self) -> int:
        """Wait for the sessions that get every tick; return how many ticks may be published.

        For feeds whose source can wait, such as a file replayed as fast as possible. The feed publishes at
        most that many ticks, without a checkpoint in between, and calls this again. Feeds
        of live data never call it. A checkpoint.
        """
        ...


class Feed(Protocol):
    """A source of ticks. A feed with a wire format has a separate, pure decoding method."""

    start_sessions: int  # run once this many sessions are synced; 0: at once

    async def run(self, publish: Publish) -> None:
        """Publish ticks until the source ends.

        Return when the source is exhausted; the feed is not run again. On an
        exception the supervisor logs it and runs the feed again after a delay;
        FeedProtocolError and OSError are expected. SourceError ends the feed as
        failed: raise it if another run would publish the same ticks and stop at
        the same place. ``publish`` never waits; a feed that can outrun its
        sessions calls :meth:`Intake.wait_room` before each batch.
        """
        ...


class FeedType(Protocol):
    """Object registered in the entry-point group ``marketfeed.feeds``."""

    @property
    def Config(self) -> type[msgspec.Struct]:  # noqa: N802 - a class, under the name that feeds give it
        """The settings of a feed, as the configuration has them."""
        ...

    def __call__(self, config: Any, intake: Intake) -> Feed:
        """Construct the feed; raises ConfigError (``key: what is allowed``) if it can never run."""
        ...
