"""The lanes of a shard: made when somebody needs them, forgotten when nobody does."""

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

CHUNK: Final = 2048  # ticks encoded between two turns of others: one millisecond
KEEP_NS: Final = 60 * S  # after a poll, so that the next one finds what the tier's last flush was


class LatestTicks:
    """The latest ticks of some symbols, in order of ``g``; many are encoded only when they are asked for.

    ``version`` is the highest ``g``, 0 if there is none, and so changes exactly when they do.
    """

    def __init__(
        self,
        channel: int,
        records: Records,
        encoder: Encoder,
        fragments: list[bytes] | None = None,
        version: int | None = None,
    ) -> None:
        """``records`` are in order of ``g``, and not looked at where there are ``fragments``."""
        self._channel = channel
        self._records = records
        self._encoder = encoder
        self._fragments = fragments
        self.version = int(records["g"][-1]) if version is None else version

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._records) if self._fragments is None else len(self._fragments)

    async def fragments(self) -> list[bytes]:
        """Return the JSON objects; lets others run after each CHUNK."""
        if self._fragments is not None:
            return self._fragments
        found: list[bytes] = []
        for start in range(0, len(self._records), CHUNK):
            found += self._encoder.fragments(self._channel, self._records[start : start + CHUNK])
            await trio.lowlevel.checkpoint()
        return found


class Lanes:
    """Lanes by tier, phase and codec, and an encoder for each codec."""

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
        self.apart: dict[Subscriber, None] = {}  # of `every` tiers, in no group, polls and probes too

    def __len__(self) -> int:
        """Return how many lanes there are."""
        return len(self._all)

    def __iter__(self) -> Iterator[Lane]:
        """Yield the lanes there are now; some may come and go meanwhile."""
        return iter(list(self._all.values()))

    def get(self, member: Subscriber) -> Lane | None:
        """Return the lane of ``member`` if there is one."""
        return self._all.get(member.lane_key)

    def learn(self) -> int:
        """Let new symbols join; return a head up to which no tick can pass as unwanted."""
        return self.newcomers.learn()

    def of(self, member: Subscriber) -> Lane:
        """Return the lane of ``member``, made if need be; between flushes only."""
        head = self.learn()
        lane = self.get(member)
        if lane is None:
            lane = self._made(member.tier, member.lane_key, head)
        elif not lane.groups and not lane.tier.interval_ns:
            lane.collect(head)
        return lane

    def of_polls(self, tier: Tier) -> Lane:
        """Return the lane that polls at ``tier`` are answered from, kept for a while."""
        now_ns = clock.now_ns()
        key: LaneKey = (tier, 0, POLL.codec)
        lane = self._all.get(key)
        if lane is None:
            lane = self._made(tier, key, self.learn())
        lane.kept_until_ns = now_ns + KEEP_NS
        return lane

    def _made(self, tier: Tier, key: LaneKey, head: int) -> Lane:
        _, phase, codec = key
        encoder = self._encoders[codec]
        recorder = None if self._recorder is None else self._recorder.tier(tier.name)
        lane = Lane(tier, phase, encoder, self._rings, self._symbols, self.newcomers, recorder, self.apart)
        lane.stand(head)  # where nobody waits for what was before
        if tier.interval_ns:
            lane.next_flush_ns = tier.next_flush_ns(phase, clock.now_ns())
        self._all[key] = lane
        alike = [other for other in self._all.values() if other.encoder is encoder]
        encoder.shared = any(not other.tier.every for other in alike)
        return lane

    def discard(self, lane: Lane) -> None:
        """Forget ``lane`` if nobody is in it and no poll was there lately."""
        if not len(lane) and lane.kept_until_ns <= clock.now_ns():
            del self._all[lane.key]
            lane.close()

    def dissolve_empty(self) -> bool:
        """Forget one group without members; False if there is none."""
        return any(lane.dissolve_empty() for lane in self)

    def sweep(self) -> None:
        """Forget the lanes that were kept for polls that no longer come."""
        for lane in self:
            if lane.kept_until_ns:
                self.discard(lane)

    def ticks(self) -> tuple[list[str], Indices]:
        """Return the names there are, and how many ticks each had so far, shape ``(k,)``."""
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
