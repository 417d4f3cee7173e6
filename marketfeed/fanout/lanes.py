"""The lanes of a shard: made when somebody needs them, forgotten when nobody does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import trio

from marketfeed.core.records import QUOTES, TRADES
from marketfeed.core.rings import Indices, Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.fanout.encode import BinaryCodec, Encoder, JsonCodec
from marketfeed.fanout.encoding import POLL
from marketfeed.fanout.interest import Interests
from marketfeed.fanout.lane import Lane
from marketfeed.fanout.subscriber import LaneKey, Subscriber
from marketfeed.fanout.tiers import Tier
from marketfeed.latency.recorder import Recorder

S: Final = 1_000_000_000  # ns
KEEP_NS: Final = 60 * S  # after a poll, so that the next one finds what the tier's last flush was


class Lanes:
    """Lanes by tier, phase and codec, and an encoder for each codec."""

    def __init__(
        self, rings: Rings, symbols: SymbolTable, interests: Interests, recorder: Recorder | None = None
    ) -> None:
        self._rings = rings
        self._symbols = symbols
        self._interests = interests
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
        """Let new symbols join; return a head loaded before, up to which no tick can pass as unwanted."""
        head = self._rings.head()
        self._interests.learn()
        return head

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
        now_ns = int(trio.current_time() * S)
        key: LaneKey = (tier, 0, POLL.codec)
        lane = self._all.get(key)
        if lane is None:
            lane = self._made(tier, key, self._rings.head())
        lane.kept_until_ns = now_ns + KEEP_NS
        return lane

    def _made(self, tier: Tier, key: LaneKey, head: int) -> Lane:
        _, phase, codec = key
        encoder = self._encoders[codec]
        recorder = None if self._recorder is None else self._recorder.tier(tier.name)
        lane = Lane(tier, phase, encoder, self._rings, self._symbols, recorder, self.apart)
        lane.collect(head)  # stands at the head, where nobody waits for what was before
        if tier.interval_ns:
            lane.next_flush_ns = tier.next_flush_ns(phase, int(trio.current_time() * S))
        self._all[key] = lane
        alike = [other for other in self._all.values() if other.encoder is encoder]
        encoder.shared = any(not other.tier.every for other in alike)
        return lane

    def discard(self, lane: Lane) -> None:
        """Forget ``lane`` if nobody is in it and no poll was there lately."""
        if not len(lane) and lane.kept_until_ns <= trio.current_time() * S:
            del self._all[lane.key]

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

    def latest(self, channel: int, names: Iterable[str], tier: Tier) -> tuple[list[bytes], int]:
        """Return the latest tick of each symbol as of the tier's last flush, and a version.

        The JSON objects are in order of ``g``; the version is the highest of
        these, 0 if there is none, and so changes exactly when they do.
        """
        lane = self.of_polls(tier)
        found = {symbol for name in names for symbol in self._symbols.matching(name)}
        symbols = np.array(sorted(found), np.int64)
        at = lane.seen[channel][symbols]
        latest = lane.encoder.latest(channel, symbols[at > 0], at[at > 0], lane.g)
        order = np.argsort(latest.gs)
        version = int(latest.gs[order[-1]]) if len(order) else 0
        return [latest.fragments[i] for i in order.tolist()], version
