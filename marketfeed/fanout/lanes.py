"""The lanes of a shard: created on first use, removed when empty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import trio

from marketfeed import clock
from marketfeed.core.records import NO_QUOTES, QUOTES, TRADES, Records, stamps_of
from marketfeed.core.symbols import SymbolTable, shortest_prefixes
from marketfeed.core.units import S
from marketfeed.fanout.codecs import BinaryCodec, Encoder, JsonCodec
from marketfeed.fanout.lane import Lane
from marketfeed.fanout.newcomers import Newcomers
from marketfeed.fanout.wire import POLL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from marketfeed.core.rings import Indices, Rings
    from marketfeed.fanout.interest import Interests
    from marketfeed.fanout.subscriber import LaneKey, Subscriber
    from marketfeed.fanout.tiers import Tier
    from marketfeed.latency.recorder import LatencyRecorder

CHUNK: Final = 2048  # ticks encoded between two yields: one millisecond
KEEP_NS: Final = 60 * S  # for which a poll keeps its lane, and so the position of the tier's last flush


class LatestTicks:
    """The latest ticks of some symbols, in order of ``g``; more than CHUNK are encoded on demand.

    ``version`` is the highest ``g``, 0 if there is none: it changes exactly when the ticks do.
    """

    def __init__(
        self,
        channel: int,
        records: Records,
        encoder: Encoder,
        fragments: list[bytes] | None = None,
        version: int | None = None,
    ) -> None:
        """``records`` are in order of ``g``; they are ignored if ``fragments`` is given."""
        self._channel = channel
        self._records = records
        self._encoder = encoder
        self._fragments = fragments
        self.version = int(records["g"][-1]) if version is None else version

    def __len__(self) -> int:
        """Return the number of ticks."""
        return len(self._records) if self._fragments is None else len(self._fragments)

    async def fragments(self) -> list[bytes]:
        """Return the JSON objects; yields to other tasks after each CHUNK."""
        if self._fragments is not None:
            return self._fragments
        found: list[bytes] = []
        for start in range(0, len(self._records), CHUNK):
            found += self._encoder.fragments(self._channel, self._records[start : start + CHUNK])
            await trio.lowlevel.checkpoint()
        return found


class Lanes:
    """The lanes by tier, phase and codec, and one encoder per codec."""

    def __init__(
        self,
        rings: Rings,
        symbols: SymbolTable,
        interests: Interests,
        recorder: LatencyRecorder | None = None,
    ) -> None:
        self._rings = rings
        self._symbols = symbols
        self.newcomers = Newcomers(rings, symbols, interests)
        self._recorder = recorder
        self._encoders = {codec.name: Encoder(rings, codec) for codec in (JsonCodec(symbols), BinaryCodec())}
        self._all: dict[LaneKey, Lane] = {}
        self.dozing = False  # whether any lane is
        self.ungrouped: dict[Subscriber, None] = {}  # on `every` tiers, with polls and probes

    def __len__(self) -> int:
        """Return the number of lanes."""
        return len(self._all)

    def __iter__(self) -> Iterator[Lane]:
        """Iterate over a copy of the lanes; the iteration may add and remove lanes."""
        return iter(list(self._all.values()))

    def get(self, member: Subscriber) -> Lane | None:
        """Return the lane of ``member``, None if it does not exist."""
        return self._all.get(member.lane_key)

    def learn(self) -> int:
        """Let new symbols join; return the head up to which every symbol has joined."""
        return self.newcomers.learn()

    def of(self, member: Subscriber) -> Lane:
        """Return the lane of ``member``, creating it if necessary. Only between flushes."""
        head = self.learn()
        lane = self.get(member)
        if lane is None:
            lane = self._create(member.tier, member.lane_key, head)
        elif not lane.groups and not lane.tier.interval_ns:
            lane.collect(head)
        return lane

    def of_polls(self, tier: Tier) -> Lane:
        """Return the lane that serves polls of ``tier``, and keep it for KEEP_NS."""
        now_ns = clock.now_ns()
        key: LaneKey = (tier, 0, POLL.codec)
        lane = self._all.get(key)
        if lane is None:
            lane = self._create(tier, key, self.learn())
        lane.kept_until_ns = now_ns + KEEP_NS
        return lane

    def _create(self, tier: Tier, key: LaneKey, head: int) -> Lane:
        _, phase, codec = key
        encoder = self._encoders[codec]
        recorder = None if self._recorder is None else self._recorder.tier(tier.name)
        lane = Lane(
            tier, phase, encoder, self._rings, self._symbols, self.newcomers, recorder, self.ungrouped
        )
        lane.start_at(head)  # its sessions need nothing older
        if tier.interval_ns:
            lane.next_flush_ns = tier.next_flush_ns(phase, clock.now_ns())
        self._all[key] = lane
        alike = [other for other in self._all.values() if other.encoder is encoder]
        encoder.shared = any(not other.tier.every for other in alike)
        return lane

    def next_wake_ns(self, wake_ns: int, now_ns: int) -> int:
        """Return when a lane or a session that is catching up is due, ``wake_ns`` if that is earlier.

        Lanes with an interval and nothing to send doze: they are not due before the next tick.
        """
        head = self._rings.head()
        self.dozing = False
        for lane in self:
            if lane.tier.interval_ns:
                if lane.g == head and not lane.catching_up:
                    lane.dozing = self.dozing = True
                    continue
                lane.rouse(now_ns)
                wake_ns = min(wake_ns, lane.next_flush_ns)
            elif lane.catching_up:
                wake_ns = min([wake_ns, *(member.next_advance_ns for member in lane.catching_up)])
        return wake_ns

    def discard(self, lane: Lane) -> None:
        """Remove ``lane`` if it is empty and not kept for polls."""
        if not len(lane) and lane.kept_until_ns <= clock.now_ns():
            del self._all[lane.key]
            lane.close()

    def dissolve_empty(self) -> bool:
        """Remove one group without members; return False if there is none."""
        return any(lane.dissolve_empty() for lane in self)

    def sweep(self) -> None:
        """Remove empty lanes that are no longer kept for polls."""
        for lane in self:
            if lane.kept_until_ns:
                self.discard(lane)

    def ticks(self) -> tuple[list[str], Indices]:
        """Return all symbol names, and the number of ticks of each so far, shape ``(k,)``."""
        names = self._symbols.names()
        quotes, trades = (self._rings.published(channel, len(names)) for channel in (QUOTES, TRADES))
        return names, quotes + trades

    def latest(self, channel: int, names: Iterable[str], tier: Tier) -> LatestTicks:
        """Return the latest tick of each symbol as of the tier's last flush."""
        lane = self.of_polls(tier)
        named: list[str] = []
        patterns: list[str] = []
        for name in names:
            (patterns if name.endswith("*") else named).append(name)
        prefixes = shortest_prefixes(pattern[:-1] for pattern in patterns)
        symbols = self._symbols.resolve(named, prefixes)
        at = lane.seen[channel][symbols]
        symbols, at = symbols[at > 0], at[at > 0]
        if len(symbols) > CHUNK:
            records, _ = self._rings.latest(channel, symbols, lane.g)
            return LatestTicks(channel, records[np.argsort(stamps_of(records))], lane.encoder)
        latest = lane.encoder.latest(channel, symbols, at, lane.g)
        order = np.argsort(latest.gs)
        version = int(latest.gs[order[-1]]) if len(order) else 0
        fragments = [latest.fragments[i] for i in order.tolist()]
        return LatestTicks(channel, NO_QUOTES, lane.encoder, fragments, version)
