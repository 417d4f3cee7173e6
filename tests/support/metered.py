"""Random lives of sessions with a meter, and what their sockets received, counted apart from it."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import strategies as st

from marketfeed.access.usage import Interval, User, plus
from marketfeed.fanout.compression import COMPRESSED
from marketfeed.fanout.wire import BINARY, JSON, SSE
from tests.support.bench import BASIC, PREMIUM, SLOW_EVERY, VIP, Bench, Decoder, frames_of
from tests.support.lives import Lives, steps

TIERS = [VIP, SLOW_EVERY, PREMIUM, BASIC]
ENCODINGS = [JSON, BINARY, SSE, COMPRESSED]
USERS = [User("acme", "ann"), User("acme", "bob"), User("acme", "ann")]  # two sessions are ann's
INTERVAL = Interval(0.0, 20.0)
metered_steps = st.one_of(
    steps,
    steps,
    st.tuples(st.just("tier"), st.tuples(st.integers(0, 2), st.sampled_from(TIERS))),
    st.tuples(st.just("sweep"), st.none()),
)


class Received:
    """What one socket was handed: bytes of frames that are metered, and their ticks."""

    def __init__(self, socket) -> None:
        self.bytes = 0
        self.trades = self.quotes = 0
        self._decoder = Decoder()
        self._offer = socket.offer
        socket.offer = self.offer

    def offer(self, data: bytes) -> bool:
        for frame in frames_of(data):
            self._take(frame)
        return self._offer(data)

    def _take(self, frame: bytes) -> None:
        kinds = [message["T"] for message in self._decoder.decode(frame) if "snap" not in message]
        answer = bool(kinds) and set(kinds) <= {"subscription", "heartbeat"}
        if frame[0] != 0x89 and frame[:2] != b": " and not answer:
            self.bytes += len(frame)
        self.quotes += kinds.count("q")
        self.trades += kinds.count("t")


class MeteredLives(Lives):
    """The lives of tests.support.lives, with changes of tier and sweeps."""

    def __init__(self, bench):
        super().__init__(bench)
        self.actions |= {"tier": self._tier, "sweep": self._sweep}
        self.counts = {}
        self.symbols = {}
        self.received = {}

    async def enter(self, number, tier, encoding):
        await super().enter(number, tier, encoding)

    async def _tier(self, detail):
        number, tier = detail
        if number in self.sessions:
            await self._bench.subscribe(self.sessions[number][0], tier=tier)

    async def _sweep(self, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._bench.shard.meter.sweep)
            await trio.testing.wait_all_tasks_blocked()
            await self._bench.cycle()
        self.take()

    def take(self):
        for report in self._bench.shard.meter.take(INTERVAL):
            assert report.interval == INTERVAL
            for row in report.users:
                plus(self.counts.setdefault(row.sub, {}), row.counts)
                for number in row.sets:
                    self.symbols.setdefault(row.sub, []).append(report.sets[number])


async def metered(depth, tier, encodings, script):
    """Run a script; compare the meter with the ledgers and the sockets."""
    bench = Bench(depth=depth)
    lives = MeteredLives(bench)
    everyone = []
    for number, user in enumerate(USERS):
        member, socket = bench.enter(f"s{number}", tier, encodings[number])
        received = Received(socket)
        everyone.append((user, member, received))
        if number != 1:  # the second one is attached later, and counts from its beginning all the same
            bench.shard.meter.attach(member, user)
        lives.sessions[number] = (member, socket, None)
        await bench.subscribe(member, quotes="A", trades="A*")
    bench.shard.meter.attach(everyone[1][1], USERS[1])
    for action, detail in script:
        await lives.actions[action](detail)
    stayed = set(lives.sessions)
    for _ in range(20):
        for member, socket, _ in lives.sessions.values():
            bench.open(member, socket)
        await trio.sleep(0.5)
        await bench.cycle(2)
    ledgers = await bench.shard.figures.totals()
    for number in list(lives.sessions):
        await lives.actions["leave"](number)
    lives.take()
    assert len(bench.shard.meter) == 0
    by_tier: dict[str, int] = {}
    for counts in lives.counts.values():
        for (name, _), (ticks, size) in counts.items():
            assert ticks >= 0
            assert size >= 0
            by_tier[name] = by_tier.get(name, 0) + ticks
    delivered = {name: one.delivered for name, one in ledgers.items() if one.delivered}
    assert {name: ticks for name, ticks in by_tier.items() if ticks} == delivered
    for sub in ("ann", "bob"):
        own = [(n, received) for n, (user, _, received) in enumerate(everyone) if user.sub == sub]
        counts = lives.counts.get(sub, {})
        assert sum(size for _, size in counts.values()) == sum(received.bytes for _, received in own)
        if {n for n, _ in own} <= stayed:  # of others a frame may have remained in the socket
            for channel in ("quotes", "trades"):
                ticks = sum(ticks for (_, name), (ticks, _) in counts.items() if name == channel)
                assert ticks == sum(getattr(received, channel) for _, received in own)
