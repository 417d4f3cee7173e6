"""Simulation of tiers: runs a recording through rings and tiers on a virtual clock.

    replay feed ──► pump ──► rings ──► shard ──► counting sinks

Everything but the sinks and the clock is the engine's own code. On the virtual
clock pauses of the recording take no time, and every tick and every flush
happens exactly at its time. Each tier serves one session per phase and
encoding; the figures are those of one session, averaged over the phases. They
do not include a network.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import trio
import trio.testing

from marketfeed import clock
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.units import MINUTE_NS, S
from marketfeed.core.writer import RingWriter
from marketfeed.errors import SourceError
from marketfeed.fanout.change import SubscriptionChange
from marketfeed.fanout.keepalive import Timing
from marketfeed.fanout.shard import Shard
from marketfeed.fanout.wire import BINARY, JSON, Encoding
from marketfeed.ingest.pump import Pump
from marketfeed.recordings.counting_sink import CountingSink, Delays, wall_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from marketfeed.core.records import Batch
    from marketfeed.fanout.interest import Names
    from marketfeed.fanout.ledger import Ledger
    from marketfeed.fanout.subscriber import Subscriber
    from marketfeed.fanout.tiers import Tier
    from marketfeed.ingest.registry import FeedSpec

BESIDE_GRIDS_NS: Final = 300
_NEVER_NS: Final = 1 << 62  # no heartbeats and pings: they would count as bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """Figures of one session on a tier, averaged over its phases."""

    interval_ms: float
    delivery: str
    matched: float
    delivered: float
    conflated: float
    lost: float
    frames: float
    json_bytes: float
    binary_bytes: float
    delay_ms: dict[str, float]  # from receipt to flush: mean, p50, p90, p99, max


@dataclass(frozen=True, slots=True)
class Result:
    """Outcome per tier, by the names in the :class:`Plan`, and figures of the run."""

    tiers: dict[str, Outcome]
    quotes: int
    trades: int
    symbols: int
    started_ns: int  # start of the feed, on the virtual clock, to whose zero all grids are aligned
    recorded_s: float
    took_s: float
    events: dict[str, int]  # what the feed counted, such as broken lines
    names: tuple[str, ...] = ()  # of the recording's symbols
    damage: str = ""  # where and why the recording could not be read to its end

    @property
    def pace(self) -> float:
        """Speed of the simulation relative to real time."""
        return self.recorded_s / max(self.took_s, 1e-9)

    @property
    def ticks_per_s(self) -> float:
        """Ticks simulated per second of real time."""
        return (self.quotes + self.trades) / max(self.took_s, 1e-9)


@runtime_checkable
class _Recording(Protocol):
    def chunks(self) -> Any: ...


@dataclass(slots=True)
class Progress:
    """Progress of a simulation; ``tell`` is called after each batch."""

    total: int = 0  # ticks; 0: not known
    done: int = 0
    tell: Callable[[Progress], None] = field(default=lambda progress: None)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to simulate. ``phases``: number of phases per tier, evenly spread over its interval."""

    feed: FeedSpec
    base: Path
    tiers: dict[str, Tier]  # by their names in the result; the names of the Tiers differ, too
    names: Names
    phases: int = 4
    chosen: dict[str, list[int]] = field(default_factory=dict)  # explicit phases of a tier, instead
    max_symbols: int = 8192
    ring_depth: int = 1024


def simulate(plan: Plan, progress: Progress | None = None, count_first: bool = False) -> Result:
    """Run the plan to the recording's end.

    With ``count_first`` the recording is read once before, so that
    ``progress`` has a total. Raises ConfigError if the recording cannot be
    replayed, and the errors of its feed: FeedProtocolError and OSError.
    """
    progress = progress or Progress()
    if count_first:
        progress.total = _count(plan)
    try:
        return trio.run(_simulate, plan, progress, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseExceptionGroup as group:
        leaf: BaseException = group
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        raise leaf from None  # KeyboardInterrupt too, from whichever task raised it


def _engine(plan: Plan) -> tuple[Shard, Pump]:
    rings = Rings.private(plan.max_symbols, plan.ring_depth)
    symbols = SymbolTable(plan.max_symbols, rings.names)
    shard = Shard(rings, symbols, Timing(_NEVER_NS, _NEVER_NS, _NEVER_NS), 1 << 30, wall_ns)
    return shard, Pump(RingWriter(rings), symbols, shard.wake, wall_ns)


def _count(plan: Plan) -> int:
    _, pump = _engine(plan)
    feed = plan.feed.factory(plan.feed.settings, pump.intake(plan.feed.name, plan.base))
    return sum(len(decoded.batch) for decoded in feed.chunks()) if isinstance(feed, _Recording) else 0


async def _simulate(plan: Plan, progress: Progress) -> Result:
    shard, pump = _engine(plan)
    intake = pump.intake(plan.feed.name, plan.base)
    feed = plan.feed.factory(plan.feed.settings, intake)
    began_s = time.monotonic()

    def publish(batch: Batch) -> None:
        intake.publish(batch)
        progress.done += len(batch)
        progress.tell(progress)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shard.run)
        sessions = {
            name: [
                await _session(shard, f"{name}-{phase}-{encoding.name}", tier, phase, encoding, plan.names)
                for phase in plan.chosen.get(name) or _spread(tier, plan.phases)
                for encoding in (JSON, BINARY)
            ]
            for name, tier in plan.tiers.items()
        }
        # All sessions are synced. Start slightly off the grids, so that no tick coincides with a flush:
        # the order of the two would be undefined.
        grid_ns = _common_grid_ns(plan.tiers.values())
        begin_ns = (clock.now_ns() // grid_ns + 1) * grid_ns + BESIDE_GRIDS_NS
        await trio.sleep_until(begin_ns / S)
        start_s = trio.current_time()
        damage = ""
        try:
            await feed.run(publish)
        except SourceError as error:
            damage = str(error)
        recorded_s = trio.current_time() - start_s
        # Wait for the flush of the last tick on every tier.
        await trio.sleep(max((tier.interval_ns for tier in plan.tiers.values()), default=0) / S + 0.001)
        outcomes = {
            name: _outcome(plan.tiers[name], [(sink, _booked(shard, member)) for member, sink in served])
            for name, served in sessions.items()
        }
        nursery.cancel_scope.cancel()
    return Result(
        tiers=outcomes,
        quotes=intake.ticks[0],
        trades=intake.ticks[1],
        symbols=len(shard.symbols),
        started_ns=round(start_s * S),
        recorded_s=recorded_s,
        took_s=time.monotonic() - began_s,
        events=dict(intake.events),
        names=tuple(shard.symbols.names(0)),
        damage=damage,
    )


def _common_grid_ns(tiers: Iterable[Tier]) -> int:
    """Return the least common multiple of the intervals of ``tiers``; a second if it exceeds a minute."""
    grid_ns = math.lcm(S, *(tier.interval_ns for tier in tiers if tier.interval_ns))
    return grid_ns if grid_ns <= MINUTE_NS else S


def _spread(tier: Tier, phases: int) -> list[int]:
    count = min(tier.phases, phases)
    return [number * tier.phases // count for number in range(count)]


async def _session(
    shard: Shard, id: str, tier: Tier, phase: int, encoding: Encoding, names: Names
) -> tuple[Subscriber, CountingSink]:
    """Add a session; return it subscribed and synced, with its counters at 0."""
    sink = CountingSink(tier, encoding)
    member = shard.enter(id, sink, tier, encoding)
    member.phase = phase
    await shard.change(SubscriptionChange(member, names, tier, encoding, lambda resumption: b"\0\0", True))
    while not member.synced_once:  # noqa: ASYNC110 - on a virtual clock, cycle by cycle
        await trio.sleep(max(tier.interval_ns, 1_000_000) / S)
    sink.bytes = sink.frames = 0
    return member, sink


def _booked(shard: Shard, member: Subscriber) -> Ledger:
    (ledger,) = shard.figures.ledgers(member).values()
    return ledger


def _outcome(tier: Tier, served: list[tuple[CountingSink, Ledger]]) -> Outcome:
    delays = Delays(tier.interval_ns)
    for sink, ledger in served:
        # At the end of a recording the ledger must balance, with nothing pending.
        if ledger.difference or ledger.pending or ledger.abandoned:
            raise RuntimeError(f"the ledger of tier {tier.name} does not balance: {ledger}")
        if sink.delays is not None:
            delays.merge(sink.delays)

    def mean(values: list[int]) -> float:
        return sum(values) / len(values)

    return Outcome(
        interval_ms=tier.interval_ns / 1e6,
        delivery="every" if tier.every else "latest",
        matched=mean([ledger.matched for _, ledger in served]),
        delivered=mean([ledger.delivered for _, ledger in served]),
        conflated=mean([ledger.conflated for _, ledger in served]),
        lost=mean([ledger.lost for _, ledger in served]),
        frames=mean([sink.frames for sink, _ in served]),
        json_bytes=mean([sink.bytes for sink, _ in served if sink.delays is None]),
        binary_bytes=mean([sink.bytes for sink, _ in served if sink.delays is not None]),
        delay_ms={
            "mean": delays.mean_ns / 1e6,
            **{f"p{p}": delays.percentile_ns(p) / 1e6 for p in (50, 90, 99)},
            "max": delays.max_ns / 1e6,
        },
    )
