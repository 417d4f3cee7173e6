"""The part of a mirror that writes ticks in order and asks for those that are missing. No I/O.

    TICKS ──► held until they follow ──► MirrorWriter ──► rings, frame log
                   └── what is missing ──► Ask, at once and every retry_ns ──► lost

A frame beyond the next ``g`` is held, and the hole before it is asked for at once, then every ``retry_ns``,
from the nodes of ``sources`` in turn. A beat shows a hole too, because it is sent after all frames. If no
progress is made for ``repair_ns``, if held frames exceed ``held_bytes`` or if the writer refuses a frame,
``lost`` says why: a state has to be adopted (cluster/mirror.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np

from marketfeed.cluster import actions
from marketfeed.cluster.frames import Header, names_of, ticks_of
from marketfeed.cluster.held import HeldFrame, HeldFrames
from marketfeed.cluster.repairs import NamesRequest, TicksRequest
from marketfeed.core.records import stamps_of
from marketfeed.errors import FrameError, MirrorError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketfeed.cluster.actions import Action
    from marketfeed.cluster.frame_log import FrameLog
    from marketfeed.core.mirror import MirrorWriter
    from marketfeed.core.symbols import SymbolTable

RANGES: Final = 64  # that are asked for at a time


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in ns, and the bytes of held frames."""

    stale_ns: int = 1_000_000_000
    repair_ns: int = 1_000_000_000
    retry_ns: int = 300_000_000  # between two requests for the same ticks
    sync_ns: int = 2_000_000_000  # without a part of the state that was asked for
    held_bytes: int = 256 << 20


@dataclass(slots=True)
class MirrorCounts:
    """Counters of a mirror; they only increase."""

    frames: int = 0  # of ticks, written
    duplicates: int = 0  # frames whose ticks were written or held before
    asked: int = 0  # requests for ticks
    repaired: int = 0  # ticks written from answers
    gone: int = 0  # answers that ticks are not in the log any more
    names_asked: int = 0
    syncs: int = 0  # requests for a state
    adopted: int = 0  # states adopted after ticks were lost
    fenced: int = 0  # frames of a lower term, or of another epoch of this term
    bad: int = 0  # frames and parts of answers that are invalid
    refused: int = 0  # frames and states that the writer refused
    overflows: int = 0  # times that held frames exceeded their limit, and were dropped


class Follower:
    """Writes the frames of one origin. ``symbols`` are those of the writer's rings; ``log`` gets each frame.

    While ``paused``, frames are held and nothing is asked for; a running mirror still writes what follows.
    """

    def __init__(
        self,
        writer: MirrorWriter,
        symbols: SymbolTable,
        log: FrameLog,
        *,
        epoch: str,
        limits: Limits,
        counts: MirrorCounts,
    ) -> None:
        self.sources: Sequence[str | None] = (None,)
        self.held = HeldFrames()
        self.writer, self.symbols, self.log = writer, symbols, log
        self.paused = True
        self.writing = False  # from the first state on
        self.lost = ""  # why a state is needed; empty: it is not
        self._epoch, self._limits, self._counts = epoch, limits, counts
        self._known_g = writer.next_g - 1  # ticks up to it exist
        self._blocked_ns: int | None = None  # since when known ticks cannot be written
        self._retry_ns = 0
        self._attempt = 0  # of the requests since then
        self._asked_names = -1  # names known when more were asked for

    @property
    def behind(self) -> int:
        """Return the number of ticks that are known to exist and are not written."""
        return max(self._known_g - self.writer.next_g + 1, 0)

    def take_ticks(self, header: Header, data: bytes, now_ns: int, out: list[Action]) -> None:
        """Take a TICKS frame, and keep ``data``; raises FrameError."""
        if header.last_g < self.writer.next_g:
            self._counts.duplicates += 1
            return
        frame = HeldFrame(header, *ticks_of(header, data), data)
        if not self.held.add(frame):
            self._counts.duplicates += 1
            return
        self.take_head(header.first_g, header.last_g, now_ns, out)
        if self.held.held_bytes > self._limits.held_bytes:
            self._counts.overflows += 1
            self.held.clear()
            self.lost = f"more than {self._limits.held_bytes} bytes of frames were held"

    def take_head(self, first_g: int, last_g: int, now_ns: int, out: list[Action]) -> None:
        """Note that ticks up to ``last_g`` exist, and that those from ``first_g`` on are held."""
        known = max(self._known_g, self.writer.next_g - 1)
        if first_g > known + 1 and not self.paused:
            self._ask_ticks(self.sources[0], known + 1, first_g - 1, out)
        self._known_g = max(known, last_g)
        self.advance(now_ns, out)

    def take_names(self, header: Header, data: bytes, now_ns: int, out: list[Action]) -> None:
        """Take a SYMBOLS frame; raises FrameError."""
        if header.first_g <= len(self.symbols):
            self.learn(names_of(header, data), header.first_g)
            self.advance(now_ns, out)
        elif not self.paused:
            self._ask_names(self.sources[0], out)

    def learn(self, names: list[str], first: int) -> None:
        """Add names whose ids begin at ``first``; raises FrameError if one contradicts those known."""
        for number, name in enumerate(names, first):
            expected = number if number < len(self.symbols) else None
            if self.symbols.find(name) != expected:
                raise FrameError(f"the name {name} with id {number} contradicts the names of this node")
            if expected is None:
                self.symbols.intern(name)

    def advance(self, now_ns: int, out: list[Action]) -> None:
        """Write the held frames that follow, and note whether others have to wait."""
        before = self.writer.next_g
        lacking = self.writing and self._write_held(out)
        progress = self.writer.next_g > before
        if progress:
            out.append(actions.Wrote(self.writer.next_g - 1))
        if not self.behind:
            self._blocked_ns = None
        elif self._blocked_ns is None or progress:
            self._blocked_ns, self._attempt = now_ns, 0
            self._retry_ns = now_ns + self._limits.retry_ns
        if lacking and not self.paused and self._asked_names != len(self.symbols):
            self._ask_names(self.sources[0], out)

    def _write_held(self, out: list[Action]) -> bool:
        """Write the held frames that follow; return whether one of them needs names that are not known."""
        while (frame := self.held.lowest()) is not None and frame.header.first_g <= self.writer.next_g:
            if frame.header.names > len(self.symbols):
                return True
            self.held.pop()
            try:
                self._write(frame)
            except MirrorError as error:
                self._counts.refused += 1
                self.lost = str(error)
                out.append(actions.BadFrame(self.lost))
                break
        return False

    def _write(self, frame: HeldFrame) -> None:
        """Write the ticks of ``frame`` that are not written yet; raises MirrorError."""
        header, quotes, trades = frame.header, frame.quotes, frame.trades
        next_g = self.writer.next_g
        if header.last_g < next_g:
            self._counts.duplicates += 1
            return
        if header.first_g < next_g:
            start = np.uint64(next_g)
            quotes, trades = (part[stamps_of(part).searchsorted(start) :] for part in (quotes, trades))
        self.writer.write_given(quotes, trades, next_g, header.last_g)
        self._counts.frames += 1
        if header.is_repair:
            self._counts.repaired += header.last_g - next_g + 1
        self.log.append(frame.data, header.first_g, header.last_g)

    def retry(self, now_ns: int, out: list[Action]) -> None:
        """Ask again for what is missing, if that is due; give up after ``repair_ns`` without progress."""
        if self._blocked_ns is None:
            return
        if now_ns - self._blocked_ns >= self._limits.repair_ns:
            self.lost = f"ticks from g={self.writer.next_g} on were not repaired in time"
        elif now_ns >= self._retry_ns:
            self._attempt += 1
            self._retry_ns = now_ns + self._limits.retry_ns
            self.ask(self.sources[self._attempt % len(self.sources)], out)

    def ask(self, node: str | None, out: list[Action], ranges: int = RANGES) -> None:
        """Ask ``node`` for the names and the first ``ranges`` of ticks that are missing."""
        lowest = self.held.lowest()
        if lowest is not None and lowest.header.names > len(self.symbols):
            self._ask_names(node, out)
        self._ask_missing(node, ranges, out)

    def _ask_missing(self, node: str | None, ranges: int, out: list[Action]) -> None:
        for first, last in islice(self.held.missing(self.writer.next_g, self._known_g), ranges):
            self._ask_ticks(node, first, last, out)

    def _ask_ticks(self, node: str | None, first_g: int, last_g: int, out: list[Action]) -> None:
        self._counts.asked += 1
        out.append(actions.Ask(node, TicksRequest(self._epoch, first_g, last_g)))

    def _ask_names(self, node: str | None, out: list[Action]) -> None:
        self._counts.names_asked += 1
        self._asked_names = len(self.symbols)
        out.append(actions.Ask(node, NamesRequest(self._epoch, len(self.symbols))))

    def pause(self) -> None:
        """Give up what is missing, because a state is fetched.

        Frames held until now are dropped: they are older than the state, or the origin never sent them.
        """
        self.held.clear()
        self._known_g = self.writer.next_g - 1
        self._blocked_ns = None
        self.paused = True

    def resume(self, now_ns: int, out: list[Action]) -> None:
        """Go on after a state; ask at once for what is missing after it."""
        self.paused, self.writing, self.lost = False, True, ""
        self._blocked_ns = None
        self._known_g = max(self._known_g, self.writer.next_g - 1)
        self.advance(now_ns, out)
        if self.behind and not self.lost:
            self._ask_missing(self.sources[0], RANGES, out)
