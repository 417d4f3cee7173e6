"""Counters of a feed, and its histogram of latency."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from marketfeed.core.histogram import Histogram

_TOGETHER: Final = 1024  # latencies recorded in one call

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of a histogram, in nanoseconds; 0 if there are no values."""

    count: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    p999_ns: int
    max_ns: int

    @classmethod
    def of(cls, histogram: Histogram) -> Latency:
        """Return the percentiles of ``histogram``."""
        p50, p90, p99, p999 = histogram.percentiles((50.0, 90.0, 99.0, 99.9))
        return cls(histogram.total, p50, p90, p99, p999, histogram.max_ns)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a feed has received since it began.

    ``latency`` is from the engine's receipt of a tick to its read here, of live ticks; the difference between
    the two clocks is part of it. Ticks that arrived before their time of receipt (``early``) count as 0, and
    those after more than a minute as ``beyond``. ``round_trip`` is of pings.
    """

    messages: int  # of the WebSocket
    received_bytes: int  # as received from the socket or TLS
    quotes: int
    trades: int
    snapshots: int  # of the ticks
    alerts: int
    gaps: int
    lost: int  # ticks, in announced gaps
    silently_lost: int  # ticks in holes that the engine did not announce
    lags: int
    conflated: int  # quotes, while the session lagged
    resets: int
    duplicates: int  # ticks that came again or late, and were dropped
    unknown: int  # messages of types that this version does not know
    connections: int
    disconnects: int
    early: int
    beyond: int
    latency: Latency
    round_trip: Latency


@dataclass(slots=True)
class Counters:
    """The counters behind :class:`Statistics`, of the same names."""

    messages: int = 0
    received_bytes: int = 0
    quotes: int = 0
    trades: int = 0
    snapshots: int = 0
    alerts: int = 0
    gaps: int = 0
    lost: int = 0
    silently_lost: int = 0
    lags: int = 0
    conflated: int = 0
    resets: int = 0
    duplicates: int = 0
    unknown: int = 0
    connections: int = 0
    disconnects: int = 0
    early: int = 0
    _late: list[NDArray[np.int64]] = field(default_factory=list)
    _waiting: int = 0  # values in it
    _latency: Histogram = field(default_factory=Histogram)
    _round_trip: Histogram = field(default_factory=Histogram)

    def arrived(self, received_ns: NDArray[np.int64], arrived_ns: int) -> None:
        """Record live ticks that the engine had received at ``received_ns``, shape ``(k,)``."""
        self._late.append(arrived_ns - received_ns)
        self._waiting += len(received_ns)
        if self._waiting >= _TOGETHER:
            self._record()

    def _record(self) -> None:
        """Record the latencies that wait: one call for many is several times as cheap."""
        if not self._late:
            return
        late_ns = np.concatenate(self._late)
        self._late.clear()
        self._waiting = 0
        early = int(np.count_nonzero(late_ns < 0))
        if early:
            self.early += early
            late_ns = np.maximum(late_ns, 0)
        self._latency.record(late_ns)

    def answered(self, round_trip_s: float) -> None:
        """Record the round trip of a ping."""
        self._round_trip.record_one(int(round_trip_s * 1e9), 1)

    def statistics(self) -> Statistics:
        """Return the present figures."""
        self._record()
        counts = {name: getattr(self, name) for name in self.__slots__ if not name.startswith("_")}
        return Statistics(
            **counts,
            beyond=self._latency.beyond,
            latency=Latency.of(self._latency),
            round_trip=Latency.of(self._round_trip),
        )
