"""Advance one session that is not at its lane's position: snapshot, catch-up, lag.

A session that is catching up has its own position. Each call advances it by one or more frames towards the
lane's position, at the pace of its socket. When it reaches the lane's position it joins a group, and has no
further cost of its own.

A live session whose socket was full for a moment first gets everything that it missed. If that is too much,
it lags: only the newest quote of each symbol is sent, trades stay complete, and it joins its lane again only
after its socket has room.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import numpy as np
import orjson

from marketfeed.core.cursor import Cursor
from marketfeed.core.records import QUOTES, TRADES, stamps_of
from marketfeed.fanout.missed import ADVANCE_TICKS, MissedTicks, distance
from marketfeed.fanout.resume import Resumption, resume
from marketfeed.fanout.state import State
from marketfeed.fanout.tick_runs import EncodedTick, Run, merged, size_of
from marketfeed.fanout.wire import FrameContent, Moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.core.rings import Indices, Rings
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.fanout.interest import Names
    from marketfeed.fanout.lane import Lane
    from marketfeed.fanout.subscriber import Subscriber

FRAME_TICKS: Final = 512  # of one frame, about 64 kB
SHORT_FRAMES: Final = 3  # an answer, names and a snapshot: sent together with `synced`
MAX_NAMES: Final = 4096  # in one announcement
LAG_TICKS: Final = 4096  # missed ticks; a session that missed more lags
LAG_INTERVAL_NS: Final = 20_000_000  # between advances of a lagging session
LAG_ADVANCES: Final = 4  # in a row: the lane moves on, so it has to be reached within one interval
_NONE: Final[Indices] = np.empty(0, np.int64)


def most_missing(depth: int) -> int:
    """Return how many ticks of any symbols a session may miss without lagging, in rings of ``depth``."""
    return min(LAG_TICKS, depth // 2)


class Outcome(enum.Enum):
    """Result of advancing a session once."""

    CONTINUE = enum.auto()  # it can advance further now
    NEXT_FLUSH = enum.auto()  # it can advance after the next flush of its lane
    DONE = enum.auto()  # it has joined a group, is blocked, or has ended


class CatchUp:
    """Advances sessions that are catching up, over the rings of one shard."""

    def __init__(
        self, rings: Rings, symbols: SymbolTable, resume_ticks: int, wall_ns: Callable[[], int]
    ) -> None:
        self._rings = rings
        self._symbols = symbols
        self._resume_ticks = resume_ticks
        self._missed = MissedTicks(rings, symbols)
        self._wall_ns = wall_ns
        self._stale = False  # snapshots may be out of date

    def mark_stale(self, stale: bool) -> None:
        """Mark snapshots from now on as ones that may be out of date, or do so no more."""
        self._stale = stale

    def advance(self, lane: Lane, member: Subscriber, now_ns: int) -> Outcome:
        """Send ``member`` about ADVANCE_TICKS ticks; let it join ``lane`` if it has reached its position."""
        if member.blocked:
            return Outcome.DONE
        if member.state is State.LAGGING and now_ns < member.next_advance_ns:
            return Outcome.NEXT_FLUSH
        self._align(member)
        if member.encoding.announces:
            self._queue_announcements(member)
        if any(map(len, member.fresh)):
            snapshots = self._snapshot(lane, member, ADVANCE_TICKS)
            for start in range(0, len(snapshots.gs), FRAME_TICKS):
                content = snapshots.content(slice(start, start + FRAME_TICKS), member.encoding.mixed)
                self._queue_frame(member, content, ids=False)  # snapshots are outside the ledger
        if any(map(len, member.fresh)):
            return Outcome.CONTINUE if member.send_backlog() else Outcome.DONE
        # A short snapshot goes out with what follows it.
        if len(member.backlog) > SHORT_FRAMES and not member.send_backlog():
            return Outcome.DONE
        return self._replay(lane, member, now_ns)

    def _replay(self, lane: Lane, member: Subscriber, now_ns: int) -> Outcome:
        """Send the next ticks between ``member``, whose snapshots are sent, and ``lane``."""
        for _ in range(LAG_ADVANCES if member.state is State.LAGGING else 1):
            missing, most, ahead = distance(lane, member)
            if not sum(missing):
                # A session that comes from another lane may be ahead of this one.
                if not ahead:
                    return self._try_join(lane, member, now_ns)
                return Outcome.NEXT_FLUSH if member.send_backlog() else Outcome.DONE
            lagging = member.state is State.LAGGING
            if member.tier.every and not lagging and self._must_lag(member, sum(missing), most):
                self._begin_lag(member)
                lagging = True
            in_full = 0 if not member.tier.every else sum(missing[TRADES if lagging else QUOTES :])
            self._queue_ticks(lane, member, in_full)
            if lagging:
                member.next_advance_ns = now_ns + LAG_INTERVAL_NS
            elif len(member.backlog) <= SHORT_FRAMES and not any(distance(lane, member)[0]):
                return self._try_join(lane, member, now_ns)  # `synced` shares the send
            if not member.send_backlog():
                return Outcome.DONE
        return Outcome.CONTINUE

    def resume(self, member: Subscriber, added: list[Indices], names: Names, after: Cursor) -> Resumption:
        """Set the position of ``member`` to ``after`` where it can be resumed; see :func:`resume`."""
        return resume(member, added, names, after, self._rings, self._symbols, self._resume_ticks)

    def level(self, lane: Lane, member: Subscriber) -> bool:
        """Return whether ``member`` is at the position of ``lane`` and is owed no snapshot."""
        self._align(member)
        missing, _, ahead = distance(lane, member)
        return not (any(map(len, member.fresh)) or any(missing) or ahead)

    def gather(self, lane: Lane, member: Subscriber, content: FrameContent, most_bytes: int) -> bool:
        """Fill ``content`` with what lies between a poll and its lane, about ``most_bytes`` of it.

        Ticks and snapshots are in order of ``g``; the position of ``member`` moves behind them.
        Returns False if the poll's cursor is ahead of the lane. The content exceeds ``most_bytes`` only
        where snapshots are too large for any answer; the encoding then cuts them.
        """
        self._align(member)
        if distance(lane, member)[2]:
            return False
        fresh, snapshots = list(member.fresh), self._snapshot(lane, member).ticks()
        # Snapshots as of the cut take about as many bytes as the present ones.
        left = max(most_bytes - size_of(snapshots), 1)
        ticks: list[EncodedTick] = []
        while left > 0 and (in_full := sum(distance(lane, member)[0])):
            gaps, run = self._missed.read(lane, member, in_full if member.tier.every else 0)
            more = run.ticks()
            content.messages += gaps
            ticks += more
            left -= size_of(more) + sum(len(gap) + 1 for gap in gaps)
        if left > 0:
            member.g = lane.g
        while left < 0 and len(ticks) > 1:
            left += size_of([ticks.pop()])
            member.g = ticks[-1][0]
        if snapshots and snapshots[-1][0] > member.g:
            snapshots = [tick for tick in snapshots if tick[0] <= member.g]
            snapshots += self._older_snapshots(lane, fresh, member.g, {g for g, _ in snapshots})
        content.ticks += [fragment for _, fragment in sorted(ticks + snapshots)]
        return True

    def _older_snapshots(
        self, lane: Lane, fresh: list[Indices], cut: int, known: set[int]
    ) -> list[EncodedTick]:
        """Return snapshots as of ``cut`` of the ``fresh`` symbols whose latest tick is newer than ``cut``.

        The ticks in the next answer continue from these snapshots.
        """
        found: list[EncodedTick] = []
        for channel, symbols in enumerate(fresh):
            records, _ = self._rings.latest(channel, symbols, cut)
            gs, fragments = stamps_of(records).tolist(), lane.encoder.codec.fragments(channel, records)
            snaps = [lane.encoder.codec.as_snapshot(fragment, self._stale) for fragment in fragments]
            found += [(g, snap) for g, snap in zip(gs, snaps, strict=True) if g not in known]
        return found

    def _align(self, member: Subscriber) -> None:
        """Start symbols that have joined the interest of ``member`` before their first tick."""
        for channel, symbols in enumerate(member.interest.symbols):
            more = len(symbols) - len(member.seen[channel])
            if more:
                member.seen[channel] = np.concatenate([member.seen[channel], np.zeros(more, np.int64)])

    def _queue_announcements(self, member: Subscriber) -> None:
        """Announce the ids of symbols that are new to ``member``, before a record uses them."""
        interest = member.interest
        if member.known == interest.counts() and not len(member.untold):
            return
        untold = np.union1d(member.untold, interest.behind(member.known)).tolist()
        names = [(self._symbols.name(symbol), symbol) for symbol in untold]
        for start in range(0, len(names), MAX_NAMES):
            content = FrameContent(mixed=False)
            content.announced = dict(names[start : start + MAX_NAMES])
            self._queue_frame(member, content)
        member.known, member.untold = interest.counts(), _NONE

    def _queue_frame(
        self, member: Subscriber, content: FrameContent, ids: bool = True, ticks: int = 0, trades: int = 0
    ) -> None:
        """Append a frame to the backlog; ``ticks`` of it count in the ledger, among them ``trades``."""
        moment = Moment(self._rings.epoch, member.g, self._wall_ns())
        frame = member.encoding.frame(content, moment, ids)
        member.backlog.append((frame, ticks, trades))

    def _queue_messages(self, member: Subscriber, payload: bytes, cursor: str = "") -> None:
        """Append ``payload``, a JSON array of messages, to the backlog."""
        member.backlog.append((member.encoding.messages(payload, self._wall_ns(), cursor), 0, 0))

    def _must_lag(self, member: Subscriber, missing: int, most: int) -> bool:
        if member.synced:  # a snapshot or replay in progress is paced; that is no lag
            return member.replayed >= self._resume_ticks
        return missing > LAG_TICKS or most > self._rings.depth // 2

    def _snapshot(self, lane: Lane, member: Subscriber, most: int | None = None) -> Run:
        """Return snapshots of up to ``most`` fresh symbols (None: of all); move the member behind them."""
        runs: list[Run] = []
        as_snapshot = lane.encoder.codec.as_snapshot
        for channel, fresh in enumerate(member.fresh):
            if not len(fresh):
                continue
            symbols = fresh[:most]
            # An empty slice would keep the whole array.
            member.fresh[channel] = fresh[len(symbols) :] if len(symbols) < len(fresh) else _NONE
            most = None if most is None else most - len(symbols)
            mine = member.interest.symbols[channel]
            at = lane.seen[channel].take(symbols)
            ticked = at.nonzero()[0]
            latest = lane.encoder.latest(channel, symbols.take(ticked), at.take(ticked), lane.g)
            if member.tier.every and not (member.state is State.LAGGING and channel == QUOTES):
                # A tick that is overwritten meanwhile has no snapshot: the symbol begins with a gap.
                at[ticked] -= 1
            at[ticked[latest.held]] = latest.ns
            if len(symbols) == len(mine) and (symbols == mine).all():  # as in a new session of a few names
                member.seen[channel] = at
            else:
                position = np.zeros(self._rings.max_symbols, np.int64)
                position[mine] = member.seen[channel]
                position[symbols] = at
                member.seen[channel] = position[mine]
            order = latest.gs.argsort()
            snaps = [as_snapshot(latest.fragments[i], self._stale) for i in order.tolist()]
            runs.append(Run(latest.gs[order], [channel] * len(snaps), snaps))
        return merged(runs)

    def _queue_ticks(self, lane: Lane, member: Subscriber, in_full: int) -> None:
        """Append the next ticks between member and lane to the backlog, in order of ``g``."""
        gaps, run = self._missed.read(lane, member, in_full)
        member.replayed += len(run.gs)
        for start in range(0, max(len(run.gs), len(gaps)), FRAME_TICKS):
            part = slice(start, start + FRAME_TICKS)
            content = run.content(part, member.encoding.mixed)
            if not start:
                content.messages = gaps
            trades = run.channels[part].count(TRADES)
            self._queue_frame(member, content, member.ids, len(content), trades)

    def _begin_lag(self, member: Subscriber) -> None:
        if member.synced:
            self._queue_synced(member)
        member.lag()
        self._queue_messages(member, b'[{"T":"lag","on":true}]')

    def _queue_synced(self, member: Subscriber) -> None:
        """Append `synced` for each open request of the member."""
        cursor = str(Cursor(self._rings.epoch, member.g))
        messages: list[dict[str, object]] = []
        for request_id in member.synced:
            messages.append({"T": "synced", "cursor": cursor})
            if request_id is not None:
                messages[-1]["id"] = request_id
        member.synced.clear()
        member.ids = True
        self._queue_messages(member, orjson.dumps(messages), cursor)

    def _try_join(self, lane: Lane, member: Subscriber, now_ns: int) -> Outcome:
        """Answer open requests, then join the lane unless the member is blocked or its socket too full."""
        member.g = lane.g
        if member.synced:
            self._queue_synced(member)
        if member.state is State.LAGGING:
            # Hysteresis: with less than half of the buffer free, the next burst would make it lag again.
            if member.sink.unsent() > member.tier.send_buffer_bytes // 2:
                member.next_advance_ns = now_ns + LAG_INTERVAL_NS
                return Outcome.NEXT_FLUSH if member.send_backlog() else Outcome.DONE
            member.recover()
            self._queue_messages(member, b'[{"T":"lag","on":false,"conflated":%d}]' % member.lag_conflated)
        if not member.send_backlog():
            return Outcome.DONE
        member.replayed = 0
        member.switch_ledger()
        lane.join(member)
        return Outcome.DONE
