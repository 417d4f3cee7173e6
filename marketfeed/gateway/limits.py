"""Limits on clients, and counters of their connections, requests and sessions."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import trio

if TYPE_CHECKING:
    from marketfeed.errors import CloseCode
    from marketfeed.fanout.interest import Names

DURATION_BOUNDS_S: Final = (1.0, 10.0, 60.0, 600.0, 3600.0, 28_800.0, 86_400.0)  # of sessions
HANDSHAKES: Final = "handshakes_per_s"
SWEEP_AT: Final = 4096  # addresses stored before those with full buckets are dropped


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits per session, per address, and for all sessions together."""

    request_bytes: int
    symbols_per_session: int
    sessions: int
    sessions_per_ip: int
    requests_per_s: float
    handshake_s: float
    patterns_per_session: int = 500
    handshakes_per_s: float = 0.0  # 0: any number

    def excess(self, names: Names) -> str | None:
        """Return why ``names`` are too many for one session, None if they are not."""
        if names.size < self.symbols_per_session and not any("*" in text for text in names.texts):
            return None  # there are no more names than characters
        distinct = names.distinct()
        if len(distinct) > self.symbols_per_session:
            most = self.symbols_per_session
            return f"at most {most} names and patterns a session: limits.symbols_per_session"
        patterns = sum(name.endswith("*") for name in distinct)
        if patterns > self.patterns_per_session:
            most = self.patterns_per_session
            return f"at most {most} patterns a session, not {patterns}: limits.patterns_per_session"
        return None


class Bucket:
    """A token bucket: ``rate`` tokens a second, and a burst of as many."""

    __slots__ = ("_at_s", "_rate", "_tokens")

    def __init__(self, rate: float, now_s: float) -> None:
        self._rate = rate
        self._tokens = rate
        self._at_s = now_s

    def take(self, now_s: float) -> bool:
        """Take one token; False if there is none."""
        self._tokens = min(self._rate, self._tokens + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def full(self, now_s: float) -> bool:
        """Return whether the bucket is in the state of a new one."""
        return self._tokens + (now_s - self._at_s) * self._rate >= self._rate


class Rates:
    """A token bucket per address; full buckets are dropped."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._buckets: dict[str, Bucket] = {}
        self._sweep_at = SWEEP_AT

    def take(self, address: str, now_s: float) -> bool:
        """Take one token of ``address``; False if there is none."""
        bucket = self._buckets.get(address)
        if bucket is None:
            if len(self._buckets) >= self._sweep_at:
                self._buckets = {a: b for a, b in self._buckets.items() if not b.full(now_s)}
                self._sweep_at = max(SWEEP_AT, 2 * len(self._buckets))
            bucket = self._buckets[address] = Bucket(self._rate, now_s)
        return bucket.take(now_s)

    def __len__(self) -> int:
        return len(self._buckets)


@dataclass(slots=True)
class Counters:
    """Counters of the gateway since the start."""

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # before a session began, by reason
    requests: Counter[tuple[str, int]] = field(default_factory=Counter)  # by route ("" if unknown) and status
    closes: Counter[CloseCode] = field(default_factory=Counter)
    errors: Counter[int] = field(default_factory=Counter)  # error messages, by code
    authentications: Counter[str] = field(default_factory=Counter)  # by result
    durations: list[int] = field(default_factory=lambda: [0] * (len(DURATION_BOUNDS_S) + 1))
    duration_s: float = 0.0

    def close(self, code: CloseCode, lived_s: float) -> None:
        """Count a session that has ended."""
        self.closes[code] += 1
        self.durations[bisect_left(DURATION_BOUNDS_S, lived_s)] += 1
        self.duration_s += lived_s


class Admits(Protocol):
    """Admission of sessions; with several processes, by another process."""

    async def ask(self, address: str) -> str | None:
        """Count one more session from ``address``; return which limit forbids it, None if none does."""
        ...

    def release(self, address: str) -> None:
        """Count one session less; pair with an :meth:`ask` that returned None."""
        ...


class Admission:
    """Counts sessions, sessions per address, and handshakes a second. ``limits`` may be replaced."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._handshakes: tuple[float, Bucket] | None = None  # and its rate
        self._by_address: Counter[str] = Counter()
        self.total = 0

    def admit(self, address: str, now_s: float) -> str | None:
        """Count one more session from ``address``; return which limit forbids it, None if none does."""
        if self.total >= self.limits.sessions:
            return "sessions"
        if self._by_address[address] >= self.limits.sessions_per_ip:
            return "sessions_per_ip"
        if not self._may_handshake(now_s):
            return HANDSHAKES
        self._by_address[address] += 1
        self.total += 1
        return None

    async def ask(self, address: str) -> str | None:
        """Call :meth:`admit`; async because other implementations ask another process."""
        return self.admit(address, trio.current_time())

    def _may_handshake(self, now_s: float) -> bool:
        rate = self.limits.handshakes_per_s
        if not rate:
            return True
        if self._handshakes is None or self._handshakes[0] != rate:
            self._handshakes = rate, Bucket(rate, now_s)
        return self._handshakes[1].take(now_s)

    def release(self, address: str) -> None:
        """Count one session less; pair with an :meth:`admit` that returned None."""
        self.total -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
