"""A lane: all sessions of one tier, phase and codec. They share a position and advance together.

    rings ──► collect ticks that are new for any session ──► encode each once
          ──► append each fragment to the groups that take its symbol ──► one frame per group ──► members

The innermost loop, fragment to group, is one bound ``list.append`` per delivery. With the join of the frame
it costs about 40 ns per delivered tick, less than numpy needs to sort the same deliveries by group
(perf/fanout.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from marketfeed.core.few import FEW, Tick, scalars
from marketfeed.core.records import CHANNELS, TRADES, Records, stamps_of
from marketfeed.fanout.codecs import Encoder, gap_fragment
from marketfeed.fanout.group import Group
from marketfeed.fanout.takers import Takers
from marketfeed.latency.recorder import Flush, FlushedTicks, TierRecorder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from marketfeed.core.rings import Indices, Rings, Ticks
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.fanout.interest import Interest
    from marketfeed.fanout.newcomers import Newcomers
    from marketfeed.fanout.subscriber import LaneKey, Subscriber
    from marketfeed.fanout.tiers import Tier
    from marketfeed.fanout.wire import Encoding

MAX_FLUSH_TICKS: Final = 16384  # so that other tasks run between flushes under overload


class Lane:
    """Groups by interest and encoding, the position that they share, and the flush in progress."""

    def __init__(
        self,
        tier: Tier,
        phase: int,
        encoder: Encoder,
        rings: Rings,
        symbols: SymbolTable,
        newcomers: Newcomers,
        recorder: TierRecorder | None = None,
        ungrouped: dict[Subscriber, None] | None = None,
    ) -> None:
        self.tier = tier
        self.phase = phase
        self.key: LaneKey = (tier, phase, encoder.codec.name)
        self.encoder = encoder
        self._rings = rings
        self._symbols = symbols
        self._ungrouped = {} if ungrouped is None else ungrouped
        self._newcomers = newcomers
        self.groups: dict[tuple[Interest, Encoding], Group] = {}
        self.catching_up: dict[Subscriber, None] = {}  # advanced separately after the next flush
        self.seen: list[Indices] = [np.zeros(rings.max_symbols, np.int64) for _ in CHANNELS]
        self.omitted: Indices = np.zeros(rings.max_symbols, np.int64)  # trades, lost or conflated
        self.g = 0  # the lane has read every tick up to here
        self.next_flush_ns = 0
        self.dozing = False  # nothing to send: the shard does not wake for the next flush
        self.short = False  # whether the last flush ended before the head
        self.kept_until_ns = 0  # an empty lane is kept for polls until then
        self._empty: dict[Group, None] = {}  # groups without members, dissolved when there is time
        self._takers = Takers(symbols, rings.max_symbols)
        self._offset = rings.max_symbols
        self._wanted = self._takers.wanted
        # The same as Python numbers, for a few ticks.
        self._one_seen = [scalars(seen) for seen in self.seen]
        self._one_wanted = [scalars(wanted) for wanted in self._wanted]
        self._recorder = recorder
        # Of the flush in progress, for the latencies.
        self._flushed: list[FlushedTicks] = []
        self._flushed_few: list[Tick] = []

    # Membership: only between flushes.

    def join(self, member: Subscriber) -> None:
        """Add a session that is at the lane's position to its group."""
        key = (member.interest, member.encoding)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(*key, at_once=not self.tier.interval_ns)
            self._takers.add(group)
            member.interest.groups.append((group, self._takers))
        self._empty.pop(group, None)
        group.join(member, self.seen, self.omitted)
        self._takers.count(group, 1)
        if self._ungrouped:
            self._ungrouped.pop(member, None)
        member.awaited = True

    def leave(self, member: Subscriber) -> None:
        """Remove a session; the lane's position becomes its own."""
        group = member.group
        if group is None:
            self.catching_up.pop(member, None)
            return
        group.leave(member, self.seen, self.omitted)
        self._takers.count(group, -1)
        member.g = self.g
        if self.tier.every:
            self._ungrouped[member] = None
        if not group.members:
            self._empty[group] = None

    def dissolve(self, group: Group) -> None:
        """Remove ``group``, with or without members."""
        del self.groups[group.interest, group.encoding]
        group.interest.leave(group)
        self._empty.pop(group, None)
        self._takers.count(group, -len(group.members))
        self._takers.drop(group)

    def dissolve_empty(self) -> bool:
        """Remove one group that has no members; return False if there is none."""
        if not self._empty:
            return False
        self.dissolve(next(iter(self._empty)))
        return True

    def close(self) -> None:
        """Unregister all groups from their interests, before the lane is removed."""
        for group in self.groups.values():
            group.interest.leave(group)
        self._takers.close()

    def rouse(self, now_ns: int) -> None:
        """End dozing; the next flush is the first on the grid after ``now_ns``."""
        if self.dozing:
            self.dozing = False
            if self.next_flush_ns <= now_ns:
                self.next_flush_ns = self.tier.next_flush_ns(self.phase, now_ns)

    def __len__(self) -> int:
        """Return the number of groups with members, plus the sessions that are catching up."""
        return len(self.groups) - len(self._empty) + len(self.catching_up)

    # One flush: collect, then frames.

    def collect(self, head: int) -> list[Group]:
        """Advance the lane to ``head``, or less far (``short``); return the groups that have new ticks."""
        self._flushed, self._flushed_few = [], []
        self.short = False
        if head == self.g:
            return []
        if not self.groups:
            if not self._newcomers.short:  # until then it keeps its position
                self._set_position(self._published(), head)
            return []
        if not self.tier.every:
            return self._collect_latest(head)
        few = self._rings.few.between(self.g, head) if head - self.g <= FEW else None
        return self._collect_every(head) if few is None else self._collect_few(few, head)

    def start_at(self, head: int) -> None:
        """Set the position to ``head``, before any session has joined."""
        upto = self._published()
        self._set_position(self._bounded(upto, head) if self._newcomers.short else upto, head)

    def _published(self) -> list[Indices]:
        """Return the newest ``n`` of each symbol; 0 for symbols that have not joined yet."""
        # Of existing symbols only: an array for max_symbols would be 128 kB per flush.
        found = [self._rings.published(channel, len(self._symbols)) for channel in range(len(CHANNELS))]
        pending = self._newcomers.pending
        if len(pending):
            for ns in found:
                ns[pending] = 0
        return found

    def _bounded(self, upto: list[Indices], head: int) -> list[Indices]:
        """Return ``upto`` limited to ``head``, but not below the lane's position."""
        found: list[Indices] = []
        for channel, ns in enumerate(upto):
            at = self._rings.position(channel, np.arange(len(ns)), head)
            found.append(np.minimum(np.maximum(at, self.seen[channel][: len(ns)]), ns))
        return found

    def _changed(self, upto: list[Indices]) -> list[Indices]:
        """Return, per channel, the symbols that any group takes and that have new ticks."""
        count = len(upto[0])
        return [
            np.flatnonzero((upto[channel] != self.seen[channel][:count]) & self._wanted[channel][:count])
            for channel in range(len(CHANNELS))
        ]

    def _set_position(self, upto: list[Indices], head: int) -> None:
        """Set the position to ``head``, and to ``upto`` for existing symbols."""
        for seen, ns in zip(self.seen, upto, strict=True):
            seen[: len(ns)] = ns
        self.g = head

    def _collect_every(self, head: int) -> list[Group]:
        self.short = head > self.g + MAX_FLUSH_TICKS
        head = min(head, self.g + MAX_FLUSH_TICKS)
        touched: set[Group] = set()
        fragments: list[bytes] = []
        keys: list[int] = []
        stamps: list[NDArray[np.uint64]] = []
        for channel, records in enumerate(self._read_sequence(head) or self._read_symbols(head, touched)):
            if not len(records):
                continue
            encoded = self.encoder.fragments(channel, records)
            if self.encoder.shared:
                self.encoder.keep(channel, records, records["n"], encoded)
            fragments += encoded
            keys += (records["symbol"] + np.int64(channel * self._offset)).tolist()
            stamps.append(stamps_of(records))
            if self._recorder is not None:
                times = records["ts_event"], records["ts_recv"]
                self._flushed.append(FlushedTicks(channel, records["symbol"], stamps[-1], *times))
        if len(stamps) > 1:  # merge the channels, each in order of g
            order = np.argsort(np.concatenate(stamps)).tolist()
            fragments, keys = [fragments[i] for i in order], [keys[i] for i in order]
        appends = self._takers.appends
        for key, fragment in zip(keys, fragments, strict=True):
            for append in appends[key]:
                append(fragment)
        return self._touched(keys, touched)

    def _collect_few(self, ticks: list[Tick], head: int) -> list[Group]:
        """Do the same as :meth:`_collect_every` one by one; the engine's own probes come last."""
        encoder, takers = self.encoder, self._takers
        touched: dict[Group, None] = {}
        for tick in ticks:
            seen = self._one_seen[tick.channel]
            if tick.n <= seen[tick.symbol]:  # a position that was read while the head moved
                continue
            seen[tick.symbol] = tick.n
            if not self._one_wanted[tick.channel][tick.symbol]:
                continue
            fragment = encoder.fragment(tick)
            if encoder.shared:
                encoder.keep_one(tick, fragment)
            key = tick.channel * self._offset + tick.symbol
            for append in takers.appends[key]:
                append(fragment)
            touched.update(dict.fromkeys(takers.groups[key]))
            if self._recorder is not None:
                self._flushed_few.append(tick)
        self.g = head
        if len(touched) == 1:
            return list(touched)
        return sorted(touched, key=lambda group: not group.encoding.counted)

    def _read_sequence(self, head: int) -> list[Records] | None:
        """Return the records up to ``head`` that any group takes, per channel, and set the position to it.

        The usual case. Its cost depends on the number of new ticks and not on the number of symbols. Returns
        None if the rings' sequence does not hold all of them.
        """
        found = self._rings.between(self.g, head)
        if found is None:
            return None
        wanted: list[Records] = []
        for channel, (records, ns) in enumerate(found):
            symbols, seen = records["symbol"].astype(np.int64), self.seen[channel]
            newer = ns > seen[symbols]  # a position that was read while the head moved may be beyond it
            if not newer.all():
                records, ns, symbols = records[newer], ns[newer], symbols[newer]
            seen[symbols] = ns  # of repeated symbols the last assignment counts: the newest
            chosen = self._wanted[channel][symbols]
            wanted.append(records if chosen.all() else records[chosen])
        self.g = head
        return wanted

    def _read_symbols(self, head: int, touched: set[Group]) -> list[Records]:
        """Do the same as :meth:`_read_sequence` symbol by symbol, with gaps for overwritten ticks."""
        upto = self._published()
        if head < self._rings.head():
            upto = self._bounded(upto, head)
        found: list[Records] = []
        for channel, symbols in enumerate(self._changed(upto)):
            ticks = self._rings.read(
                channel, symbols, self.seen[channel][symbols], upto[channel][symbols], head
            )
            upto[channel][symbols] = ticks.seen
            if ticks.lost.any():
                self._add_gaps(channel, symbols, ticks, touched)
            found.append(ticks.records[np.argsort(stamps_of(ticks.records))])
        self._set_position(upto, head)
        return found

    def _collect_latest(self, head: int) -> list[Group]:
        upto = self._published()
        fragments: list[bytes] = []
        keys: list[int] = []
        skips: list[int] = []
        stamps: list[NDArray[np.uint64]] = []
        for channel, symbols in enumerate(self._changed(upto)):
            if not len(symbols):
                continue
            seen = self.seen[channel]
            latest = self.encoder.latest(channel, symbols, upto[channel][symbols], head)
            upto[channel][symbols[~latest.held]] = seen[symbols[~latest.held]]
            held = symbols[latest.held]
            newer = latest.ns > seen[held]
            upto[channel][held] = np.maximum(latest.ns, seen[held])
            skipped_ns = (latest.ns - seen[held] - 1)[newer]
            skips += skipped_ns.tolist()
            if channel == TRADES:
                self.omitted[held[newer]] += skipped_ns
            keys += (held + channel * self._offset)[newer].tolist()
            fragments += [f for f, new in zip(latest.fragments, newer.tolist(), strict=True) if new]
            stamps.append(latest.gs[newer])
            if self._recorder is not None:
                order = np.argsort(stamps[-1])
                times = latest.times[:, newer][:, order]
                self._flushed.append(FlushedTicks(channel, held[newer][order], stamps[-1][order], *times))
        self._set_position(upto, head)
        if not keys:
            return []
        takers, appends = self._takers.groups, self._takers.appends
        for i in np.argsort(np.concatenate(stamps)).tolist():
            key, fragment, skipped = keys[i], fragments[i], skips[i]
            for append in appends[key]:
                append(fragment)
            if skipped:
                for group in takers[key]:
                    group.conflated += skipped
        return self._touched(keys, set())

    def record(self, flush: Flush) -> None:
        """Record the latencies of the flush; members whose sinks were full have left their groups."""
        if self._recorder is None:
            return
        if self._flushed_few:
            self._recorder.flush_few(self._flushed_few, self._takers.members, flush)
            self._flushed_few = []
        else:
            self._recorder.flush(self._flushed, self._takers.members, flush)
            self._flushed = []

    def _touched(self, keys: list[int], touched: set[Group]) -> list[Group]:
        """Return the groups that hold fragments. The cost depends on the deliveries, not on the groups."""
        distinct = set(keys)
        if len(distinct) < len(self.groups):
            for key in distinct:
                touched.update(self._takers.groups[key])
            return list(touched)
        return [group for group in self.groups.values() if len(group.content) or group.content.messages]

    def _add_gaps(self, channel: int, symbols: Indices, ticks: Ticks, touched: set[Group]) -> None:
        """Add gaps before the ticks of the flush: the first lost tick may be older than any of them."""
        for i in np.flatnonzero(ticks.lost).tolist():
            symbol, lost = int(symbols[i]), int(ticks.lost[i])
            if channel == TRADES:
                self.omitted[symbol] += lost
            next_n = int(ticks.seen[i] - ticks.counts[i]) + 1
            fragment = gap_fragment(self._symbols.name(symbol), CHANNELS[channel], lost, next_n)
            for group in self._takers.groups[channel * self._offset + symbol]:
                group.content.messages.append(fragment)
                group.lost += lost
                touched.add(group)
