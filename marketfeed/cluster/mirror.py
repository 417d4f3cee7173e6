"""A mirror of an origin's rings: a state machine without I/O. Frames and times in, writes and actions out.

    frames ──► term, epoch ──► Follower ──► MirrorWriter ──► rings
                   │              │
            fenced, Rebuild   lost ──► AskSync ──► StateReader ──► adopt

Theory of operation. A mirror belongs to one origin, identified by term and epoch. Frames of a lower term are
dropped; a higher term ends the mirror. Ticks are written in order of ``g``, each once (cluster/follower.py).
If ticks are lost, the mirror drops what it holds, fetches a state and adopts it. A new mirror begins in the
same way, and is ready after that. Until then, it holds the frames that arrive.

Memory: ``held_bytes``, and the state while it is fetched. Cost of frames in order: 0.15 to 0.25 µs per tick,
most of it in the writer (perf/cluster_tee.py). For one thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketfeed.cluster import actions
from marketfeed.cluster.follower import Follower, Limits, MirrorCounts
from marketfeed.cluster.frames import Header, Kind, header_of
from marketfeed.cluster.repairs import End, parse_outcome
from marketfeed.cluster.state import Sizes, State, StateReader
from marketfeed.errors import FrameError, MirrorError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketfeed.cluster.actions import Action
    from marketfeed.cluster.frame_log import FrameLog
    from marketfeed.core.mirror import MirrorWriter
    from marketfeed.core.symbols import SymbolTable

_TEXT: Final = b" "  # the first byte of a text is above it; that of a frame, its version, below


class Mirror:
    """Follows one origin. ``symbols`` are those of the writer's rings; ``log`` gets each frame written.

    Each method returns actions for the owner, in order.
    """

    def __init__(
        self,
        writer: MirrorWriter,
        symbols: SymbolTable,
        sizes: Sizes,
        log: FrameLog,
        *,
        term: int,
        epoch: str,
        now_ns: int,
        limits: Limits | None = None,
        counts: MirrorCounts | None = None,
    ) -> None:
        """``counts`` are those of an earlier mirror, to go on with."""
        self.term, self.epoch = term, epoch
        self.counts = counts or MirrorCounts()
        self.ended = False
        self.stale = False
        self._limits = limits or Limits()
        self._follower = Follower(writer, symbols, log, epoch=epoch, limits=self._limits, counts=self.counts)
        self._writer, self._sizes = writer, sizes
        self._heard_ns = now_ns
        self._reader: StateReader | None = None  # of the state that is being fetched
        self._sync_number = 0
        self._sync_attempt = 0
        self._sync_due_ns = 0
        self._sync_reason = ""
        self._final_g: int | None = None
        self._other: tuple[str, int] | None = None  # other epoch of this term, and when it was reported

    @property
    def sources(self) -> Sequence[str | None]:
        """The nodes to ask, in turn, at least one; None is the origin. The owner may replace them."""
        return self._follower.sources

    @sources.setter
    def sources(self, nodes: Sequence[str | None]) -> None:
        self._follower.sources = nodes

    @property
    def ready(self) -> bool:
        """Return whether the rings hold a state, so that sessions can be served."""
        return self._follower.writing

    @property
    def syncing(self) -> bool:
        """Return whether a state is being fetched."""
        return self._reader is not None

    @property
    def held_bytes(self) -> int:
        """Return the memory of frames that wait for others."""
        return self._follower.held.held_bytes

    @property
    def behind(self) -> int:
        """Return the number of ticks that are known to exist and are not written."""
        return self._follower.behind

    def start(self, now_ns: int) -> list[Action]:
        """Begin with a state. The owner has subscribed before, so that frames after it are not missed."""
        out: list[Action] = []
        self._sync("join", now_ns, out)
        return out

    def go_on(self, now_ns: int) -> list[Action]:
        """Begin without a state: the rings hold all ticks of the epoch up to their head already.

        Such as those of a node whose origin has handed the epoch over.
        """
        out: list[Action] = []
        self._follower.resume(now_ns, out)
        self._finish(now_ns, out)
        return out

    def feed(self, data: bytes, now_ns: int) -> list[Action]:
        """Take a frame, live or of an answer; keeps ``data``. Invalid frames are counted."""
        out: list[Action] = []
        if self.ended:
            return out
        try:
            header = header_of(data)
            if self._is_ours(header, now_ns, out):
                self._take(header, data, now_ns, out)
                if not header.is_repair:
                    self._hear(now_ns, out)
        except FrameError as error:
            self._reject(error, out)
        self._finish(now_ns, out)
        return out

    def answer(self, node: str | None, data: bytes, now_ns: int) -> list[Action]:
        """Take a part of the answer of ``node`` to an :class:`actions.Ask`."""
        if data[:1] < _TEXT:
            return self.feed(data, now_ns)
        out: list[Action] = []
        if self.ended or self.syncing:
            return out
        try:
            outcome = parse_outcome(data)
        except FrameError as error:
            self._reject(error, out)
            return out
        next_g = self._writer.next_g
        if isinstance(outcome, End):
            # The answer was cut, and all of it has arrived.
            if outcome.first_g <= outcome.last_g == next_g - 1:
                self._follower.ask(node, out, ranges=1)
        else:
            self.counts.gone += 1
            if node is None and self.behind and outcome.oldest_g > next_g:
                self._sync(f"ticks from g={next_g} on are gone", now_ns, out)
        return out

    def state_part(self, number: int, data: bytes, now_ns: int) -> list[Action]:
        """Take a part of the answer to the :class:`actions.AskSync` with this ``number``."""
        out: list[Action] = []
        if self.ended:
            return out
        if number != self._sync_number or self._reader is None:
            # After a state come frames of the log; parts of an older answer are of no use.
            return self.feed(data, now_ns) if data[1:2] == bytes((Kind.TICKS,)) else out
        try:
            header = header_of(data)
            if self._is_ours(header, now_ns, out):
                self._sync_due_ns = now_ns + self._limits.sync_ns
                state = self._reader.feed(header, data)
                if self._reader.sizes != self._sizes:
                    self._refuse(self._reader.sizes, out)
                elif state is not None:
                    self._adopt(state, now_ns, out)
        except FrameError as error:
            self._reject(error, out)
            self._sync_due_ns = now_ns + self._limits.retry_ns
            self._sync_number += 1  # the rest of this answer is of no use
        self._finish(now_ns, out)
        return out

    def lease(self, term: int, epoch: str) -> list[Action]:
        """Take the lease that is valid now; it decides between origins of one term.

        A lower term was read from a copy that is not up to date: claims are above every term seen.
        """
        other = epoch != self.epoch if term == self.term else term > self.term
        out: list[Action] = []
        if other and not self.ended:
            self._end(actions.Rebuild(term, epoch), out)
        return out

    def tick(self, now_ns: int) -> list[Action]:
        """Do what is due at ``now_ns``; to be called about every 50 ms."""
        out: list[Action] = []
        if self.ended:
            return out
        if not self.stale and now_ns - self._heard_ns > self._limits.stale_ns:
            self.stale = True
            out.append(actions.Stale(self._heard_ns))
        if not self.syncing:
            self._follower.retry(now_ns, out)
        elif now_ns >= self._sync_due_ns:
            self._sync_attempt += 1
            self._ask_state(now_ns, out)
        self._finish(now_ns, out)
        return out

    def _is_ours(self, header: Header, now_ns: int, out: list[Action]) -> bool:
        """Return whether the frame is of this mirror's origin; end the mirror if a later one has begun."""
        if header.term > self.term:
            self._end(actions.Rebuild(header.term, header.epoch), out)
            return False
        if (header.term, header.epoch) == (self.term, self.epoch):
            return True
        self.counts.fenced += 1
        if header.term == self.term:
            last = self._other
            if last is None or last[0] != header.epoch or now_ns - last[1] >= self._limits.stale_ns:
                self._other = header.epoch, now_ns
                out.append(actions.OtherEpoch(header.term, header.epoch))
        return False

    def _take(self, header: Header, data: bytes, now_ns: int, out: list[Action]) -> None:
        """Take a frame of this mirror's origin; raises FrameError."""
        if header.names > self._sizes.max_symbols:
            raise FrameError(f"frame of {header.names} names; the rings have {self._sizes.max_symbols}")
        if header.kind is Kind.TICKS:
            self._follower.take_ticks(header, data, now_ns, out)
        elif header.kind is Kind.SYMBOLS:
            self._follower.take_names(header, data, now_ns, out)
        elif header.kind in (Kind.BEAT, Kind.HANDOVER):
            if header.kind is Kind.HANDOVER:
                self._final_g = header.last_g
            self._follower.take_head(header.first_g, header.last_g, now_ns, out)
        else:
            raise FrameError(f"{header.kind.name} frame outside a state")

    def _hear(self, now_ns: int, out: list[Action]) -> None:
        self._heard_ns = now_ns
        if self.stale:
            self.stale = False
            out.append(actions.Live())

    def _reject(self, error: FrameError, out: list[Action]) -> None:
        self.counts.bad += 1
        out.append(actions.BadFrame(str(error)))

    def _finish(self, now_ns: int, out: list[Action]) -> None:
        """Fetch a state if ticks were lost; report the end of an origin that has handed over."""
        if self.ended:
            return
        if self._follower.lost and not self.syncing:
            self._sync(self._follower.lost, now_ns, out)
        if self._final_g is not None and self.ready and self._writer.next_g > self._final_g:
            out.append(actions.HandedOver(self._final_g))
            self._final_g = None

    def _end(self, action: Action, out: list[Action]) -> None:
        self.ended = True
        out.append(action)

    def _sync(self, reason: str, now_ns: int, out: list[Action]) -> None:
        """Give up what is missing, and fetch a state."""
        self._follower.pause()
        self._sync_reason, self._sync_attempt = reason, 0
        self._ask_state(now_ns, out)

    def _ask_state(self, now_ns: int, out: list[Action]) -> None:
        self.counts.syncs += 1
        self._reader = StateReader()
        self._sync_number += 1
        self._sync_due_ns = now_ns + self._limits.sync_ns
        node = self.sources[self._sync_attempt % len(self.sources)]
        out.append(actions.AskSync(node, self._sync_number, self._sync_reason))

    def _refuse(self, sizes: Sizes | None, out: list[Action]) -> None:
        assert sizes is not None  # known after the first part
        origin, node = (f"{s.max_symbols} symbols × {s.depth} ticks" for s in (sizes, self._sizes))
        text = f"the origin's rings have {origin}, those of this node {node}"
        self._end(actions.Refused(f"{text}; set engine.max_symbols and engine.ring_depth alike"), out)

    def _adopt(self, state: State, now_ns: int, out: list[Action]) -> None:
        """Continue from ``state``, unless all its ticks are written already; raises FrameError."""
        next_g, ready = self._writer.next_g, self.ready
        try:
            self._follower.learn(state.names, 0)
            if state.head >= next_g:
                self._writer.adopt(state.quotes, state.trades, state.head, state.first_ns)
        except (FrameError, MirrorError) as error:
            self.counts.refused += 1
            if not ready:
                raise FrameError(str(error)) from error
            # The rings contradict the origin's, and would do so for ever.
            out.append(actions.BadFrame(str(error)))
            self._end(actions.Rebuild(self.term, self.epoch), out)
            return
        self._reader = None
        if state.head >= next_g:
            if ready:
                self.counts.adopted += 1
                out.append(actions.Adopted(next_g - 1, state.head, self._sync_reason))
            out.append(actions.Wrote(state.head))
        self._follower.resume(now_ns, out)
        if not ready:
            out.append(actions.Ready(self._writer.next_g - 1))
