"""Changes of a node between origin and mirror, one after the other: the newest wish replaces earlier ones.

    lease ──► Lead, Halt ──┐
    lease, mirror ──► Follow ──► Course ──► Succession.exchange, Succession.feed_with
    mirror ready ──────────┘

A mirror of a new epoch is written before sessions are on it: until then, these stay on the rings that they
have, which are stale. If the epoch goes on under another term, the rings stay, and no session is closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import structlog
import trio

from marketfeed.builder import Beginning
from marketfeed.clustering.part import Part, newest
from marketfeed.errors import MarketfeedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from marketfeed.cluster.state import Sizes
    from marketfeed.clustering.part import OriginWriter, Terms
    from marketfeed.core.writer import RingWriter
    from marketfeed.engine import Engine
    from marketfeed.server.life import Life

RETRY_S: Final = 1.0  # after a change that failed

log = structlog.get_logger()


class Lead(NamedTuple):
    """Become the origin."""

    term: int
    epoch: str


class Follow(NamedTuple):
    """Mirror an origin; ``anew``: in new rings even if there are some of its epoch."""

    term: int
    epoch: str
    anew: bool = False


class Halt(NamedTuple):
    """Stop the feeds; the rings stay as they are. ``then`` is called with the last ``g``."""

    then: Callable[[int], Awaitable[None]] | None = None


Wish = Lead | Follow | Halt


class Course:
    """The present part of ``engine``."""

    def __init__(
        self, engine: Engine, sizes: Sizes, terms: Terms, on_follow: Callable[[Part, bool], None]
    ) -> None:
        """``on_follow`` starts the mirror of a part; the flag says whether the rings have all its ticks."""
        self.part: Part | None = None
        self.joined = trio.Event()  # set when sessions can be served
        self.problem = ""  # why the last change failed
        self._engine, self._sizes, self._terms, self._on_follow = engine, sizes, terms, on_follow
        self._wish: Wish | None = None
        self._present: Wish | None = None  # that was carried out last, or is
        self._woken = trio.Event()

    def wish(self, wish: Wish) -> None:
        """Have ``wish`` carried out next, instead of those that wait."""
        if wish != (self._wish or self._present) or isinstance(wish, Halt):
            self._wish = wish
            self.wake()

    def wake(self) -> None:
        """Have the part served if its mirror is ready."""
        self._woken.set()

    async def run(self) -> None:
        """Carry out wishes until cancelled. Raises what prevents the node from being the origin.

        Other changes are tried again.
        """
        while True:
            await self._woken.wait()
            self._woken = trio.Event()
            wish, self._wish = self._wish, None
            try:
                if wish is not None:
                    self._present = wish
                    await self._carry_out(wish)
                part = self.part
                if part is not None and part.mirror is not None and part.ready and not part.served:
                    await self._serve(part)
                self.problem = ""
            except (MarketfeedError, ValueError) as error:
                if isinstance(wish, Lead):
                    raise  # it holds the lease, and another node can take over when this one has ended
                self.problem = str(error)
                log.error("the change of the node's role failed; it is tried again", reason=self.problem)
                await trio.sleep(RETRY_S)
                self._wish = self._wish or wish
                self.wake()

    async def _carry_out(self, wish: Wish) -> None:
        match wish:
            case Lead(term, epoch):
                await self._lead(term, epoch)
            case Follow():
                await self._follow(wish)
            case Halt(then):
                await self._stop_feeds()
                if then is not None and self.part is not None:
                    await then(self.part.head)

    async def _stop_feeds(self) -> None:
        if self._engine.lives.now.writer is not None:
            await self._engine.succession.feed_with(None)

    async def _lead(self, term: int, epoch: str) -> None:
        part = self.part
        if part is not None and part.epoch == epoch and part.ready:
            if not part.served:
                await self._serve(part)
            log.info("origin", term=term, epoch=epoch, goes_on_after=part.head)
            await self._engine.succession.feed_with(part.lead(term))
            return
        before = self._best()
        log.info("origin", term=term, epoch=epoch)

        parts: list[Part] = []

        def through(life: Life, writer: RingWriter) -> OriginWriter:
            parts.append(Part(life, term, self._terms, served=False))
            return parts[0].lead(term, writer)

        def fill(life: Life) -> None:
            self._replace(parts[0])  # not before: other nodes would be given its state without these ticks
            batch = None if before is None else newest(before)
            if batch is not None and life.writer is not None:
                life.writer.write(batch)

        names = [] if before is None else before.symbols.names()
        beginning = Beginning(epoch, names, fill=fill, through=through)
        await self._engine.succession.exchange(beginning)
        parts[0].served = True
        self.joined.set()

    def _best(self) -> Life | None:
        """Return the life with the newest state of the shard, None if there is none."""
        if self.part is not None and self.part.ready:
            return self.part.life
        return self._engine.lives.now if self.joined.is_set() else None

    async def _follow(self, wish: Follow) -> None:
        await self._stop_feeds()
        part = self.part
        goes_on = part is not None and part.epoch == wish.epoch and part.ready and not wish.anew
        if part is None or not goes_on:
            part = Part(
                self._engine.succession.prepare(Beginning(wish.epoch, origin=False)),
                wish.term,
                self._terms,
                False,
            )
        log.info("mirror", term=wish.term, epoch=wish.epoch)
        part.follow(wish.term, self._sizes)
        self._replace(part)
        self._on_follow(part, goes_on)

    async def _serve(self, part: Part) -> None:
        try:
            await self._engine.succession.exchange(Beginning(part.epoch, origin=False), part.life)
        except Exception:
            self.part, self._present = None, None  # the life has ended: begin once more
            raise
        part.served = True
        self.joined.set()

    def _replace(self, part: Part) -> None:
        before, self.part = self.part, part
        if before is not None and before is not part and not before.served:
            before.life.end()
