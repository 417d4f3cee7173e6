"""Advance one session that is not at its lane's position: snapshot, catch-up, lag.

A session that is catching up has its own position. Each call advances it by one or more frames towards the
lane's position, at the pace of its socket. When it reaches the lane's position it joins a group, and has no
cost of its own any more.

A live session whose socket was full for a moment first gets everything it missed. If that is too much, it
lags: only the newest quote of each symbol is sent, trades stay complete, and it joins its lane again only
after its socket has room.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import numpy as np
import orjson

from marketfeed.core.cursor import Cursor
from marketfeed.core.records import CHANNELS, QUOTES, TRADES, stamps_of
from marketfeed.fanout.codecs import gap_fragment
from marketfeed.fanout.resume import Resumption, resume
from marketfeed.fanout.state import State
from marketfeed.fanout.tick_runs import EMPTY, Piece, Run, merged, size_of
from marketfeed.fanout.wire import FrameContent, Moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.core.rings import Indices, Rings
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.fanout.interest import Names
    from marketfeed.fanout.lane import Lane
    from marketfeed.fanout.subscriber import Subscriber

CHUNK: Final = 512  # fragments a frame, about 64 kB
STEP: Final = (
    2048  # ticks in one step at most: two milliseconds, of which a tenth does not depend on how many
)
MAX_NAMES: Final = 4096  # announced in one frame
LAG_TICKS: Final = 4096  # missed ticks up to which a session that was full gets them all
LAG_STEP_NS: Final = 20_000_000  # a lagging session advances at most this often,
LAG_STEPS: Final = 4  # by so many steps: as the lane moves on meanwhile, it has to arrive in one go
_NONE: Final[Indices] = np.empty(0, np.int64)


def most_missing(depth: int) -> int:
    """Return how many ticks of any symbols a session may miss without lagging, in rings of ``depth``."""
    return min(LAG_TICKS, depth // 2)


class Turn(enum.Enum):
    """How a turn of a session that is alone ended."""

    AGAIN = enum.auto()  # it could go on at once
    LATER = enum.auto()  # at its lane's next flush
    OVER = enum.auto()  # it has joined, or waits for its socket


class CatchUp:
    """The advance of sessions that are alone, over one shard's rings."""

    def __init__(
        self, rings: Rings, symbols: SymbolTable, resume_ticks: int, wall_ns: Callable[[], int]
    ) -> None:
        self._rings = rings
        self._symbols = symbols
        self._resume_ticks = resume_ticks
        self._wall_ns = wall_ns

    def advance(self, lane: Lane, member: Subscriber, now_ns: int) -> Turn:
        """Bring ``member`` a step of about STEP ticks closer to ``lane``; join it where it arrives."""
        if member.blocked:
            return Turn.OVER
        if member.state is State.LAGGING and now_ns < member.next_step_ns:
            return Turn.LATER
        self._align(member)
        if member.encoding.announces:
            self._announce(member)
        if any(map(len, member.fresh)):
            snapshots = self._snapshot(lane, member, STEP)
            for start in range(0, len(snapshots.gs), CHUNK):
                step = snapshots.step(slice(start, start + CHUNK), member.encoding.mixed)
                self._put(member, step, ids=False, ticks=0)  # snapshots are outside the ledger
        if not push(member):
            return Turn.OVER
        if any(map(len, member.fresh)):
            return Turn.AGAIN
        return self._replay(lane, member, now_ns)

    def _replay(self, lane: Lane, member: Subscriber, now_ns: int) -> Turn:
        """Send the next ticks between ``member``, whose snapshots are sent, and ``lane``."""
        for _ in range(LAG_STEPS if member.state is State.LAGGING else 1):
            missing, most = self._missing(lane, member)
            if not sum(missing):
                # The lane may be behind one that comes from another lane.
                return Turn.LATER if self._ahead(lane, member) else self._arrive(lane, member, now_ns)
            lagging = member.state is State.LAGGING
            if member.tier.every and not lagging and self._too_far(member, sum(missing), most):
                self._fall_behind(member)
                lagging = True
            in_full = 0 if not member.tier.every else sum(missing[TRADES if lagging else QUOTES :])
            self._step(lane, member, in_full)
            if lagging:
                member.next_step_ns = now_ns + LAG_STEP_NS
            if not push(member):
                return Turn.OVER
        return Turn.AGAIN

    def resume(self, member: Subscriber, added: list[Indices], names: Names, after: Cursor) -> Resumption:
        """Put ``member`` behind ``after`` as far as it can be resumed; see :func:`resume`."""
        return resume(member, added, names, after, self._rings, self._symbols, self._resume_ticks)

    def level(self, lane: Lane, member: Subscriber) -> bool:
        """Tell whether ``member`` stands where ``lane`` stands, with no snapshot to come."""
        self._align(member)
        missing, _ = self._missing(lane, member)
        return not (any(map(len, member.fresh)) or any(missing) or self._ahead(lane, member))

    def gather(self, lane: Lane, member: Subscriber, step: FrameContent, most_bytes: int) -> bool:
        """Put what lies between a poll and its lane into ``step``, about ``most_bytes`` of it.

        Snapshots are among the ticks, all in order of ``g``; the member is behind what is in the
        step. Returns False if the lane has not come to the poll's cursor yet. Only snapshots that
        are too many for any answer make the step larger; whoever writes it cuts them.
        """
        self._align(member)
        if self._ahead(lane, member):
            return False
        fresh, snapshots = list(member.fresh), self._snapshot(lane, member).pieces()
        # What is left for the ticks: snapshots as of the cut take about as much as those of now.
        left = max(most_bytes - size_of(snapshots), 1)
        pieces: list[Piece] = []
        while left > 0 and (in_full := sum(self._missing(lane, member)[0])):
            gaps, run = self._take(lane, member, in_full if member.tier.every else 0)
            more = run.pieces()
            step.messages += gaps
            pieces += more
            left -= size_of(more) + sum(len(gap) + 1 for gap in gaps)
        if left > 0:
            member.g = lane.g
        while left < 0 and len(pieces) > 1:
            left += size_of([pieces.pop()])
            member.g = pieces[-1][0]
        if snapshots and snapshots[-1][0] > member.g:
            snapshots = [piece for piece in snapshots if piece[0] <= member.g]
            snapshots += self._older(lane, fresh, member.g, {g for g, _ in snapshots})
        step.ticks += [fragment for _, fragment in sorted(pieces + snapshots)]
        return True

    def _older(self, lane: Lane, fresh: list[Indices], cut: int, known: set[int]) -> list[Piece]:
        """Return snapshots as of ``cut`` of those ``fresh`` symbols whose latest tick lies behind it.

        Without them the ticks that follow in the next answer would have nothing to follow on.
        """
        found: list[Piece] = []
        for channel, symbols in enumerate(fresh):
            records, _ = self._rings.latest(channel, symbols, cut)
            gs, fragments = stamps_of(records).tolist(), lane.encoder.codec.fragments(channel, records)
            snaps = map(lane.encoder.codec.as_snapshot, fragments)
            found += [(g, snap) for g, snap in zip(gs, snaps, strict=True) if g not in known]
        return found

    def _align(self, member: Subscriber) -> None:
        """Put the member before the first tick of symbols that joined its interest meanwhile."""
        for channel, symbols in enumerate(member.interest.symbols):
            more = len(symbols) - len(member.seen[channel])
            if more:
                member.seen[channel] = np.concatenate([member.seen[channel], np.zeros(more, np.int64)])

    def _announce(self, member: Subscriber) -> None:
        """Tell the ids of symbols that the member was not told of, before anything uses them."""
        interest = member.interest
        if member.known == interest.counts() and not len(member.untold):
            return
        untold = np.union1d(member.untold, interest.behind(member.known)).tolist()
        names = [(self._symbols.name(symbol), symbol) for symbol in untold]
        for start in range(0, len(names), MAX_NAMES):
            step = FrameContent(mixed=False)
            step.announced = dict(names[start : start + MAX_NAMES])
            self._put(member, step)
        member.known, member.untold = interest.counts(), _NONE

    def _put(
        self, member: Subscriber, step: FrameContent, ids: bool = True, ticks: int | None = None
    ) -> None:
        """Put ``step`` into the backlog as a frame of ``ticks`` ticks, None: of as many as it holds."""
        moment = Moment(self._rings.epoch, member.g, self._wall_ns())
        frame = member.encoding.frame(step, moment, ids)
        member.backlog.append((frame, len(step) if ticks is None else ticks))

    def _tell(self, member: Subscriber, payload: bytes, cursor: str = "") -> None:
        """Put messages, a JSON array, into the backlog."""
        member.backlog.append((member.encoding.messages(payload, self._wall_ns(), cursor), 0))

    def _missing(self, lane: Lane, member: Subscriber) -> tuple[list[int], int]:
        """Return how many ticks lie between member and lane on each channel, and at most for one symbol."""
        totals, most = [0] * len(CHANNELS), 0
        for channel, symbols in enumerate(member.interest.symbols):
            if len(symbols):
                behind = np.maximum(lane.seen[channel][symbols] - member.seen[channel], 0)
                totals[channel] = int(behind.sum())
                most = max(most, int(behind.max()))
        return totals, most

    @staticmethod
    def _ahead(lane: Lane, member: Subscriber) -> bool:
        """Tell whether the member has ticks that the lane has not come to yet."""
        return any(
            bool((member.seen[channel] > lane.seen[channel][symbols]).any())
            for channel, symbols in enumerate(member.interest.symbols)
        )

    def _too_far(self, member: Subscriber, missing: int, most: int) -> bool:
        if member.synced:  # a snapshot or replay is still under way: paced, and not lag
            return member.replayed >= self._resume_ticks
        return missing > LAG_TICKS or most > self._rings.depth // 2

    def _snapshot(self, lane: Lane, member: Subscriber, most: int | None = None) -> Run:
        """Return the latest ticks of ``most`` freshly named symbols (None: of all); it is behind them."""
        runs: list[Run] = []
        as_snapshot = lane.encoder.codec.as_snapshot
        for channel, fresh in enumerate(member.fresh):
            symbols, member.fresh[channel] = fresh[:most], fresh[len(fresh[:most]) :]
            most = None if most is None else most - len(symbols)
            at = lane.seen[channel][symbols]
            sent = symbols[at > 0]
            latest = lane.encoder.latest(channel, sent, at[at > 0], lane.g)
            position = np.zeros(self._rings.max_symbols, np.int64)
            position[member.interest.symbols[channel]] = member.seen[channel]
            position[symbols] = at
            if member.tier.every and not (member.state is State.LAGGING and channel == QUOTES):
                # One that was overwritten meanwhile has no snapshot: it begins with a gap.
                position[sent] -= 1
            position[sent[latest.held]] = latest.ns
            member.seen[channel] = position[member.interest.symbols[channel]]
            order = latest.gs.argsort()
            snaps = [as_snapshot(latest.fragments[i]) for i in order.tolist()]
            runs.append(Run(latest.gs[order], [channel] * len(snaps), snaps))
        return merged(runs)

    def _step(self, lane: Lane, member: Subscriber, in_full: int) -> None:
        """Take the next frames' worth between member and lane, in order of ``g``, into the backlog."""
        gaps, run = self._take(lane, member, in_full)
        member.replayed += len(run.gs)
        for start in range(0, max(len(run.gs), len(gaps)), CHUNK):
            step = run.step(slice(start, start + CHUNK), member.encoding.mixed)
            if not start:
                step.messages = gaps
            self._put(member, step, ids=member.ids)

    def _take(self, lane: Lane, member: Subscriber, in_full: int) -> tuple[list[bytes], Run]:
        """Return the next gaps, and ticks in order of ``g``, between member and lane; it is behind them."""
        bound, upto = self._bound(lane, member, in_full)
        gaps: list[bytes] = []
        runs: list[Run] = []
        for channel, symbols in enumerate(member.interest.symbols):
            if not len(symbols):
                continue
            if member.tier.every and not (member.state is State.LAGGING and channel == QUOTES):
                runs.append(self._take_every(lane, member, channel, bound, upto.get(channel), gaps))
            else:
                runs.append(self._take_latest(lane, member, channel, bound))
        member.g = bound
        return gaps, merged(runs)

    def _bound(
        self, lane: Lane, member: Subscriber, in_full: int
    ) -> tuple[int, dict[int, tuple[Indices, Indices]]]:
        """Return a ``g`` up to which STEP of the ``in_full`` ticks lie, or down to a quarter of that.

        Where the search has them: by channel, which of the symbols move, and the ``n`` they move to. What a
        step costs must not depend on how unevenly the ticks lie.
        """
        if in_full <= STEP:
            return lane.g, {}
        ahead = []
        for channel in [TRADES] if member.state is State.LAGGING else [QUOTES, TRADES]:
            symbols, seen = member.interest.symbols[channel], member.seen[channel]
            upto = lane.seen[channel][symbols]
            more = np.flatnonzero(upto > seen)
            if len(more):
                held = np.maximum(seen[more], self._rings.oldest(channel, symbols[more]) - 1)
                ahead.append((channel, symbols[more], more, held, upto[more]))
        low, high = 0, lane.g - member.g
        span = high
        width = max(high * STEP // (2 * in_full), 1)
        while high - low > 1:
            count = 0
            reached: dict[int, tuple[Indices, Indices]] = {}
            for channel, symbols, more, held, last in ahead:
                at = np.minimum(self._rings.position(channel, symbols, member.g + width), last)
                reached[channel] = more, at
                count += int(np.maximum(at - held, 0).sum())
            if count > STEP:
                high = width
            elif count < STEP // 4:
                low = width
            else:
                return member.g + width, reached
            width = low * 2 if high == span and 0 < low * 2 < high else (low + high) // 2
        return member.g + high, {}

    def _take_every(
        self,
        lane: Lane,
        member: Subscriber,
        channel: int,
        bound: int,
        reached: tuple[Indices, Indices] | None,
        gaps: list[bytes],
    ) -> Run:
        symbols, seen = member.interest.symbols[channel], member.seen[channel]
        if reached is not None:
            some, upto = reached
        else:
            some, upto = np.arange(len(symbols)), lane.seen[channel][symbols]
            if bound < lane.g:
                upto = np.minimum(upto, self._rings.position(channel, symbols, bound))
        moves = upto > seen[some]
        ahead, upto = some[moves], upto[moves]
        if not len(ahead):
            return EMPTY
        ticks = self._rings.read(channel, symbols[ahead], seen[ahead], upto, bound)
        for i in np.flatnonzero(ticks.lost).tolist():
            name, next_n = (
                self._symbols.name(int(symbols[ahead[i]])),
                int(ticks.seen[i] - ticks.counts[i]) + 1,
            )
            gaps.append(gap_fragment(name, CHANNELS[channel], int(ticks.lost[i]), next_n))
        member.ledger.matched += int((ticks.seen - seen[ahead]).sum())
        member.ledger.lost += int(ticks.lost.sum())
        seen[ahead] = ticks.seen
        stamps = stamps_of(ticks.records)
        order = stamps.argsort()
        fragments = lane.encoder.fragments(channel, ticks.records.take(order, mode="clip"))
        return Run(stamps[order], [channel] * len(fragments), fragments)

    def _take_latest(self, lane: Lane, member: Subscriber, channel: int, bound: int) -> Run:
        symbols, seen = member.interest.symbols[channel], member.seen[channel]
        ahead = np.flatnonzero(lane.seen[channel][symbols] > seen)
        if not len(ahead):
            return EMPTY
        latest = lane.encoder.latest(channel, symbols[ahead], lane.seen[channel][symbols[ahead]], lane.g)
        held = ahead[latest.held]
        taken = (latest.gs <= bound) & (latest.ns > seen[held])
        skipped = int((latest.ns - seen[held] - 1)[taken].sum())
        member.ledger.matched += skipped + int(taken.sum())
        member.ledger.conflated += skipped
        member.behind_conflated += skipped
        seen[held[taken]] = latest.ns[taken]
        chosen = np.flatnonzero(taken)
        order = chosen[latest.gs[chosen].argsort()]
        fragments = [latest.fragments[i] for i in order.tolist()]
        return Run(latest.gs[order], [channel] * len(fragments), fragments)

    def _fall_behind(self, member: Subscriber) -> None:
        if member.synced:
            self._say_synced(member)
        member.lag()
        self._tell(member, b'[{"T":"lag","on":true}]')

    def _say_synced(self, member: Subscriber) -> None:
        """End the member's open requests."""
        cursor = str(Cursor(self._rings.epoch, member.g))
        messages: list[dict[str, object]] = []
        for request_id in member.synced:
            messages.append({"T": "synced", "cursor": cursor})
            if request_id is not None:
                messages[-1]["id"] = request_id
        member.synced.clear()
        member.ids = True
        self._tell(member, orjson.dumps(messages), cursor)

    def _arrive(self, lane: Lane, member: Subscriber, now_ns: int) -> Turn:
        """Finish what was promised, then join, unless the member has to wait for room first."""
        member.g = lane.g
        if member.synced:
            self._say_synced(member)
        if member.state is State.LAGGING:
            # Hysteresis: come back only with half the buffer free, or the
            # next burst would throw it out again.
            if member.sink.unsent() > member.tier.send_buffer_bytes // 2:
                member.next_step_ns = now_ns + LAG_STEP_NS
                return Turn.LATER if push(member) else Turn.OVER
            member.recover()
            self._tell(member, b'[{"T":"lag","on":false,"conflated":%d}]' % member.behind_conflated)
        if not push(member):
            return Turn.OVER
        member.replayed = 0
        member.settle()
        lane.join(member)
        return Turn.OVER


def push(member: Subscriber) -> bool:
    """Offer the backlog frame by frame; False if the socket has had enough for now."""
    while member.backlog:
        if member.blocked:
            return False
        if not member.offer(*member.backlog.pop(0)):
            return False
    return not member.blocked
