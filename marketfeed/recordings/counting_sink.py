"""Sinks for simulated sessions: count bytes, frames, and the delays of ticks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from marketfeed import clock
from marketfeed.core.binary import FrameParser, Kind
from marketfeed.core.units import S
from marketfeed.fanout.wire import BINARY, Encoding
from marketfeed.fanout.ws_frames import payload_span

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from marketfeed.errors import CloseCode
    from marketfeed.fanout.tiers import Tier

START_NS: Final = 1_000_000_000 * S  # virtual wall clock at the start, ns since the Unix epoch
_BINS: Final = 10_000  # of a tier's delays, over its interval
_MIN_BIN_NS: Final = 1_000


def wall_ns() -> int:
    """Return the simulation's wall clock, ns since the Unix epoch."""
    return START_NS + clock.now_ns()


class Delays:
    """Histogram of delays from receipt to flush, in bins of 1/10,000 of the tier's interval."""

    def __init__(self, interval_ns: int) -> None:
        self._bin_ns = max(interval_ns // _BINS, _MIN_BIN_NS)
        self._counts = np.zeros(_BINS + 2, np.int64)
        self._total_ns = 0
        self.max_ns = 0

    def add(self, delays_ns: NDArray[np.int64]) -> None:
        """Add the delays of delivered ticks, shape ``(k,)``."""
        bins = np.clip(delays_ns // self._bin_ns, 0, _BINS + 1)
        self._counts += np.bincount(bins, minlength=_BINS + 2)
        self._total_ns += int(delays_ns.sum())
        self.max_ns = max(self.max_ns, int(delays_ns.max(initial=0)))

    def merge(self, other: Delays) -> None:
        """Add the delays of another session of the same tier."""
        self._counts += other._counts
        self._total_ns += other._total_ns
        self.max_ns = max(self.max_ns, other.max_ns)

    def percentile_ns(self, percent: float) -> int:
        """Return the delay that ``percent`` of the ticks did not exceed, rounded up to a bin."""
        total = int(self._counts.sum())
        if not total:
            return 0
        at = int(np.searchsorted(self._counts.cumsum(), total * percent / 100))
        return min((at + 1) * self._bin_ns, self.max_ns) if at else min(self._bin_ns, self.max_ns)

    @property
    def mean_ns(self) -> float:
        """Return the exact mean of the delays."""
        total = int(self._counts.sum())
        return self._total_ns / total if total else 0.0


class CountingSink:
    """Sink that accepts every frame at once and counts it; with binary encoding, also records tick delays."""

    def __init__(self, tier: Tier, encoding: Encoding) -> None:
        self.received = 0
        self.bytes = self.frames = 0
        self.delays = Delays(tier.interval_ns) if encoding is BINARY else None

    def offer(self, frame: bytes) -> bool:
        """Accept and count ``frame``; short frames of a catch-up may come together."""
        self.bytes += len(frame)
        at = 0
        while (span := payload_span(frame, at)) is not None:
            start, length = span
            at = start + length
            self.frames += 1
            if self.delays is not None:
                self._add_delays(frame[start:at], self.delays)
        return True

    def _add_delays(self, payload: bytes, delays: Delays) -> None:
        now_ns = wall_ns()
        parser = FrameParser()
        parser.feed(payload)
        for part in parser:
            if part.kind in (Kind.QUOTES, Kind.TRADES):
                delays.add(now_ns - part.records()["ts_recv"])

    def acknowledged(self) -> int:
        """Return 0: no data ever waits."""
        return 0

    def unsent(self) -> int:
        """Return 0: no data ever waits."""
        return 0

    def pace(self, send_buffer_bytes: int) -> None:
        """Do nothing: there is no kernel buffer."""

    def end(self, code: CloseCode) -> None:
        """Raise RuntimeError: a simulated session is never slow, so this is a bug in the engine."""
        raise RuntimeError(f"the engine ended a simulated session: {code.name}")
