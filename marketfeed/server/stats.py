"""Statistics of a session server: plain values that processes send to each other and add up.

Fields are merged by type: numbers are added, dicts by key, lists by index. A new figure requires a field
here, a line in server/local.py that sets it, and one in admin/metrics.py that exports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from marketfeed.errors import CloseCode
from marketfeed.fanout.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterable

MAXIMA: Final = frozenset({"gc_longest_s", "gc_longest_cpu_s"})  # merged by maximum, not by sum


class ServerStats(msgspec.Struct):
    """Statistics of one server since its start, or the sum of several."""

    sessions: dict[tuple[str, str], int] = {}  # now, by transport and tier
    clients: dict[tuple[str, str], int] = {}  # sessions now, by protocol and SDK
    lagging: dict[str, int] = {}  # now, by tier
    synced: int = 0  # sessions now that have been sent their first `synced`
    groups: int = 0  # now
    accepted: int = 0
    handshakes_per_s: int = 0  # most in one second
    closes: dict[int, int] = {}  # by close code
    refused: dict[str, int] = {}  # connections, by reason
    requests: dict[tuple[str, int], int] = {}  # over HTTP, by route ("" if unknown) and status
    polls: int = 0  # long polls that wait now
    errors: dict[int, int] = {}  # error messages, by code
    authentications: dict[str, int] = {}  # tokens, keys and tickets that were presented, by result
    ledgers: dict[str, Ledger] = {}  # by tier
    frames: int = 0
    flushes: int = 0
    failures: int = 0
    flush_seconds: float = 0.0
    flush_counts: list[int] = []  # per bucket of fanout.figures.FLUSH_BOUNDS_S, not cumulative
    gc_collections: list[int] = []  # by generation
    gc_seconds: list[float] = []
    gc_longest_s: float = 0.0
    gc_longest_cpu_s: float = 0.0
    frame_sizes: list[int] = []  # frames by the bit length of their size
    sent_bytes: int = 0  # of flushes
    durations: list[int] = []  # ended sessions per bucket of gateway.limits.DURATION_BOUNDS_S, not cumulative
    duration_s: float = 0.0
    cpu_s: dict[str, float] = {}  # by process
    resident_bytes: dict[str, int] = {}
    interruptions: dict[str, int] = {}  # measured by self-probes, by tier
    interrupted_s: dict[str, float] = {}
    round_trips: dict[str, list[int]] = {}  # of pings by tier; per bucket of ROUND_TRIP_BOUNDS_S, as above
    round_trip_s: dict[str, float] = {}  # sums
    unplaced: dict[str, int] = {}  # deliveries of batches too old for `ring` and `wait`, by tier
    workers: dict[str, int] = {}  # connections now, by worker
    worker_restarts: int = 0

    def past(self) -> ServerStats:
        """Return the statistics after the server died: its sessions are closed, pending ticks abandoned."""
        lost = sum(self.sessions.values())
        ledgers = {tier: Ledger() for tier in self.ledgers}
        for tier, ledger in self.ledgers.items():
            ledgers[tier].add(ledger)
            ledgers[tier].abandoned += ledgers[tier].pending
            ledgers[tier].pending = 0
        closes = _sum(self.closes, {int(CloseCode.ABNORMAL): lost} if lost else {})
        return msgspec.structs.replace(
            self,
            sessions={},
            clients={},
            lagging={},
            synced=0,
            groups=0,
            polls=0,
            handshakes_per_s=0,
            closes=closes,
            ledgers=ledgers,
            resident_bytes={},
        )


def merged(reports: Iterable[ServerStats]) -> ServerStats:
    """Return the sum of ``reports``, which are not changed."""
    total = ServerStats()
    for report in reports:
        for name in ServerStats.__struct_fields__:
            mine, more = getattr(total, name), getattr(report, name)
            setattr(total, name, max(mine, more) if name in MAXIMA else _sum(mine, more))
    return total


def _sum(mine: Any, more: Any) -> Any:
    if isinstance(mine, dict):
        both = {key: _sum(mine[key], more[key]) for key in mine.keys() & more.keys()}
        return mine | more | both
    if isinstance(mine, list):
        longer, shorter = (mine, more) if len(mine) >= len(more) else (more, mine)
        return [a + b for a, b in zip(longer, shorter, strict=False)] + longer[len(shorter) :]
    if isinstance(mine, Ledger):
        total = Ledger()
        total.add(mine)
        total.add(more)
        return total
    return mine + more
