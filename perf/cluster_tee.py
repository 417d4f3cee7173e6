"""What does a quote cost an origin and a mirror, without the network?

    batches of 1,024, 64 and 1 ──► RingWriter ──► Tee ──► frame log
                                                   └────► frames ──► Mirror ──► MirrorWriter ──► rings

1,000 symbols, p ∝ 1/rank, batches at a million quotes per second of virtual time. Reports: time per quote of
the rings' writer, of the tee, of decoding, and of a mirror, its writer included, each as the median of the
rounds with minimum and maximum; then the time of a state of all symbols. Not covered: NATS, and contention.

    python -m perf.cluster_tee
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Final

import numpy as np

from marketfeed.cluster.frame_log import FrameLog
from marketfeed.cluster.frames import Kind, header_of, ticks_of
from marketfeed.cluster.mirror import Mirror
from marketfeed.cluster.state import Sizes, state_of, state_parts
from marketfeed.cluster.tee import MAX_PAYLOAD, Tee
from marketfeed.core.mirror import MirrorWriter
from marketfeed.core.records import QUOTE, Batch
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SYMBOLS: Final = 1000
DEPTH: Final = 1024
EPOCH: Final = "1bench"
ROUNDS: Final = 9
BATCHES: Final = {1024: 200, 64: 1600, 1: 20_000}  # batch size: batches a round
TARGET: Final = "at most 0.2 µs per quote in the tee, in batches of 1,024 at a million quotes per second"

clock = time.perf_counter_ns


def wall_ns() -> int:
    """Return a fixed time."""
    return 1


class Bench:
    """An origin with its tee, and a mirror that is fed with the frames of each round afterwards."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.rings = Rings.private(SYMBOLS, DEPTH, EPOCH)
        self.symbols = SymbolTable(SYMBOLS, self.rings.names)
        for number in range(SYMBOLS):
            self.symbols.intern(f"SY{number:04d}")
        self.log = FrameLog(256 << 20)
        self.frames: list[bytes] = []
        self.tee = Tee(self.symbols, self.log, self.frames.append, term=1, epoch=EPOCH, wall_ns=wall_ns)
        self.writer = RingWriter(self.rings)
        self.mirrored = Rings.private(SYMBOLS, DEPTH, EPOCH)
        names = SymbolTable(SYMBOLS, self.mirrored.names)
        self.mirror = Mirror(
            MirrorWriter(self.mirrored), names, Sizes(SYMBOLS, DEPTH), FrameLog(256 << 20),
            term=1, epoch=EPOCH, now_ns=0,
        )  # fmt: skip
        self.mirror.start(0)
        for part in self.state():
            self.mirror.state_part(1, part, 0)
        weights = 1 / np.arange(1, SYMBOLS + 1)
        random = np.random.default_rng(size)
        draws = random.choice(SYMBOLS, BATCHES[size] * size, p=weights / weights.sum())
        self.drawn: NDArray[np.uint16] = draws.astype(np.uint16).reshape(-1, size)
        self.quotes = np.zeros(size, QUOTE)
        self.now_ns = 0

    def state(self) -> list[bytes]:
        """Return the parts of the origin's state."""
        state = state_of(self.rings, self.symbols)
        assert state is not None
        return list(state_parts(state, self.log, term=1, epoch=EPOCH, max_payload=MAX_PAYLOAD))

    def round(self) -> dict[str, float]:
        """Write, send, decode and mirror every batch once; return µs per quote of each step."""
        self.frames.clear()
        write_ns = tee_ns = 0
        for symbols in self.drawn:
            quotes = self.quotes
            quotes["symbol"] = symbols
            quotes["ts_recv"] = self.now_ns + 1
            batch = Batch(quotes)
            began = clock()
            last_g = self.writer.write(batch)
            wrote = clock()
            self.tee.append(batch, last_g, self.now_ns)
            tee_ns += clock() - wrote
            write_ns += wrote - began
            self.now_ns += 1000 * self.size
        began = clock()
        self.tee.flush(self.now_ns + 10**9)
        tee_ns += clock() - began
        steps = {"write": float(write_ns), "tee": float(tee_ns)}
        steps["decode"] = timed(self.decode)
        steps["mirror"] = timed(self.feed)
        return {name: ns / 1e3 / self.drawn.size for name, ns in steps.items()}

    def decode(self) -> None:
        """Decode and check all frames of ticks."""
        for frame in self.frames:
            header = header_of(frame)
            if header.kind is Kind.TICKS:
                ticks_of(header, frame)

    def feed(self) -> None:
        """Feed the mirror with all frames."""
        for frame in self.frames:
            self.mirror.feed(frame, self.now_ns)

    def check(self) -> None:
        """Fail unless the frames of the last round are what was written, and the mirror equals the origin."""
        found = [ticks_of(header_of(frame), frame)[0] for frame in self.frames if frame[1] == Kind.TICKS]
        quotes = np.concatenate(found)
        assert (quotes["symbol"] == self.drawn.reshape(-1)).all()
        head = self.rings.head()
        assert (quotes["g"] == np.arange(head - len(quotes) + 1, head + 1, dtype=np.uint64)).all()
        mirrored, origin = self.mirrored.view, self.rings.view
        for part in ("published_g", "claimed", "published", "names", "slots", "sequence"):
            assert getattr(mirrored, part).tobytes() == getattr(origin, part).tobytes(), part
        assert self.mirror.counts.bad == self.mirror.counts.adopted == self.mirror.behind == 0


def timed(step: Callable[[], object]) -> float:
    """Return the time of one call, in ns."""
    began = clock()
    step()
    return float(clock() - began)


def row(name: str, values: list[float], unit: str) -> str:
    """Return one line of the table."""
    return f"{name:<40}{statistics.median(values):9.3f} {unit} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    """Measure and print."""
    for size in BATCHES:
        bench = Bench(size)
        bench.round()  # warm up pages and caches
        rounds = [bench.round() for _ in range(ROUNDS)]
        bench.check()
        frames = sum(frame[1] == Kind.TICKS for frame in bench.frames)
        print(f"batches of {size:,}: {bench.drawn.size / frames:,.0f} quotes per frame")
        for name in rounds[0]:
            print(row(f"  {name}", [r[name] for r in rounds], "µs per quote"))
    states = [timed(bench.state) / 1e6 for _ in range(ROUNDS)]
    print(row(f"state of {SYMBOLS:,} symbols", states, "ms"))
    print(f"aimed at: {TARGET}")


if __name__ == "__main__":
    main()
