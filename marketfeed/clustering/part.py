"""The rings of one epoch and what a node does with them: number ticks as their origin, or mirror them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from marketfeed.cluster.frame_log import FrameLog
from marketfeed.cluster.mirror import Mirror
from marketfeed.cluster.repairs import Answerer
from marketfeed.cluster.state import Sizes, state_of, state_parts
from marketfeed.cluster.tee import Tee, TeeWriter
from marketfeed.core.mirror import MirrorWriter
from marketfeed.core.records import Batch
from marketfeed.core.writer import RingWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from marketfeed.cluster.follower import Limits, MirrorCounts
    from marketfeed.server.life import Life


@dataclass(frozen=True, slots=True)
class Terms:
    """What all parts of a node have in common."""

    log_bytes: int
    linger_ns: int
    limits: Limits
    max_payload: Callable[[], int]  # of the NATS server
    sink: Callable[[bytes], None]  # takes the frames of the origin
    opened: Callable[[], None]  # called after each write that has left a frame open
    now_ns: Callable[[], int]
    counts: MirrorCounts  # of all mirrors


class OriginWriter:
    """Writes to the rings and the tee, and tells when a frame is open. For the pump."""

    def __init__(self, writer: TeeWriter, tee: Tee, opened: Callable[[], None]) -> None:
        self._writer, self._tee, self._opened = writer, tee, opened

    def write(self, batch: Batch) -> int:
        """Publish the ticks of ``batch``; return the last ``g``."""
        last_g = self._writer.write(batch)
        self._opened()
        return last_g

    def write_few(self, few: list[tuple[int, bytearray]]) -> int:
        """Publish a few ticks, channel and record of each, in order; return the last ``g``."""
        last_g = self._writer.write_few(few)
        self._opened()
        return last_g


class Part:
    """A life, its frame log, and its tee or its mirror; neither after the node has stopped being the origin.

    ``served``: sessions are on this life.
    """

    def __init__(self, life: Life, term: int, terms: Terms, served: bool) -> None:
        self.life, self.term, self.served = life, term, served
        self.log = FrameLog(terms.log_bytes)
        self.tee: Tee | None = None
        self.mirror: Mirror | None = None
        self.since_ns = terms.now_ns()
        self._terms = terms
        self._writer: OriginWriter | None = None
        self._answerer: Answerer

    @property
    def epoch(self) -> str:
        """Return the epoch of the rings."""
        return self.life.epoch

    @property
    def head(self) -> int:
        """Return the last ``g`` in the rings."""
        return self.life.rings.head()

    @property
    def ready(self) -> bool:
        """Return whether the rings hold the state of the epoch."""
        return self.mirror is None or self.mirror.ready

    def lead(self, term: int, writer: RingWriter | None = None) -> OriginWriter:
        """Begin to number ticks, after the head; return what the feeds write with.

        If the term goes on, so do tee and log: what did not leave meanwhile is repaired from there.
        """
        terms = self._terms
        if self.tee is not None and self.term == term and self._writer is not None:
            return self._writer
        self.term, self.mirror, self.since_ns = term, None, terms.now_ns()
        self.tee = Tee(
            self.life.symbols, self.log, terms.sink, term=term, epoch=self.epoch, wall_ns=time.time_ns,
            next_g=self.head + 1, max_payload=terms.max_payload(), linger_ns=terms.linger_ns,
        )  # fmt: skip
        self._answer_as(term)
        plain = writer or RingWriter(self.life.rings, time.time_ns)
        self._writer = OriginWriter(TeeWriter(plain, self.tee, terms.now_ns), self.tee, terms.opened)
        return self._writer

    def follow(self, term: int, sizes: Sizes) -> Mirror:
        """Begin to mirror the origin with this term; return the mirror, which has to be started."""
        terms = self._terms
        self.term, self.tee, self.since_ns = term, None, terms.now_ns()
        self._answer_as(term)
        self.mirror = Mirror(
            MirrorWriter(self.life.rings, time.time_ns), self.life.symbols, sizes, self.log,
            term=term, epoch=self.epoch, now_ns=self.since_ns, limits=terms.limits,
            counts=terms.counts,
        )  # fmt: skip
        return self.mirror

    def _answer_as(self, term: int) -> None:
        self._answerer = Answerer(
            self.log, self.life.symbols, term=term, epoch=self.epoch, max_payload=self._terms.max_payload()
        )

    def answer(self, request: bytes) -> Iterator[bytes]:
        """Return the parts of the answer to a request for ticks or names; raises FrameError."""
        return self._answerer.answer(request)

    def state(self) -> Iterator[bytes] | None:
        """Return the parts of the state; None if there is none yet, or a writer was faster."""
        state = state_of(self.life.rings, self.life.symbols) if self.ready else None
        if state is None:
            return None
        payload = self._terms.max_payload()
        return state_parts(state, self.log, term=self.term, epoch=self.epoch, max_payload=payload)


def newest(life: Life) -> Batch | None:
    """Return the newest tick of each symbol, for other rings with the same names; None if there is none."""
    state = state_of(life.rings, life.symbols)
    if state is None or not len(state.quotes) + len(state.trades):
        return None
    return Batch(state.quotes, state.trades)
