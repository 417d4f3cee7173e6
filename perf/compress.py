"""Does it pay to compress the frames of a group?

    recordings, synthetic feed ──► rings ──► lane: 100 ms, 500 ms ──► group of 10, 100, 1,000 symbols
                                             ──► frame: JSON, binary ──► compressed once ──► each member

Reports, for each way to compress: bytes per frame without and with it, their ratio, the times to compress and
decompress, and the ratio of the server's CPU time per delivered frame with 1 to 1,000 members in the group.
That time is (append + encode + compress) / members + one send of a frame of this size, which is measured on
loopback sockets. A way pays where the bytes fall by three times the factor by which CPU time rises, or more:
bytes / CPU >= 3. A second table has that figure by the size of frames, for the worst of all groups.

Groups have the most active symbols of their source: their frames are the largest, and compress best.
Compressions are measured in turns, as medians over ``--rounds``; every result is decompressed and compared.
Not covered: a network, TLS, the rest of the client's work.

    MARKETFEED_REALDATA=FOLDER python -m perf.compress
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import random
import selectors
import signal
import socket
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import trio

from marketfeed import clock
from marketfeed.core.binary import HEADER
from marketfeed.core.records import Batch
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.units import MS, US
from marketfeed.core.writer import RingWriter
from marketfeed.fanout.interest import Interests, Names
from marketfeed.fanout.lanes import Lanes
from marketfeed.fanout.subscriber import Subscriber
from marketfeed.fanout.tiers import Tier
from marketfeed.fanout.wire import ENCODINGS, Moment
from marketfeed.fanout.ws_frames import header, payload_span
from perf import bench
from perf.compress_sources import Ticks, sources
from perf.compress_ways import ways_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


TIERS: Final = {"premium": 100 * MS, "basic": 500 * MS}
SIZES: Final = (10, 100, 1000)  # symbols of a group
MEMBERS: Final = (1, 10, 100, 1000)
COUNTS: Final = (1, 8, 16, 32, 64, 128, 1024)  # of members, in the second table
EDGES: Final = (0, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 1 << 20)  # bytes of frames, there
BY_SIZE: Final = ("deflate 1", "igzip 1", "columns, deflate 1")
MAX_FRAMES: Final = 300  # measured per group, spread over the recording
MIN_FRAMES: Final = 4
PAYS: Final = 3.0  # bytes / CPU
FRAME_HEADER: Final = HEADER.size  # of a compressed frame, in a binary message
SEND_SIZES: Final = (64, 256, 1024, 4096, 16384, 65536, 262144)  # bytes
SOCKETS: Final = 500
PAUSE_S: Final = 0.02  # between sends to a socket: its caches are cold, and its reader sleeps
SENDS: Final = 10  # to each socket, per size and round
APPEND_US: Final = 0.04  # per tick and group: marketfeed/fanout/lane.py


class Group(NamedTuple):
    """The frames of one group, without their WebSocket headers."""

    source: str
    tier: str
    encoding: str
    symbols: int
    frames: list[bytes]
    ticks: float  # per frame
    engine_us: float  # collect and encode, per frame


def steps(ticks: Ticks, interval_ns: int) -> Iterator[tuple[int, Batch]]:
    """Yield the time of each flush, and the ticks before it, which were stamped once per millisecond."""
    for records, own in ((ticks.quotes, ticks.quotes_ns), (ticks.trades, ticks.trades_ns)):
        slot = own // MS
        records["ts_recv"] = slot * MS + (slot * 7919 % 1000) * US
    times = np.concatenate([ticks.quotes_ns, ticks.trades_ns])
    order = times.argsort(kind="stable")
    channels = (order >= len(ticks.quotes_ns)).astype(np.uint8)
    batch = Batch(ticks.quotes.copy(), ticks.trades.copy(), channels)
    flush = times[order] // interval_ns
    edges = [0, *(np.flatnonzero(np.diff(flush)) + 1).tolist(), len(order)]
    for start, end in itertools.pairwise(edges):
        yield (int(flush[start]) + 1) * interval_ns, batch.cut(start, end)


def groups_of(source: str, ticks: Ticks, tier: str, encoding: str, sizes: Sequence[int]) -> list[Group]:
    """Return the frames that groups of ``sizes`` of the most active symbols get."""
    interval_ns = TIERS[tier]
    table = SymbolTable(8192)
    for name in ticks.names:
        table.intern(name)
    rings = Rings.private(8192, 256, epoch="perf")
    writer = RingWriter(rings)
    counts = np.bincount(np.concatenate([ticks.quotes["symbol"], ticks.trades["symbol"]]))
    active = [ticks.names[number] for number in counts.argsort()[::-1].tolist()]
    found = []
    all_steps = list(steps(ticks, interval_ns))
    skip = max(1, len(all_steps) // MAX_FRAMES)
    for size in sizes:
        interests = Interests(table)
        lanes = Lanes(rings, table, interests)
        names = active[:size]
        kind = ENCODINGS[encoding]
        chosen = Tier(tier, interval_ns, False, 65536)
        member = Subscriber("one", None, chosen, kind, interests.use(Names(names, names)), clock.now_ns())  # type: ignore[arg-type]
        frames: list[bytes] = []
        took: list[int] = []
        total = 0
        lane = None
        for index, (at_ns, batch) in enumerate(all_steps):
            writer.write(batch.only(np.ones(len(batch.quotes), bool), np.ones(len(batch.trades), bool)))
            if lane is None:
                lane = lanes.of(member)
                member.sink = _SINK
                lane.join(member)
                (group,) = lane.groups.values()
                continue
            head = lanes.learn()
            touched = lane.collect(head)
            if not touched:
                continue
            before = time.thread_time_ns()
            message, number = group.frame(Moment(rings.epoch, lane.g, at_ns), table)
            took.append(time.thread_time_ns() - before)
            total += number
            span = payload_span(message)
            assert span is not None
            if index % skip == 0 or len(all_steps) < MAX_FRAMES:
                frames.append(message[span[0] :])
        if len(frames) >= MIN_FRAMES:
            ticks_each = total / len(took)
            spent = statistics.mean(took) / 1000 + ticks_each * APPEND_US
            found.append(Group(source, tier, encoding, size, frames, ticks_each, spent))
    return found


class _Sink:
    def offer(self, frame: bytes) -> bool:
        return True


_SINK: Any = _Sink()


class Cost(NamedTuple):
    """The frames of one group, compressed in one way."""

    way: str
    plain: np.ndarray[Any, Any]  # bytes of each frame, headers included
    packed: np.ndarray[Any, Any]
    pack_us: np.ndarray[Any, Any]
    unpack_us: float


def costs(group: Group, rounds: int) -> list[Cost]:
    """Measure each way over the frames of ``group``, in turns."""
    ways = ways_for(group.encoding, group.frames)
    frames = group.frames[1::2] if any("trained" in way.name for way in ways) else group.frames
    spent = {way.name: np.zeros((rounds, len(frames))) for way in ways}
    undone = {way.name: 0.0 for way in ways}
    packed: dict[str, list[bytes]] = {}
    for turn in range(rounds):
        for way in random.sample(ways, len(ways)):
            out = []
            for index, frame in enumerate(frames):
                before = time.thread_time_ns()
                done = way.pack(frame)
                spent[way.name][turn, index] = (time.thread_time_ns() - before) / 1000
                out.append(done)
            packed[way.name] = out
    for way in ways:
        before = time.thread_time_ns()
        for done in packed[way.name]:
            way.unpack(done)
        undone[way.name] = (time.thread_time_ns() - before) / 1000 / len(frames)
        assert all(way.unpack(done) == frame for done, frame in zip(packed[way.name], frames, strict=True))
    plain = np.array([len(frame) + len(header(0, len(frame))) for frame in frames])
    return [
        Cost(
            way.name,
            plain,
            np.array(
                [
                    len(done) + FRAME_HEADER + len(header(0, len(done) + FRAME_HEADER))
                    for done in packed[way.name]
                ]
            ),
            np.median(spent[way.name], axis=0),
            undone[way.name],
        )
        for way in ways
    ]


def drain(sockets: Sequence[socket.socket]) -> None:
    """Read and discard, in a process of its own."""
    chosen = selectors.DefaultSelector()
    for sock in sockets:
        chosen.register(sock, selectors.EVENT_READ)
    room = bytearray(1 << 20)
    while True:
        for key, _ in chosen.select():
            key.fileobj.recv_into(room)  # type: ignore[union-attr]


def sends(rounds: int) -> Callable[[Any], Any]:
    """Measure one send by its size over loopback sockets; return the time in µs by size in bytes."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=SOCKETS)
    mine, peers = [], []
    for _ in range(SOCKETS):
        mine.append(socket.create_connection(listener.getsockname()))
        peers.append(listener.accept()[0])
        mine[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader = os.fork()
    if not reader:
        drain(peers)
    found: dict[int, list[float]] = {size: [] for size in SEND_SIZES}
    try:
        for _ in range(rounds):
            for size in SEND_SIZES:
                data, took, count = bytes(size), 0, 0
                for _ in range(SENDS):
                    before = time.thread_time_ns()
                    for sock in mine:
                        sock.sendall(data)
                    took += time.thread_time_ns() - before
                    count += SOCKETS
                    time.sleep(PAUSE_S)
                found[size].append(took / count / 1000)
    finally:
        os.kill(reader, signal.SIGKILL)
        os.waitpid(reader, 0)
    medians = [statistics.median(found[size]) for size in SEND_SIZES]
    return lambda sizes: np.interp(sizes, SEND_SIZES, medians)


def cpu_ratio(
    group: Group, cost: Cost, send_us: Callable[[Any], Any], members: int, among: Any = slice(None)
) -> float:
    """Return the CPU time per delivered frame with compression over that without it."""
    count = len(cost.plain[among])
    # The time to encode a frame grows with its ticks.
    engine = group.engine_us * cost.plain[among].sum() / cost.plain.mean()
    before = engine / members + send_us(cost.plain[among]).sum()
    after = (engine + cost.pack_us[among].sum()) / members + send_us(cost.packed[among]).sum()
    return float(after / before) if count else float("nan")


def line(group: Group, cost: Cost, send_us: Callable[[Any], Any]) -> str:
    """Return the figures of one group and way as a line of the first table."""
    factor = cost.plain.sum() / cost.packed.sum()
    cpu = [cpu_ratio(group, cost, send_us, members) for members in MEMBERS]
    ratios = " ".join(f"{ratio:5.2f}" for ratio in cpu)
    pays = " ".join(f"{factor / ratio:5.2f}{'*' if factor / ratio >= PAYS else ' '}" for ratio in cpu)
    return (
        f"{group.source:22} {group.tier:8}{group.encoding:7}{group.symbols:5}{group.ticks:7.1f} {cost.way:20}"
        f"{cost.plain.mean():9,.0f}{cost.packed.mean():8,.0f}{factor:6.2f}{group.engine_us:8.1f}"
        f"{cost.pack_us.mean():8.1f}{cost.unpack_us:8.1f}  {ratios}   {pays}"
    )


HEAD: Final = (
    f"{'source':22} {'tier':8}{'coding':7}{'syms':>5}{'ticks':>7} {'way':20}{'plain':>9}{'packed':>8}{'÷':>6}"
    f"{'engine':>8}{'pack':>8}{'unpack':>8}  CPU × at {MEMBERS}   bytes / CPU"
)


def by_size(found: Sequence[tuple[Group, Cost]], send_us: Callable[[Any], Any]) -> Iterator[str]:
    """Yield the lines of the second table, for deflate and igzip without a dictionary."""
    yield f"\n{'coding':7}{'way':20}{'bytes':>18}{'÷, least':>10}   least bytes / CPU at {COUNTS} members"
    for encoding, way in itertools.product(ENCODINGS, BY_SIZE):
        for low, high in itertools.pairwise(EDGES):
            factors, worst = [], [np.inf] * len(COUNTS)
            for group, cost in found:
                among = (cost.plain >= low) & (cost.plain < high)
                if (group.encoding, cost.way) != (encoding, way) or np.count_nonzero(among) < MIN_FRAMES:
                    continue
                factors.append(cost.plain[among].sum() / cost.packed[among].sum())
                for index, members in enumerate(COUNTS):
                    pays = factors[-1] / cpu_ratio(group, cost, send_us, members, among)
                    worst[index] = min(worst[index], pays)
            if factors:
                told = " ".join(f"{value:5.2f}{'*' if value >= PAYS else ' '}" for value in worst)
                yield f"{encoding:7}{way:20}{low:>8,}{high:>10,}{min(factors):10.2f}   {told}"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.compress",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="sources whose name contains this")
    options = parser.parse_args()
    say = functools.partial(bench.console.print, highlight=False, soft_wrap=True)
    say(bench.machine(), style="dim")
    send_us = sends(options.rounds)
    say("a send: " + ", ".join(f"{size:,} bytes {send_us(size):.1f} µs" for size in SEND_SIZES), style="dim")
    say(HEAD)
    found: list[tuple[Group, Cost]] = []
    with TemporaryDirectory() as temporary:
        for name, load in sources(Path(os.environ["MARKETFEED_REALDATA"]), Path(temporary)).items():
            if options.only not in name:
                continue
            ticks = load()
            sizes = [size for size in SIZES if size == SIZES[0] or size <= len(ticks.names)]
            for tier, encoding in itertools.product(TIERS, ENCODINGS):
                for group in groups_of(name, ticks, tier, encoding, sizes):
                    for cost in costs(group, options.rounds):
                        say(line(group, cost, send_us))
                        found.append((group, cost))
    for text in by_size(found, send_us):
        say(text)


async def run() -> None:
    """Run it where the engine's clock is: in trio."""
    main()


if __name__ == "__main__":
    trio.run(run)
